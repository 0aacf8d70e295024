"""The shape of convolution by F(m, r) down the columns; see `kernels.cook_toom`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnpack.frozen import dataclass

if TYPE_CHECKING:
    from nnpack.maths.cook_toom import CookToom


@dataclass(frozen=True)
class Columns:
    """F(m, r) down the columns of a kernel: r is the most taps a phase of the stride has."""

    m: int
    kernel: tuple[int, int]
    stride: tuple[int, int]

    @property
    def r(self) -> int:
        """Taps of the first phase of the rows, which has most."""
        return -(-self.kernel[0] // self.stride[0])

    @property
    def t(self) -> int:
        """Products of a tap column and phase."""
        return self.m + self.r - 1

    @property
    def phases(self) -> list[tuple[int, int]]:
        """The phases (p, q) of rows and columns that any tap reads, in order."""
        down, across = (min(k, s) for k, s in zip(self.kernel, self.stride, strict=True))
        return [(p, q) for p in range(down) for q in range(across)]

    def frequencies(self, p: int) -> range:
        """The products of phase p of the rows: without the last where it has a tap less."""
        complete = len(range(p, self.kernel[0], self.stride[0])) == self.r
        return range(self.t if complete else self.t - 1)

    @property
    def steps(self) -> list[tuple[int, int, int]]:
        """Phase of the rows, number of the phase, column within it: of each step of a channel."""
        return [
            (p, n, s // self.stride[1])
            for n, (p, q) in enumerate(self.phases)
            for s in range(q, self.kernel[1], self.stride[1])
        ]

    @property
    def products(self) -> int:
        """Multiplications of a channel for m outputs of a column."""
        return sum(len(self.frequencies(p)) for p, _, _ in self.steps)

    @property
    def factors(self) -> CookToom:
        """The matrices."""
        from nnpack.maths.cook_toom import cook_toom

        return cook_toom(self.m, self.r)
