"""Loads of strided rows for several adjacent taps at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Mask, Value


def split_order(lanes: int) -> list[int]:
    """The order of pixels that parting two vectors within quarters of registers leaves them in.

    Lanes 0 to 3: pixels 0 and 1 of the first half, 0 and 1 of the second; and so on.
    """
    half = lanes // 2
    pairs = [(first, first + half) for first in range(0, half, 2)]
    return [pixel for a, b in pairs for pixel in (a, a + 1, b, b + 1)]


class TapLoad:
    """Loads ``taps`` vectors: lane l of vector i is the float at ``pointer + l * stride + i``.

    Floats at offsets outside ``bounds`` are zero and not read; nor is anything beyond the last
    lane of the last vector. At most ``stride`` taps. ``order``, where two taps have stride 2:
    pixels l of each vector in that order.
    """

    def __init__(
        self,
        asm: Assembler,
        stride: int,
        taps: int,
        bounds: tuple[Value, Value] | None = None,
        order: Sequence[int] | None = None,
    ) -> None:
        self.asm = asm
        self.stride = stride
        self.taps = taps
        lanes = asm.lanes
        end = (lanes - 1) * stride + taps
        self._offsets = [min(n * lanes, end - lanes) for n in range(stride)]
        self._order = range(lanes) if order is None else order
        self._masks: list[Mask] = [None] * stride
        if bounds is not None:
            low, high = bounds
            self._masks = [asm.lanes_between(low - n, high - n) for n in self._offsets]

    def __call__(self, pointer: Value) -> list[Value]:
        """Load."""
        return self.picked(self.parts(pointer))

    def parts(self, pointer: Value) -> list[Value]:
        """The vectors side by side that hold all taps, for `picked`."""
        return [
            self.asm.load(pointer, offset, mask=mask)
            for offset, mask in zip(self._offsets, self._masks, strict=True)
        ]

    def picked(self, parts: list[Value]) -> list[Value]:
        """The vector of each tap."""
        if self.stride == 1:
            return parts
        return [self._pick(parts, tap) for tap in range(self.taps)]

    def _pick(self, parts: Sequence[Value], tap: int) -> Value:
        """Every ``stride``-th float from ``tap`` on, each from the first part that has it."""
        lanes = range(self.asm.lanes)
        count = len(lanes)
        if self.stride == 2 and self.taps == 2:
            order = [2 * pixel + tap for pixel in self._order]
            return self.asm.shuffle(parts[0], parts[1], order)
        result = parts[0]
        done = 0
        for part, offset in zip(parts, self._offsets, strict=True):
            places = [lane * self.stride + tap - offset for lane in lanes]
            fresh = [lane for lane in lanes if lane >= done and places[lane] < count]
            if not fresh:
                continue
            kept = [
                lane if lane < done else count + max(0, min(places[lane], count - 1))
                for lane in lanes
            ]
            result = self.asm.shuffle(result, part, kept)
            done = fresh[-1] + 1
        return result
