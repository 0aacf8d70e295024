"""The choice of a register tile for matrix products, and the cost of the product."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, NamedTuple

from nnpack.algorithms.base import ceil_div
from nnpack.codegen.target import Target
from nnpack.kernels.gemm import GemmTile

if TYPE_CHECKING:
    from nnpack.kernels.convolve import Lanes
    from nnpack.problem import Problem


# Cycles from a multiply-add to the next one of the same sum.
FMA_LATENCY = 4

# Other tiles that tuning looks at, with pixels and with channels in the lanes.
_ALTERNATIVES = 2


class TileChoice(NamedTuple):
    """A tile, what stands in its lanes, and the vector multiply-adds it takes per step of depth."""

    tile: GemmTile
    lanes: Lanes
    steps: float


# Rows of tiles: every small number, then those that divide the usual numbers of tiles, pixels and
# channels.
_ROWS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13, 14, 16, 20, 25, 28)


@functools.cache
def tile_menu(target: Target) -> tuple[GemmTile, ...]:
    """Tiles that fit the registers and keep the multipliers busy.

    At least 10 accumulators hide the latency of the multiply-add (4 to 5 cycles, 1 or 2 a cycle);
    one register stays free, for the compiler needs one now and then. A short menu: what a tile
    more could save on one size of image is not worth a kernel more to compile.
    """
    tiles = []
    for nv in range(1, 5):
        for mr in _ROWS:
            tile = GemmTile(mr, nv)
            if mr * nv >= 10 and tile.registers(target) < target.registers:
                tiles.append(tile)
    return tuple(tiles)


def relative_rate(tile: GemmTile, target: Target) -> float:
    """The share of peak at which a tile runs: loads and broadcasts beside its multiply-adds.

    A step loads ``nv`` vectors and ``mr`` scalars for ``mr * nv`` multiply-adds; two loads a
    cycle (a full 512-bit vector counts as two), two 256-bit multiply-adds a cycle.
    """
    return _relative_rate(tile.mr, tile.nv, max(1, target.lanes // 8))


def step_cycles(tile: GemmTile, target: Target, lanes: int) -> float:
    """Cycles of one step of ``tile`` with vectors of ``lanes``, which may be half of a register."""
    wide, widest = max(1, lanes // 8), max(1, target.lanes // 8)
    rate = target.multiply_adds_per_cycle * (widest / wide) * _relative_rate(tile.mr, tile.nv, wide)
    return tile.mr * tile.nv / rate


def turn_cycles(tile: GemmTile, lanes: int) -> float:
    """Cycles in which a tile with ``lanes`` channels in a vector is turned and stored.

    Fits tiles of 7x1 to 28x1 vectors within a quarter (Zen 4, AVX-512).
    """
    return 30 + tile.nv * ceil_div(tile.mr, lanes) * (20 + 4 * lanes)


def store_cycles(choice: TileChoice, pixels: int, channels: int, target: Target) -> float:
    """Cycles of beginning and storing all tiles of ``pixels`` by ``channels``."""
    tile, turned = choice.tile, choice.lanes == "channels"
    across, along = (pixels, channels) if turned else (channels, pixels)
    tiles = ceil_div(across, tile.mr) * ceil_div(along, tile.nv * target.lanes)
    each = turn_cycles(tile, target.lanes) if turned else 30 + 1.0 * tile.mr * tile.nv
    return tiles * each


@functools.cache
def _relative_rate(mr: int, nv: int, wide: int) -> float:
    # Kept, for a plan asks for it 500 times.
    loads = (nv * wide + mr) / 2
    arithmetic = mr * nv * wide / 2
    return arithmetic / max(arithmetic, loads + 0.04 * arithmetic, FMA_LATENCY) * 0.96


def _choices(
    tiles: tuple[GemmTile, ...],
    lanes: Lanes,
    pixels: int,
    channels: int,
    target: Target,
    halves: int = 1,
) -> list[TileChoice]:
    """``halves``: 2 where half of a tile's vectors are of a second row of pixels."""
    result = []
    across, along = (channels, pixels) if lanes == "pixels" else (pixels, channels)
    vectors = ceil_div(along // halves, target.lanes)
    for tile in tiles:
        rows = ceil_div(across, tile.mr) * tile.mr
        # The last strip, or panel, takes a tile of fewer vectors.
        whole, rest = divmod(vectors, tile.nv // halves)
        steps = whole * tile.nv / relative_rate(tile, target)
        if rest:
            steps += rest * halves / relative_rate(GemmTile(tile.mr, rest * halves), target)
        result.append(TileChoice(tile, lanes, rows * steps))
    return result


class Extents(NamedTuple):
    """What a tile is chosen for: pixels and output channels of a product, and whether it pools."""

    pixels: int
    channels: int
    pooled: bool = False


def extents_of(problem: Problem) -> Extents:
    """Of an image and group of ``problem``."""
    pixels = problem.out_height * problem.out_width
    return Extents(pixels, problem.group_out_channels, problem.epilogue.pool is not None)


@functools.lru_cache(maxsize=4096)
def choose_tile(extents: Extents, target: Target) -> TileChoice:
    """The tile that wastes least on ``extents``.

    Turned (channels in the lanes) where that is better by more than what turning back costs. For
    outputs that are pooled it has as many pixels of an upper as of a lower row, in pairs.
    """
    return min(_all_choices(extents, target), key=_preference)


def alternative_tiles(extents: Extents, target: Target) -> list[TileChoice]:
    """What `choose_tile` would choose next: some of each that may stand in the lanes."""
    ranked = sorted(_all_choices(extents, target), key=_preference)
    by_lanes = ([c for c in ranked[1:] if c.lanes == lanes] for lanes in ("pixels", "channels"))
    return [choice for choices in by_lanes for choice in choices[:_ALTERNATIVES]]


def variant_name(name: str, choice: TileChoice) -> str:
    """``pointwise@14x2-channels``: the algorithm ``name`` with the tile of ``choice``."""
    return f"{name}@{choice.tile.mr}x{choice.tile.nv}-{choice.lanes}"


def _all_choices(extents: Extents, target: Target) -> list[TileChoice]:
    pixels, channels, pooled = extents
    menu, halves = tile_menu(target), 2 if pooled else 1
    even = tuple(tile for tile in menu if tile.nv % halves == 0)
    choices = _choices(even, "pixels", pixels, channels, target, halves)
    # What is turned is a quarter of the tile where it is pooled.
    most, step = (4 * target.lanes, 4) if pooled else (target.lanes, 1)
    fitting = tuple(t for t in menu if t.mr <= min(pixels, most) and t.mr % step == 0)
    for choice in _choices(fitting, "channels", pixels, channels, target):
        choices.append(TileChoice(choice.tile, choice.lanes, 1.03 * choice.steps))
    return choices


def _preference(choice: TileChoice) -> tuple[float, int]:
    # Among equals, more accumulators: fewer loads a multiply-add.
    return round(choice.steps, 3), -choice.tile.mr * choice.tile.nv
