"""How tiles are cut into blocks, and panels into chunks: for the caches, and for threads.

Transforms and products of a block have costs; a cut is good when the last thread is done soon.
"""

from __future__ import annotations

from collections.abc import Iterator

from nnpack.algorithms.base import ceil_div
from nnpack.algorithms.cost import cache_bandwidth
from nnpack.codegen.target import Target
from nnpack.frozen import dataclass

# Transforms take so many cycles a vector and direction, with all they load and store.
_TRANSFORM_CYCLES = 12.0
# Threads begin at different times: a share of a task is lost. A stage begins and ends in cycles.
_UNEVEN = 0.05
_STAGE_CYCLES = 2000.0
# The workspace takes no more than a quarter of the last-level cache a thread, of which a little is
# left to what planes have between them.
WORKSPACE_SHARE = 0.98 / 4
# Blocks for every thread from which on their number does not matter, and those looked at.
_PLENTY = 8


@dataclass(frozen=True)
class Cut:
    """Tiles a block, panels a chunk, and whether a task is a whole block."""

    block_tiles: int
    chunk_panels: int
    fused: bool


@dataclass(frozen=True)
class TileCosts:
    """What there is to do for one group, in bytes and cycles.

    ``v_bytes``, ``m_bytes``: transformed inputs of a tile, and products of a tile and a panel.
    ``panel_bytes``: transformed weights of a panel, which come at ``weight_bandwidth``.
    ``product_cycles``: a row of products with a panel; ``fold`` rows a tile, in steps of ``mr``.
    """

    target: Target
    tiles: int
    step: int
    fold: int
    mr: int
    units: int
    panels: int
    v_bytes: int
    m_bytes: int
    panel_bytes: int
    weight_bandwidth: float
    product_cycles: float

    def choose_chunk(self, block: int) -> int:
        """Panels a chunk: as many as have products that stay in cache until they are transformed.

        All of them where V does not stay there for the next chunk, and products wait for memory.
        """
        l2, v, m = self.target.caches.l2, block * self.v_bytes, block * self.m_bytes
        waits = v > l2 * 3 // 4 and self._computed(block, 1) < self._read(block, 1, 1)
        if waits and m * self.panels <= self.target.caches.l3 // 16:
            return self.panels
        chunks = ceil_div(self.panels, max(1, max(l2 - v, l2 // 2) // m))
        return ceil_div(self.panels, chunks)

    def cut_for(self, block: int, groups: int, threads: int) -> Cut:
        """The cut with which ``threads`` are done soonest; blocks of ``block`` tiles at most.

        V of all blocks is shared between stages only where the workspace stays in its bounds.
        """
        if threads == 1 or groups * ceil_div(self.tiles, block) >= _PLENTY * threads:
            return Cut(block, self.choose_chunk(block), fused=True)
        cuts = list(self._cuts(block, groups, threads))
        return min(cuts, key=lambda cut: self._cycles(cut, groups, threads))

    def _cuts(self, block: int, groups: int, threads: int) -> Iterator[Cut]:
        bound = WORKSPACE_SHARE * threads * self.target.caches.l3
        blocks = ceil_div(self.tiles, block)
        for size in self._sizes(block, max(blocks, _PLENTY * threads)):
            chunk = self.choose_chunk(size)
            yield Cut(size, chunk, fused=True)
            shared = groups * ceil_div(self.tiles, size) * size * self.v_bytes
            least = ceil_div(self.panels, chunk)
            parts = range(least, max(least, min(self.panels, 4 * threads)) + 1)
            for narrow in sorted({ceil_div(self.panels, n) for n in parts}, reverse=True):
                if shared + threads * narrow * size * self.m_bytes <= bound:
                    yield Cut(size, narrow, fused=False)

    def _sizes(self, block: int, most: int) -> list[int]:
        """Tiles a block, whole steps of them, from ``block`` down."""
        steps = ceil_div(self.tiles, self.step)
        first = ceil_div(steps, max(1, block // self.step))
        counts = range(first, min(steps, most) + 1)
        return [block, *sorted({self.step * ceil_div(steps, n) for n in counts} - {block})[::-1]]

    def _cycles(self, cut: Cut, groups: int, threads: int) -> float:
        """Until the last thread is done."""
        count = groups * ceil_div(self.tiles, cut.block_tiles)
        v_bytes = cut.block_tiles * self.v_bytes
        inputs = v_bytes / (4 * self.target.lanes) * _TRANSFORM_CYCLES
        panels = self.panels if cut.fused else cut.chunk_panels
        products = self._multiply(cut.block_tiles, cut.chunk_panels, panels)
        vectors = cut.block_tiles * self.m_bytes * panels / (4 * self.target.lanes)
        outputs = products + vectors * _TRANSFORM_CYCLES
        if cut.fused:
            return (ceil_div(count, threads) + _UNEVEN) * (inputs + outputs) + _STAGE_CYCLES
        tasks = count * ceil_div(self.panels, cut.chunk_panels)
        # V, which all threads share, goes through the last-level cache.
        shared = v_bytes / self._per_cycle(cache_bandwidth(self.target))
        units = ceil_div(count * self.units, threads)
        first = (units + _UNEVEN) * (inputs + shared) / self.units
        second = (ceil_div(tasks, threads) + _UNEVEN) * (outputs + shared)
        return first + second + 2 * _STAGE_CYCLES

    def _multiply(self, block: int, chunk: int, panels: int) -> float:
        """Cycles of multiplying a block by ``panels``, in chunks, while they are read."""
        computed, read = self._computed(block, panels), self._read(block, chunk, panels)
        return max(computed, read) + 0.2 * min(computed, read)

    def _computed(self, block: int, panels: int) -> float:
        rows = self.mr * ceil_div(block * self.fold, self.mr)
        return rows * panels * self.product_cycles

    def _read(self, block: int, chunk: int, panels: int) -> float:
        """Cycles of reading the weights, and V for each chunk unless it stays in cache."""
        weights = panels * self.panel_bytes / self._per_cycle(self.weight_bandwidth)
        v = block * self.v_bytes
        if v + chunk * block * self.m_bytes <= self.target.caches.l2:
            return weights
        return weights + ceil_div(panels, chunk) * v / self._per_cycle(cache_bandwidth(self.target))

    def _per_cycle(self, bandwidth: float) -> float:
        return bandwidth / self.target.rates.clock
