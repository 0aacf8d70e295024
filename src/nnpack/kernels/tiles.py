"""Tiles of transform-domain convolution: their numbering, and the products between the transforms.

Tiles of all images stand in one row, so that the rows of the matrix products are batch x tiles.
V, U and M are the transformed inputs, weights and products:

    M[f][tile, k] = sum_c V[f][tile, c] * U[f][c, k]   for every frequency f,

V and M ``[f][channel block][tile][lanes]`` a block of tiles at a time, U
``[group][f][panel][c][panel width]``. What a transform stores is what the microkernel broadcasts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from nnpack.codegen.compiler import ENTRY
from nnpack.frozen import dataclass
from nnpack.kernels.gemm import GemmTile, emit_blocked_product
from nnpack.kernels.stage import Arguments
from nnpack.kernels.storage import emit_inverse_scale
from nnpack.kernels.tile_stage import PRODUCT_PARAMETERS, tile_fields

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Value
    from nnpack.kernels.epilogue import Epilogue, Residuals
    from nnpack.problem import WeightStorage

# Channels summed in one chain of additions; longer sums are sums of such chains, which keeps the
# rounding error from growing with the number of channels.
CHAIN_CHANNELS = 512


@dataclass(frozen=True)
class TileProduct:
    """The routine ``multiply``: M for panels first .. last of one block of ``count`` tiles.

    Rows up to the next multiple of mr are computed. M is divided by the scale of ``storage``, if
    it has one. ``strided``: at the last row and column of planes fewer channels count.
    """

    tile: GemmTile
    storage: WeightStorage = "float32"
    strided: bool = False

    def emit(self, asm: Assembler) -> None:
        """Emit the routine."""
        tile = self.tile
        with asm.function(ENTRY, exported=True, **PRODUCT_PARAMETERS) as words:
            block, v, m, group, count, first, last = words
            args = Arguments(asm, block, tile_fields(self.storage))
            row = args["block_tiles"] * asm.lanes
            panel_floats = args["channel_blocks"] * (asm.lanes * tile.nv * asm.lanes)
            panels, planes = args.load("panels", "planes")
            u = args["weight"] + group * panels * panel_floats * planes
            with asm.loop(planes) as f:
                v_f, m_f = v + f * args["v_f"], m + f * args["m_f"]
                depth = _depth_at(args, f) if self.strided else args["steps"]
                with asm.loop(last, start=first) as panel:
                    u_p = u + (f * panels + panel) * panel_floats
                    m_p = m_f + (panel - first) * tile.nv * row
                    with asm.loop(count, step=tile.mr) as start:
                        shift = start * asm.lanes
                        _emit_chains(args, tile, row, depth, (v_f + shift, u_p, m_p + shift))


def _depth_at(args: Arguments, f: Value) -> Value:
    """The channels whose transformed weights are not all zero at frequency f.

    At infinity a transformed kernel is its last tap, which some phases of a stride lack; those
    stand last there (see `winograd_input`).
    """
    asm, (planes, columns) = args.asm, args.load("planes", "plane_columns")
    last_row = asm.compare(">=", f, planes - columns)
    last_column = (f % columns).equals(columns - 1)
    at_row_end = asm.select(last_column, args["steps_corner"], args["steps_row"])
    elsewhere = asm.select(last_column, args["steps_column"], args["steps"])
    return asm.select(last_row, at_row_end, elsewhere)


def _emit_chains(
    args: Arguments, tile: GemmTile, row: Value, depth: Value, begin: tuple[Value, Value, Value]
) -> None:
    """One register tile of M, in chains of at most `CHAIN_CHANNELS`.

    ``begin``: where it begins in V, U and M, whose blocks of channels are ``row`` apart.
    """
    asm, lanes, (v, u, m) = args.asm, args.asm.lanes, begin
    inverse = emit_inverse_scale(asm, args) if "weight_scale" in args else None
    with asm.loop(depth, step=CHAIN_CHANNELS) as start:
        length = asm.minimum(depth - start, CHAIN_CHANNELS)
        a, b = v + start // lanes * row, u + start * (tile.nv * lanes)
        acc = emit_blocked_product(asm, tile, length, a, row, b)
        if inverse is not None:
            acc = {key: value * inverse for key, value in acc.items()}
        places = {(i, j): (m + j * row, i * lanes) for i, j in acc}
        with asm.when(start.equals(0)):
            for key, (pointer, offset) in places.items():
                asm.store(acc[key], pointer, offset)
        with asm.when(asm.compare(">", start, 0)):
            for key, (pointer, offset) in places.items():
                asm.store(asm.load(pointer, offset) + acc[key], pointer, offset)


class TileWalk:
    """Walks tiles in order, keeping (image, tile row, tile column) without divisions."""

    def __init__(self, asm: Assembler, args: Arguments, start: Value) -> None:
        tiles_h, tiles_w = args.load("tiles_h", "tiles_w")
        self.asm = asm
        self.args = args
        self.state = {
            "n": start // (tiles_h * tiles_w),
            "row": start // tiles_w % tiles_h,
            "column": start % tiles_w,
        }

    def advance(self) -> None:
        """Go to the next tile."""
        asm, state = self.asm, self.state
        column = state["column"] + 1
        wraps = column.equals(self.args["tiles_w"])
        row = asm.select(wraps, state["row"] + 1, state["row"])
        ends = row.equals(self.args["tiles_h"])
        state["column"] = asm.select(wraps, 0, column)
        state["row"] = asm.select(ends, 0, row)
        state["n"] = asm.select(ends, state["n"] + 1, state["n"])


def tile_residuals(
    epilogue: Epilogue, args: Arguments, walk: TileWalk, rows: int, columns: int
) -> Callable[[Value, Value, Value], Residuals] | None:
    """Residuals of the walk's tile, of ``rows`` x ``columns`` pooled outputs; None without a pool.

    Called with a pooled row of the tile, the first channel of the lanes and the number of them.
    """
    if not (epilogue.kind.pool and epilogue.kind.residual):
        return None
    asm, step = args.asm, epilogue.step
    top, left = walk.state["row"] * (rows * step), walk.state["column"] * (columns * step)
    width, row_stride = args.load("out_width", "residual_h")

    def of_row(i: Value, channel: Value, count: Value) -> Residuals:
        def load(half: int, j: int) -> Value:
            column = left + j
            inside = asm.select(asm.compare("<", column, width), count, 0)
            place = (top + i * step + half) * row_stride + column
            return epilogue.residual_pixels(walk.state["n"], channel, place, inside)

        return load

    return of_row
