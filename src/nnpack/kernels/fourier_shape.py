"""The shape of a Fourier tile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnpack.frozen import dataclass
from nnpack.maths.form import Form

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Index, Value
    from nnpack.maths.fourier import Side


@dataclass(frozen=True)
class FourierShape:
    """Tiles of n x n inputs, n = ``form.n``, for r = (r_h, r_w) weights, each at most n.

    ``even``: they step by an even number of outputs, for those are pooled in pairs.
    """

    form: Form
    r: tuple[int, int]
    even: bool = False

    @property
    def n(self) -> int:
        """Inputs of a tile in each direction."""
        return self.form.n

    @property
    def m(self) -> tuple[int, int]:
        """Outputs of a tile in each direction."""
        m_h, m_w = self.n - self.r[0] + 1, self.n - self.r[1] + 1
        return (m_h - m_h % 2, m_w - m_w % 2) if self.even else (m_h, m_w)

    @property
    def input(self) -> Side:
        """The programs of the input."""
        from nnpack.maths.fourier import input_side

        return input_side(self.form)

    @property
    def kernel(self) -> Side:
        """The programs of the weights."""
        from nnpack.maths.fourier import kernel_side

        return kernel_side(self.form, *self.r)

    @property
    def output(self) -> Side:
        """The programs of the output."""
        from nnpack.maths.fourier import output_side

        return output_side(self.form, *self.m)

    @property
    def gradient(self) -> Side:
        """The programs of m x m gradients, which are to x what kernels are in their gradient."""
        from nnpack.maths.fourier import kernel_side

        return kernel_side(self.form, *self.m)

    @property
    def taps(self) -> Side:
        """The programs of the gradient of the weights, likewise its outputs."""
        from nnpack.maths.fourier import output_side

        return output_side(self.form, *self.r)


@dataclass(frozen=True)
class Columns:
    """The columns of one kind, real or complex: a loop over ``start <= j < stop``.

    Column j has its rows' numbers at ``j * parts + part`` of a packed row, and its planes from
    ``first + (j - start) * planes`` on.
    """

    start: int
    stop: int
    parts: int
    first: int
    planes: int

    def plane(self, j: Value) -> Index:
        """The first plane of column j."""
        return (j - self.start) * self.planes + self.first


def real_columns(form: Form) -> Columns:
    """The columns of frequencies 0 and n / 2."""
    return Columns(0, 2, 1, 0, form.real_planes)


def complex_columns(form: Form) -> Columns:
    """The columns between."""
    return Columns(1, form.n // 2, 2, 2 * form.real_planes, form.full_planes)
