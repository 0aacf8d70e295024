"""The bilinear forms of products in the Fourier domain, counted; `fourier` says what they are."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Form(NamedTuple):
    """Complex products by 3 or 4 real ones (``multiplications``), for n x n tiles."""

    n: int
    multiplications: Literal[3, 4]

    @property
    def fold(self) -> int:
        """By how much rows and depth of a plane exceed tiles and channels: 1 or 2."""
        return 1 if self.multiplications == 3 else 2

    @property
    def real_planes(self) -> int:
        """Planes of a real column."""
        return 3 * self.n // 2 - 1 if self.multiplications == 3 else self.n // 2

    @property
    def full_planes(self) -> int:
        """Planes of a complex column."""
        return 3 * self.n if self.multiplications == 3 else self.n

    @property
    def planes(self) -> int:
        """Planes of a tile: ``3/2 n^2 - 2`` or ``n^2 / 2``."""
        return 2 * self.real_planes + (self.n // 2 - 1) * self.full_planes
