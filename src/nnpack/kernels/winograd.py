"""Winograd convolution (Winograd, 1980; Lavin & Gray, 2016): the stages of F(m, r) for any m and r.

    y = A^T [ (G g G^T) * (B^T d B) ] A

for tiles d of t x t inputs, t = m + r - 1, giving m x m outputs, summed over channels between the
brackets: t * t matrix products, one for each *frequency* f = i * t_w + j. Channels stand in the lanes
throughout, in blocks of ``lanes``. The two directions may differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nnpack.codegen.assembler import Assembler, Value
from nnpack.kernels.epilogue import epilogue_fields
from nnpack.kernels.gemm import GemmTile
from nnpack.kernels.stage import Arguments, PhaseTimer, emit_stage, profile_fields
from nnpack.kernels.tiles import MULTIPLY_FIELDS, emit_multiply_function
from nnpack.kernels.winograd_input import InputTransform
from nnpack.kernels.winograd_output import OutputTransform
from nnpack.kernels.winograd_shape import TileShape
from nnpack.problem import EpilogueKind

Part = Literal["all", "input", "output"]

_INDEX_FIELDS = (
    "scratch_stride",
    "groups",
    "channels",
    "depth",
    "group_out_channels",
    "chunk_panels",
    "height",
    "width",
    "out_height",
    "out_width",
    "step_h",
    "step_w",
    "tiles_h",
    "tiles_w",
    "tiles",
    "pad_top",
    "pad_left",
    "v_block",
    "phase_blocks",
    "blocks_row",
    "blocks_column",
    "blocks_corner",
    "x_n",
    "x_c",
    "x_h",
    "y_n",
    "y_c",
    "y_h",
    "y_w",
)


@dataclass(frozen=True)
class Winograd:
    """The stage of one block of tiles: all of it, or only the input or the output side.

    "all": a task is a block of tiles; V and M live in the worker's scratch. "input": a task is a
    block of tiles and a block of channels, V is shared. "output": a task is a block of tiles and a
    chunk of panels; V is read, M lives in the worker's scratch.
    """

    shape: TileShape
    tile: GemmTile
    part: Part
    epilogue: EpilogueKind
    profile: bool = False

    @property
    def fields(self) -> dict[str, str]:
        """The argument words."""
        return {
            **dict.fromkeys(("x", "y", "v", "scratch"), "pointer"),
            **dict.fromkeys(_INDEX_FIELDS, "index"),
            **MULTIPLY_FIELDS,
            **epilogue_fields(self.epilogue),
            **profile_fields(self.profile),
        }

    def _depth_at(self, args: Arguments, f: Value) -> Value:
        """The channel blocks whose transformed weights are not all zero at frequency f.

        At infinity a transformed kernel is its last tap, which some phases of a stride lack; those
        stand last there (see `winograd_input`).
        """
        if not self.shape.strided:
            return args["channel_blocks"]
        asm, (t_h, t_w) = args.asm, self.shape.t
        last_row = asm.compare(">=", f, (t_h - 1) * t_w)
        last_column = (f % t_w).equals(t_w - 1)
        at_row_end = asm.select(last_column, args["blocks_corner"], args["blocks_row"])
        elsewhere = asm.select(last_column, args["blocks_column"], args["channel_blocks"])
        return asm.select(last_row, at_row_end, elsewhere)

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        fields = self.fields
        if self.part in ("all", "input"):
            InputTransform(asm, self.shape, fields).emit()
        if self.part in ("all", "output"):
            frequencies, depth_at = self.shape.frequencies, self._depth_at
            emit_multiply_function(asm, fields, self.tile, frequencies, depth_at)
            OutputTransform(asm, self.shape, fields, self.tile.nv, self.epilogue).emit()
        with emit_stage(asm, fields) as (args, first, last, worker):
            _Tasks(asm, args, self).emit(first, last, worker)


class _Tasks:
    """The loop over tasks, and what a task is in each part."""

    def __init__(self, asm: Assembler, args: Arguments, kernel: Winograd) -> None:
        self.asm = asm
        self.args = args
        self.part = kernel.part
        self.column_phases = kernel.shape.column_phases
        self.timer = PhaseTimer(args, kernel.profile)
        self.blocks = asm.ceil_div(args["tiles"], args["block_tiles"])
        self.chunks = asm.ceil_div(args["panels"], args["chunk_panels"])

    def emit(self, first: Value, last: Value, worker: Value) -> None:
        """Run tasks first .. last."""
        asm, args = self.asm, self.args
        scratch = args["scratch"] + worker * args["scratch_stride"]
        with asm.loop(last, start=first) as task:
            if self.part == "all":
                self._emit_input(task, asm.index(0), self._input_units(), scratch)
                with asm.loop(self.chunks) as chunk:
                    self._emit_output(task, chunk, scratch, scratch + args["v_block"])
            elif self.part == "input":
                units = self._input_units()
                block, c = task // units, task % units
                self._emit_input(block, c, c + 1, args["v"] + block * args["v_block"])
            else:
                block, chunk = task // self.chunks, task % self.chunks
                v = args["v"] + block * args["v_block"]
                self._emit_output(block, chunk, v, scratch)

    def _input_units(self) -> Value:
        """Channel blocks that are loaded, each for all the column phases it serves."""
        return self.args["channel_blocks"] // self.column_phases

    def _place(self, block: Value) -> tuple[Value, Value, Value]:
        """Group, first tile and number of tiles of a block."""
        block_tiles = self.args["block_tiles"]
        start = block % self.blocks * block_tiles
        count = self.asm.minimum(block_tiles, self.args["tiles"] - start)
        return block // self.blocks, start, count

    def _emit_input(self, block: Value, first: Value, last: Value, v: Value) -> None:
        """Transform what is loaded for units first .. last of one block of tiles into ``v``."""
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
            asm.call("multiply", args.block, v, m, group, count, first, last)
        with self.timer.phase("output transform"):
            asm.call("transform_output", args.block, m, y, group, start, count, first, last)
