"""The stage of transform-domain convolution: input transform, products and output transform.

These three are *routines*, compiled by themselves, whose addresses the stage is passed: a family of
transforms (Winograd, Fourier) has the specifications of the first and the last, `tiles` that of the
products; what calls them for which tiles is here. The images of a network differ in their sizes,
and so do register tiles of products, and blocks and stages for threads: with another of these
nothing but the products is compiled anew, which most other layers share.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from nnpack.frozen import dataclass
from nnpack.kernels.epilogue import epilogue_fields
from nnpack.kernels.stage import Arguments, Fields, PhaseTimer, emit_stage, profile_fields
from nnpack.kernels.storage import scaled_fields

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Value
    from nnpack.problem import EpilogueKind, WeightStorage

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
            "transform_input",
            "multiply",
            "transform_output",
            "planes",
            "plane_columns",
            "channel_blocks",
            "steps",
            "panels",
            "panel_vectors",
            "block_tiles",
            "v_f",
            "m_f",
            "step_h",
            "step_w",
            "phases_h",
            "phases_w",
            "depth",
            "phase_blocks",
            "steps_row",
            "steps_column",
            "steps_corner",
        ),
        "index",
    ),
}
"""The words that every such stage has, beside the weights and the epilogue.

``stage_tiles`` are the tiles of a block and ``input_units`` the blocks of input channels that are
loaded, each a task of the input side. Of the products there are ``planes``, in rows of
``plane_columns``; their depth is ``steps``, as far as it counts, of ``channel_blocks`` times lanes.
The rows and the depth of the products are ``rows`` times as many. ``step_h`` and what follows are
of strides and dilations.
"""

INPUT_PARAMETERS = {
    **dict.fromkeys(("block", "x", "v"), "pointer"),
    **dict.fromkeys(("start", "count", "first", "last"), "index"),
}
"""Of the routine ``transform_input``: ``count`` tiles from ``start`` on of channel blocks first ..
last of the group at x become V. ``block``, here and below, holds the words of the stage."""

PRODUCT_PARAMETERS = {
    **dict.fromkeys(("block", "v", "m"), "pointer"),
    **dict.fromkeys(("group", "count", "first", "last"), "index"),
}
"""Of the routine ``multiply``: ``count`` rows of V become M in panels first .. last of a group."""

OUTPUT_PARAMETERS = {
    **dict.fromkeys(("block", "m", "y"), "pointer"),
    **dict.fromkeys(("group", "start", "count", "first", "last"), "index"),
}
"""Of the routine ``transform_output``: M of ``count`` tiles from ``start`` on and panels first ..
last becomes part of the group at y."""


def tile_fields(storage: WeightStorage, epilogue: EpilogueKind | None = None) -> dict[str, str]:
    """The words of a stage, or those of them that do not depend on the epilogue.

    The first of each are those of the other, so that stages of any epilogue share their products.
    """
    words = {**TILE_FIELDS, **scaled_fields("weight", storage)}
    return words if epilogue is None else {**words, **epilogue_fields(epilogue)}


@dataclass(frozen=True)
class TileStage:
    """The stage of blocks of tiles: ``part`` of what is to be done with them.

    ``rows`` is the number of rows of the products a tile has.
    """

    part: Part
    rows: int
    epilogue: EpilogueKind
    storage: WeightStorage = "float32"
    profile: bool = False

    @property
    def fields(self) -> Fields:
        """The argument words."""
        return {**tile_fields(self.storage, self.epilogue), **profile_fields(self.profile)}

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        with emit_stage(asm, self.fields) as (args, first, last, worker):
            _Tasks(asm, args, self.part, self.rows, self.profile).emit(first, last, worker)


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
        args = self.args
        group, start, count = self._place(block)
        x = args["x"] + group * args["channels"] * args["x_c"]
        with self.timer.phase("input transform"):
            self._call("transform_input", x, v, start, count, first, last)

    def _emit_output(self, block: Value, chunk: Value, v: Value, m: Value) -> None:
        """Multiply one block of tiles by a chunk of panels, and transform the products into y."""
        asm, args = self.asm, self.args
        group, start, count = self._place(block)
        first = chunk * args["chunk_panels"]
        last = asm.minimum(first + args["chunk_panels"], args["panels"])
        y = args["y"] + group * args["group_out_channels"] * args["y_c"]
        with self.timer.phase("multiplication"):
            self._call("multiply", v, m, group, count * self.rows, first, last)
        with self.timer.phase("output transform"):
            self._call("transform_output", m, y, group, start, count, first, last)

    def _call(self, routine: str, *words: Value) -> None:
        """Call what stands at the address ``routine``."""
        self.asm.call_address(self.args[routine], self.args.block, *words)
