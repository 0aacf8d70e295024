"""Loops over the elements of a row, a vector at a time, and sums over the lanes of a vector."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Index, Mask, Value

Body = Callable[["Value", "Mask", int], None]
"""What is done with the vector at an offset, under a mask, by the n-th of several chains."""


def emit_vectors(
    asm: Assembler,
    count: Index,
    body: Body,
    *,
    carry: MutableMapping[Any, Value] | None = None,
    unroll: int = 1,
    lanes: int | None = None,
) -> None:
    """Emit ``body`` for all vectors of ``count`` floats: whole ones first, at last a masked one.

    The n-th of ``unroll`` vectors in a row calls it with n, so that each may have its own sums.
    Vectors and masks are of ``lanes`` floats, a register if not given.
    """
    lanes = lanes or asm.lanes
    several = unroll * lanes
    unrolled = asm.index(count) // several * several if unroll > 1 else asm.index(0)
    whole = asm.index(count) // lanes * lanes
    if unroll > 1:
        with asm.loop(unrolled, step=several, carry=carry) as offset:
            for n in range(unroll):
                body(offset + n * lanes, None, n)
    with asm.loop(whole, start=unrolled, step=lanes, carry=carry) as offset:
        body(offset, None, 0)
    with asm.loop(count, start=whole, step=lanes, carry=carry) as offset:
        body(offset, asm.lanes_below(asm.index(count) - offset, lanes), 0)


def streaming_lanes(asm: Assembler) -> int:
    """Floats of vectors, of 32 bytes, where hardly anything is done with what is read from memory.

    Large arrays of NumPy begin 16 bytes behind a cache line, so that every vector of 64 bytes lies
    in two, and of 32 bytes every other: sums of two from the last-level cache take 5 % less.
    """
    return min(asm.lanes, 8)


def emit_reduction(
    asm: Assembler, vector: Value, combine: Callable[[Value, Value], Value]
) -> Value:
    """The float that ``combine`` makes of all lanes, by halves."""
    count = asm.lanes
    while count > 1:
        count //= 2
        low = asm.shuffle(vector, None, list(range(count)))
        high = asm.shuffle(vector, None, list(range(count, 2 * count)))
        vector = combine(low, high)
    return asm.extract(vector, 0)


def emit_lane_sum(asm: Assembler, vectors: list[Value]) -> Value:
    """The sum of all lanes of ``vectors``."""
    while len(vectors) > 1:
        vectors = [a + b for a, b in zip(vectors[::2], vectors[1::2], strict=True)]
    return emit_reduction(asm, vectors[0], lambda a, b: a + b)


def emit_lane_maximum(asm: Assembler, vectors: list[Value]) -> Value:
    """The greatest of all lanes of ``vectors``; NaN may be lost."""
    while len(vectors) > 1:
        vectors = [asm.maximum(a, b) for a, b in zip(vectors[::2], vectors[1::2], strict=True)]
    return emit_reduction(asm, vectors[0], asm.maximum)
