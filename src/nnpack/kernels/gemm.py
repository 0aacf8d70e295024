"""The matrix-product microkernel (Goto & van de Geijn, 2008), for every algorithm.

One tile of C is ``mr`` rows by ``nv`` vectors, all of it in registers. At each step k of the inner
product, ``mr`` scalars of A are broadcast against ``nv`` vectors of B. What differs between
algorithms is only where the scalars and the vectors are found: that is a `Panel`, or `Indirect`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnpack.codegen.target import Target
from nnpack.errors import RegisterPressureError
from nnpack.frozen import dataclass

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nnpack.codegen.assembler import Assembler, Index, Mask, Value

# How far ahead of its use a panel is asked for, into the first-level cache: hardware prefetchers
# stop at the end of each page, and 2 KiB is some hundreds of cycles of multiplication (7 % on
# weights that come from L3).
PREFETCH_BYTES = 2048
# The same into the second-level cache: as long as memory takes to answer. With weights in memory
# 512 channels @14 take 2.65 ms instead of 2.90 (51 MB), @7 1.45 instead of 1.81 (17 MB); 6 to
# 16 KiB do alike (Zen 4).
FAR_PREFETCH_BYTES = 8192
# Tiles of so few rows read a panel as fast as it comes, which hardware prefetchers keep up best
# alone: from the last-level cache at 68 GB/s, 55 with prefetches between; from memory 192->384 @7
# take 0.54 ms, not 0.70 (11 MB).
STREAMED_ROWS = 4
_CACHE_LINE = 64
# Steps of a blocked product that stand one behind the other; divides the lanes of every target.
_UNROLL = 4

Accumulators = dict[tuple[int, int], "Value"]


@dataclass(frozen=True)
class GemmTile:
    """``mr`` broadcast rows times ``nv`` vectors of accumulators."""

    mr: int
    nv: int

    def registers(self, target: Target) -> int:
        """Vector registers in use: accumulators, one step of B, one broadcast if it needs one."""
        return self.mr * self.nv + self.nv + (0 if target.broadcast_operand else 1)

    def check(self, target: Target) -> None:
        """Raise RegisterPressureError when ``target`` cannot hold the tile in registers."""
        if self.registers(target) > target.registers:
            raise RegisterPressureError(
                f"a {self.mr}x{self.nv} tile needs {self.registers(target)} vector registers, "
                f"{target.name} has {target.registers}"
            )


@dataclass(frozen=True)
class Panel:
    """An operand whose step k stands at ``pointer + k * step``.

    With ``second_row`` it is half as many vectors there, and as many that far behind.
    """

    pointer: Value
    step: Index
    second_row: Index | None = None


@dataclass(frozen=True)
class Indirect:
    """A vector operand whose step k stands at ``pointer + table[k]``; `Panel` says the rest."""

    pointer: Value
    table: Value
    second_row: Value | None = None


def emit_product(
    asm: Assembler,
    tile: GemmTile,
    depth: Index,
    a: Panel,
    b: Panel | Indirect,
    masks: tuple[Mask, ...] | None = None,
    ahead: Sequence[Panel] = (),
    start: Accumulators | None = None,
) -> Accumulators:
    """``acc[i, j] = sum_k A[k, i] * B[k, j]`` over ``depth`` steps, k ascending.

    ``A[k, i]`` is the float at ``a(k) + i``; ``B[k, j]`` the vector at ``b(k) + j * lanes``, of
    which only the lanes in ``masks[j]`` are read when masks are given. Step k asks for the cache
    line at k of every panel ``ahead``, for whoever reads it next. The sums go on from ``start``, or
    from zero.
    """
    tile.check(asm.target)
    zero = asm.zeros()
    state: dict[object, Value] = {(i, j): zero for i in range(tile.mr) for j in range(tile.nv)}
    for place, value in (start or {}).items():
        state[place] = value
    state["a"] = a.pointer
    if isinstance(b, Panel):
        state["b"] = b.pointer
    state |= {("ahead", n): panel.pointer for n, panel in enumerate(ahead)}
    with asm.loop(depth, carry=state) as k:
        for n, panel in enumerate(ahead):
            asm.prefetch(state["ahead", n], level=2)
            state["ahead", n] = state["ahead", n] + panel.step
        if isinstance(b, Panel):
            b_k = state["b"]
            state["b"] = b_k + b.step
        else:
            b_k = b.pointer + asm.load_index(b.table, k)
        a_k = state["a"]
        emit_rank_one(asm, tile, state, a_k, 1, b_k, masks, second_row=b.second_row)
        state["a"] = a_k + a.step
    return _accumulators(tile, state)


def emit_rank_one(
    asm: Assembler,
    tile: GemmTile,
    state: dict[object, Value],
    a: Value,
    row_step: int,
    b: Value,
    masks: tuple[Mask, ...] | None = None,
    first: int = 0,
    second_row: Index | None = None,
) -> None:
    """One step: ``acc[first + i, j] += a[i * row_step] * b[j]``.

    The second half of the vectors of b may stand ``second_row`` behind the first.
    """
    lanes = asm.lanes
    places = [(b, j * lanes) for j in range(tile.nv)]
    if second_row is not None:
        places = [(row, j * lanes) for row in (b, b + second_row) for j in range(tile.nv // 2)]
    vectors = [
        asm.load(row, offset, mask=masks[j] if masks is not None else None)
        for j, (row, offset) in enumerate(places)
    ]
    for i in range(tile.mr):
        a_i = asm.broadcast(a, i * row_step)
        for j in range(tile.nv):
            state[first + i, j] = asm.fma(a_i, vectors[j], state[first + i, j])


def emit_gathered_rank_one(
    asm: Assembler, tile: GemmTile, state: dict[object, Value], a: Value, table: Value, b: Value
) -> None:
    """One step whose scalars stand anywhere: ``acc[i, j] += a[table[i]] * b[j]``."""
    vectors = [asm.load(b, j * asm.lanes) for j in range(tile.nv)]
    for i in range(tile.mr):
        a_i = asm.broadcast(a + asm.load_index(table, i))
        for j in range(tile.nv):
            state[i, j] = asm.fma(a_i, vectors[j], state[i, j])


def emit_blocked_product(
    asm: Assembler,
    tile: GemmTile,
    depth: Value,
    a: Value,
    block_step: Index,
    b: Value,
    *,
    width: int | None = None,
    chains: int = 1,
) -> Accumulators:
    """``acc[i, j] = sum_k A[k, i] * B[k, j]``, ``depth`` steps, in blocks of as many as lanes.

    A holds its steps in vectors: row i of block n is the vector at ``a + n * block_step +
    i * lanes``, its lanes the steps. B is a dense panel of floats or halves: step k at
    ``b + k * width``, by default ``nv * lanes``. ``chains``, 1, 2 or 4: step k of whole blocks goes
    to the sum ``k % chains``, so that tiles of a few accumulators do not wait for each other.
    B is asked for ahead but by tiles of few rows.

    One loop over all steps was no faster on weights in cache, and took 2.8 ms where these take 2.3
    on weights from memory (512 channels @14, Zen 4).
    """
    tile.check(asm.target)
    lanes, width = asm.lanes, width or tile.nv * asm.lanes
    sums = range(chains * tile.mr)
    state: dict[object, Value] = {(i, j): asm.zeros() for i in sums for j in range(tile.nv)}
    state |= {"a": a, "b": b}

    def step(a_k: Value, b_k: Value, number: int) -> None:
        """Step ``number`` of those from a_k and b_k on."""
        vectors = b_k + number * width
        if tile.mr > STREAMED_ROWS:
            _emit_prefetch(asm, vectors, number * width // lanes, tile.nv)
        first = number % chains * tile.mr
        emit_rank_one(asm, tile, state, a_k + number, lanes, vectors, first=first)

    with asm.loop(depth // lanes, carry=state):
        a_n = state["a"]
        with asm.loop(lanes, step=_UNROLL, carry=state) as lane:
            a_k, b_k = a_n + lane, state["b"]
            for number in range(_UNROLL):
                step(a_k, b_k, number)
            state["b"] = b_k + _UNROLL * width
        state["a"] = a_n + block_step
    with asm.loop(depth % lanes, carry=state):
        step(state["a"], state["b"], 0)
        state["a"], state["b"] = state["a"] + 1, state["b"] + width
    while chains > 1:
        chains //= 2
        for i in range(chains * tile.mr):
            for j in range(tile.nv):
                state[i, j] = state[i, j] + state[chains * tile.mr + i, j]
    return _accumulators(tile, state)


def _emit_prefetch(asm: Assembler, vectors: Value, place: int, count: int) -> None:
    """Ask ahead for ``count`` vectors, the first is number ``place`` of the panel; each line once.

    Into the nearest cache, and from further ahead into the next.
    """
    element = asm.element_bytes(vectors)
    for j in range(count):
        if (place + j) * asm.lanes * element % _CACHE_LINE == 0:
            asm.prefetch(vectors, j * asm.lanes + FAR_PREFETCH_BYTES // element, level=2)
            asm.prefetch(vectors, j * asm.lanes + PREFETCH_BYTES // element)


def _accumulators(tile: GemmTile, state: dict[object, Value]) -> Accumulators:
    return {(i, j): state[i, j] for i in range(tile.mr) for j in range(tile.nv)}
