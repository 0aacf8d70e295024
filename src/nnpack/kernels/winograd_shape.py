"""The shape of a Winograd tile: F(mh x mw, rh x rw), and what of an image it reads and writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnpack.frozen import dataclass

if TYPE_CHECKING:
    from nnpack.maths.cook_toom import CookToom

# How far ahead in a row the lines of later tiles are asked for. A tile touches a hundred rows of
# different channels, more streams than hardware follows; on images beyond the cache this halves
# the time of both transforms.
PREFETCH_COLUMNS = 32

Inputs = tuple[int, int]
"""The first input of an axis of a tile that is not padding, and how many there are."""


@dataclass(frozen=True)
class TileShape:
    """F(mh x mw, rh x rw): outputs and taps of a tile in each direction.

    ``column_step``: columns of the image from one column of a tile to the next, None when only
    known at run time. ``strided``: steps are strides, of which all phases count as channels;
    ``separated``: each phase has channel blocks of its own, so that one load serves all column
    phases. ``dilated``: steps are dilations, each phase of which is an image of its own.
    ``scattered``: the columns of the output are not one behind the other.
    ``bounded``: of the axes whose tiles see fewer inputs than there are taps, which.
    ``neighbours``: if not 0, a tile is a whole phase of a dilated image, and so many phases side by
    side are loaded together (`winograd_phases`).
    """

    m: tuple[int, int]
    r: tuple[int, int]
    column_step: int | None = 1
    strided: bool = False
    separated: bool = False
    dilated: bool = False
    scattered: bool = False
    bounded: tuple[Inputs | None, Inputs | None] = (None, None)
    neighbours: int = 0

    @property
    def rows(self) -> CookToom:
        """The transforms along h: exact, and only wanted where code is emitted."""
        return self._transforms(0)

    @property
    def columns(self) -> CookToom:
        """The transforms along w, likewise."""
        return self._transforms(1)

    def _transforms(self, axis: int) -> CookToom:
        from nnpack.maths.cook_toom import bounded_cook_toom, cook_toom

        m, r, bounded = self.m[axis], self.r[axis], self.bounded[axis]
        return cook_toom(m, r) if bounded is None else bounded_cook_toom(m, r, *bounded)

    @property
    def gradient_rows(self) -> CookToom:
        """The transforms of the weight gradient along h: r taps from tiles of m gradients.

        Their input side is that of `rows`, for both have the same points.
        """
        from nnpack.maths.cook_toom import cook_toom

        return cook_toom(self.r[0], self.m[0])

    @property
    def gradient_columns(self) -> CookToom:
        """Those along w, likewise."""
        from nnpack.maths.cook_toom import cook_toom

        return cook_toom(self.r[1], self.m[1])

    @property
    def t(self) -> tuple[int, int]:
        """Products of a tile in each direction."""
        r_h, r_w = self.factors
        return self.m[0] + r_h - 1, self.m[1] + r_w - 1

    @property
    def factors(self) -> tuple[int, int]:
        """The r of the F(m, r) that a tile is in each direction: taps, or inputs if fewer."""
        h, w = self.bounded
        return self.r[0] if h is None else h[1], self.r[1] if w is None else w[1]

    @property
    def inputs(self) -> tuple[int, int]:
        """Inputs of a tile in each direction."""
        (t_h, t_w), (h, w) = self.t, self.bounded
        return t_h if h is None else h[1], t_w if w is None else w[1]

    @property
    def column_phases(self) -> int:
        """Column phases that one load serves."""
        return self.column_step or 1 if self.separated else 1

    @property
    def frequencies(self) -> int:
        """Products a tile, channel and output channel."""
        return self.t[0] * self.t[1]
