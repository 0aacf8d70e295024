"""Greatest and sum of a window, as they are emitted: what pools are made of.

A maximum is NaN where any of its numbers is. The processor's own maximum drops a NaN on one of
its two sides, so a second chain remembers in a mask whether all were numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from nnpack.pool_problem import PoolKind

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Value


class Reduction:
    """Emits the reduction ``kind`` of vectors, or of floats."""

    def __init__(self, asm: Assembler, kind: PoolKind) -> None:
        self.asm = asm
        self.kind = kind
        self.neutral = -math.inf if kind == "max" else 0.0

    def __call__(self, values: Sequence[Value]) -> Value:
        """The reduction of ``values``, in an order that depends on their number alone."""
        if self.kind == "average":
            return _tree(values, self.asm.add)
        if len(values) == 1:
            return values[0]
        greatest = _tree(values, self.asm.maximum)
        pairs = [(values[n], values[min(n + 1, len(values) - 1)]) for n in range(0, len(values), 2)]
        numbers = _tree([self.asm.compare("ord", a, b) for a, b in pairs], lambda a, b: a & b)
        return self.asm.select(numbers, greatest, math.nan)

    def lanes(self, vector: Value) -> Value:
        """The reduction of all lanes, in every lane."""
        step = self.asm.lanes // 2
        while step:
            other = self.asm.shuffle(vector, None, [n ^ step for n in range(self.asm.lanes)])
            vector, step = self([vector, other]), step // 2
        return vector

    def across(self, vectors: Sequence[Value]) -> Value:
        """What `lanes` makes of vector n in lane n: as many ``vectors`` as there are lanes.

        Two vectors are reduced to halves side by side, then pairs of those to quarters, ...:
        lane by lane what `lanes` does, but once for all of them.
        """
        left, group = list(vectors), self.asm.lanes
        while group > 1:
            half, apart = group // 2, len(left) // 2
            starts = range(0, self.asm.lanes, group)
            low = [
                n + k
                for n in starts
                for side in (0, self.asm.lanes)
                for k in range(side, side + half)
            ]
            high = [n + half for n in low]
            pairs = zip(left[:apart], left[apart:], strict=True)
            left = [
                self([self.asm.shuffle(a, b, low), self.asm.shuffle(a, b, high)]) for a, b in pairs
            ]
            group = half
        return left[0]


def _tree(values: Sequence[Value], combine: Callable[[Value, Value], Value]) -> Value:
    """Neighbours combined, then what they gave, until one is left."""
    left = list(values)
    while len(left) > 1:
        pairs = [combine(*left[n : n + 2]) for n in range(0, len(left) - 1, 2)]
        left = pairs + left[2 * len(pairs) :]
    return left[0]
