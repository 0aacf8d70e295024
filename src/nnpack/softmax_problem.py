"""Softmaxes as values: shapes and axis become three extents, checked once."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nnpack.arguments import as_axis
from nnpack.errors import ProblemError
from nnpack.frozen import dataclass

__all__ = ["SoftmaxProblem", "softmax_problem"]

# Offsets are 64-bit, of bytes.
_MAX_ELEMENTS = 2**45


@dataclass(frozen=True)
class SoftmaxProblem:
    """Softmax along the middle of (outer, length, inner), or its logarithm, or their gradients.

    What softmax gives is multiplied by ``factor``.
    """

    outer: int
    length: int
    inner: int
    logarithm: bool = False
    gradient: bool = False
    factor: float = 1.0

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to compute."""
        return self.outer * self.length * self.inner == 0


def softmax_problem(
    shape: Sequence[int],
    axis: object,
    *,
    logarithm: bool = False,
    gradient: bool = False,
    factor: float = 1.0,
) -> SoftmaxProblem:
    """The problem of arrays of ``shape``. Raises ProblemError for an axis there is not."""
    if not shape:
        raise ProblemError("x.shape=() must have at least 1 dimension")
    if math.prod(shape) >= _MAX_ELEMENTS:
        raise ProblemError(f"x.shape={tuple(shape)} must have less than {_MAX_ELEMENTS} floats")
    number = as_axis("axis", axis, len(shape))
    outer, inner = math.prod(shape[:number]), math.prod(shape[number + 1 :])
    return SoftmaxProblem(outer, shape[number], inner, logarithm, gradient, factor)
