"""Sums over outputs as they are stored, channels in the lanes: what their mean and variance are of.

Tiles are taken in groups of the same number everywhere, whatever the blocks that share them out
among threads. Of each group and channel ``sums_mean`` and ``sums_square``, the squared distances
from that mean, are written, and ``sums_count``, how many outputs there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nnpack.kernels.stage import Arguments

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Mask, Value

_SHIFT, _TOTAL, _SQUARE = range(3)


class TileSums:
    """The sums of one group of tiles and vector of channels, in local memory between tiles.

    Everything is relative to the group's first output: of a great mean no digits are lost, and what
    the square of the distance to it costs is at most a digit for ten outputs of the group.
    """

    def __init__(self, asm: Assembler) -> None:
        self.asm = asm
        self._memory = asm.local_floats(3 * asm.lanes)
        self._count = asm.local_words(1)

    def begin(self, first: Value) -> None:
        """Start a group whose first outputs are ``first``."""
        for place, value in ((_SHIFT, first), (_TOTAL, None), (_SQUARE, None)):
            self._store(place, self.asm.zeros() if value is None else value)
        self.asm.store_index(self.asm.index(0), self._count)

    def load(self) -> dict[str, Value]:
        """What a loop over the rows of a tile carries."""
        return {"total": self._load(_TOTAL), "square": self._load(_SQUARE)}

    def add(
        self, sums: dict[str, Value], values: Sequence[Value], columns: Value | None = None
    ) -> None:
        """Add a row of outputs to what is carried, only the first ``columns``."""
        asm, shift = self.asm, self._load(_SHIFT)
        distances = [value - shift for value in values]
        if columns is not None:
            distances = [
                asm.select(asm.compare(">", columns, q), value, asm.zeros())
                for q, value in enumerate(distances)
            ]
        # Rows by themselves: short chains, which round less and wait less.
        total, square = distances[0], distances[0] * distances[0]
        for distance in distances[1:]:
            total = total + distance
            square = asm.fma(distance, distance, square)
        sums["total"], sums["square"] = sums["total"] + total, sums["square"] + square

    def keep(self, sums: dict[str, Value], count: Value) -> None:
        """Keep what a loop over the rows gave, ``count`` outputs of every channel."""
        self._store(_TOTAL, sums["total"])
        self._store(_SQUARE, sums["square"])
        self.asm.store_index(self.asm.load_index(self._count) + count, self._count)

    def write(self, args: Arguments, offset: Value, mask: Mask) -> None:
        """Write the sums of the group at ``offset`` of the three arrays."""
        asm, sums = self.asm, self.load()
        count = asm.splat(asm.to_float(asm.load_index(self._count)))
        distance = asm.divide(sums["total"], count)
        square = sums["square"] - distance * sums["total"]
        asm.store(self._load(_SHIFT) + distance, args["sums_mean"], offset, mask=mask)
        asm.store(square, args["sums_square"], offset, mask=mask)
        asm.store(count, args["sums_count"], offset, mask=mask)

    def _load(self, place: int) -> Value:
        return self.asm.load(self._memory, place * self.asm.lanes)

    def _store(self, place: int, value: Value) -> None:
        self.asm.store(value, self._memory, place * self.asm.lanes)
