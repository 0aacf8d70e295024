"""Problems of weight gradients: what is to be computed, validated here, once, and frozen."""

from __future__ import annotations

import math

from nnpack.frozen import dataclass
from nnpack.geometry import Pair, Shape
from nnpack.output_gradient_problem import OutputGradientProblem
from nnpack.problem import Problem, RowStrides

__all__ = ["WeightGradientProblem"]


@dataclass(frozen=True, kw_only=True)
class WeightGradientProblem:
    """The gradient of a convolution in its weights.

    ``gw[k, c, p, q] = sum grad[n, k, i, j] * x[n, c, i*sh + p*dh - top, j*sw + q*dw - left]`` over
    images n and outputs (i, j) of ``forward``, whose epilogue and output strides do not matter.
    ``grad_strides`` are those of (n, k), in elements; the pixels of a plane of grad are
    consecutive. With ``accumulate`` the sums are added to what gw holds. With ``masking`` grad, or
    x if ``masks_x``, is what that gives, and its strides are dense; an algorithm that masks what it
    loads is given the strides of what is masked.
    """

    forward: Problem
    grad_strides: Pair
    accumulate: bool = False
    masking: OutputGradientProblem | None = None
    masks_x: bool = False

    @property
    def x_strides(self) -> RowStrides:
        """Strides of (n, c, h) of x, in elements."""
        return self.forward.x_strides

    @property
    def weight_shape(self) -> Shape:
        """``(O, C/groups, kh, kw)``, the shape of the gradient."""
        return self.forward.weight_shape

    @property
    def pixels(self) -> int:
        """Outputs of one image: terms of each sum."""
        return self.forward.out_height * self.forward.out_width

    @property
    def depth(self) -> int:
        """Terms of each sum."""
        return self.forward.batch * self.pixels

    @property
    def rows(self) -> int:
        """Taps and channels of one group: numbers of the gradient for each output channel."""
        return math.prod(self.weight_shape[1:])

    @property
    def flops(self) -> int:
        """Multiplications and additions of the direct sum, the taps that meet padding included."""
        return self.forward.flops
