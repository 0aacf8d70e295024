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

from nnpack.kernels.gemm import GemmTile, emit_blocked_product
from nnpack.kernels.stage import Arguments, Fields
from nnpack.kernels.storage import emit_inverse_scale

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Value
    from nnpack.kernels.epilogue import Epilogue, Residuals

# Channels summed in one chain of additions; longer sums are sums of such chains, which keeps the
# rounding error from growing with the number of channels.
CHAIN_CHANNELS = 512

MULTIPLY_FIELDS = dict.fromkeys(
    ("channel_blocks", "steps", "panels", "block_tiles", "v_f", "m_f"), "index"
)
"""The words of `emit_multiply_function`, beside those of the weights (`storage.scaled_fields`).

``steps``: the depth of the products, as far as it counts, of ``channel_blocks`` times lanes.
"""


DepthAt = Callable[[Arguments, "Value"], "Value"]


def full_depth(args: Arguments, _: Value) -> Value:
    """All channels, at every frequency."""
    return args["steps"]


def emit_multiply_function(
    asm: Assembler,
    fields: Fields,
    tile: GemmTile,
    frequencies: int,
    depth_at: DepthAt = full_depth,
) -> None:
    """Define ``multiply``: M for panels first .. last of one block of ``count`` tiles.

    ``depth_at(args, f)`` is the number of channels that count at frequency f, the first ones.
    Rows up to the next multiple of mr are computed. Where ``fields`` have a scale of the weights, M
    is divided by it.
    """
    with asm.function(
        "multiply",
        block="pointer",
        v="pointer",
        m="pointer",
        group="index",
        count="index",
        first="index",
        last="index",
    ) as (block, v, m, group, count, first, last):
        args = Arguments(asm, block, fields)
        row = args["block_tiles"] * asm.lanes
        panel_floats = args["channel_blocks"] * (asm.lanes * tile.nv * asm.lanes)
        panels = args["panels"]
        u = args["weight"] + group * panels * panel_floats * frequencies
        with asm.loop(frequencies) as f:
            v_f, m_f = v + f * args["v_f"], m + f * args["m_f"]
            depth = depth_at(args, f)
            with asm.loop(last, start=first) as panel:
                u_p = u + (f * panels + panel) * panel_floats
                m_p = m_f + (panel - first) * tile.nv * row
                with asm.loop(count, step=tile.mr) as start:
                    shift = start * asm.lanes
                    _emit_chains(args, tile, row, depth, (v_f + shift, u_p, m_p + shift))


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
