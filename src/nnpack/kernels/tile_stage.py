"""The stage of transform-domain convolution: input transform, products and output transform.

A family of transforms (Winograd, Fourier) defines the functions ``transform_input`` and
``transform_output``, `tiles` defines ``multiply``; what calls them for which tiles is here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from nnpack.kernels.stage import Arguments, Fields, PhaseTimer, emit_stage

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Value

Part = Literal["all", "input", "output"]
"""What of a block of tiles a stage does.

"all": a task is a block of tiles; V and M live in the worker's scratch. "input": a task is a block
of tiles and a block of channels, V is shared. "output": a task is a block of tiles and a chunk of
panels; V is read, M lives in the worker's scratch.
"""

TILE_FIELDS: Fields = {
    **dict.fromkeys(("x", "y", "v", "scratch"), "pointer"),
    **dict.fromkeys(
        (
            "scratch_stride",
            "groups",
            "channels",
            "group_out_channels",
            "chunk_panels",
            "input_units",
            "stage_tiles",
            "height",
            "width",
            "out_height",
            "out_width",
            "tiles_h",
            "tiles_w",
            "tiles",
            "pad_top",
            "pad_left",
            "v_block",
            "x_n",
            "x_c",
            "x_h",
            "y_n",
            "y_c",
            "y_h",
            "y_w",
        ),
        "index",
    ),
}
"""The words that every such stage has, beside `tiles.MULTIPLY_FIELDS` and the weights.

``stage_tiles`` are the tiles of a block and ``input_units`` the blocks of input channels
that are loaded, each a task of the input side. The rows
and the depth of the products are ``rows`` times as many.
"""


def emit_tile_stage(asm: Assembler, fields: Fields, part: Part, rows: int, profile: bool) -> None:
    """Emit the stage; the functions that ``part`` needs are defined.

    ``rows`` is the number of rows of the products a tile has.
    """
    with emit_stage(asm, fields) as (args, first, last, worker):
        _Tasks(asm, args, part, rows, profile).emit(first, last, worker)


class _Tasks:
    """The loop over tasks, and what a task is in each part."""

    def __init__(
        self, asm: Assembler, args: Arguments, part: Part, rows: int, profile: bool
    ) -> None:
        self.asm = asm
        self.args = args
        self.part = part
        self.rows = rows
        self.timer = PhaseTimer(args, profile)
        self.blocks = asm.ceil_div(args["tiles"], args["stage_tiles"])
        self.chunks = asm.ceil_div(args["panels"], args["chunk_panels"])

    def emit(self, first: Value, last: Value, worker: Value) -> None:
        """Run tasks first .. last."""
        asm, args = self.asm, self.args
        scratch = args["scratch"] + worker * args["scratch_stride"]
        with asm.loop(last, start=first) as task:
            if self.part == "all":
                self._emit_input(task, asm.index(0), args["input_units"], scratch)
                with asm.loop(self.chunks) as chunk:
                    self._emit_output(task, chunk, scratch, scratch + args["v_block"])
            elif self.part == "input":
                block, c = task // args["input_units"], task % args["input_units"]
                self._emit_input(block, c, c + 1, args["v"] + block * args["v_block"])
            else:
                block, chunk = task // self.chunks, task % self.chunks
                v = args["v"] + block * args["v_block"]
                self._emit_output(block, chunk, v, scratch)

    def _place(self, block: Value) -> tuple[Value, Value, Value]:
        """Group, first tile and number of tiles of a block."""
        block_tiles = self.args["stage_tiles"]
        start = block % self.blocks * block_tiles
        count = self.asm.minimum(block_tiles, self.args["tiles"] - start)
        return block // self.blocks, start, count

    def _emit_input(self, block: Value, first: Value, last: Value, v: Value) -> None:
        """Transform channel blocks first .. last of one block of tiles into ``v``."""
        asm, args = self.asm, self.args
        group, start, count = self._place(block)
        x = args["x"] + group * args["channels"] * args["x_c"]
        with self.timer.phase("input transform"):
            asm.call("transform_input", args.block, x, v, start, count, first, last)

    def _emit_output(self, block: Value, chunk: Value, v: Value, m: Value) -> None:
        """Multiply one block of tiles by a chunk of panels, and transform the products into y."""
        asm, args = self.asm, self.args
        group, start, count = self._place(block)
        first = chunk * args["chunk_panels"]
        last = asm.minimum(first + args["chunk_panels"], args["panels"])
        y = args["y"] + group * args["group_out_channels"] * args["y_c"]
        with self.timer.phase("multiplication"):
            asm.call("multiply", args.block, v, m, group, count * self.rows, first, last)
        with self.timer.phase("output transform"):
            asm.call("transform_output", args.block, m, y, group, start, count, first, last)
