"""Results that are written where a residual may be read."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nnpack.arrays import Float32Array, are_same, check_out
from nnpack.linear_problem import ProductProblem
from nnpack.planner import AnyProblem
from nnpack.problem import TransposedProblem
from nnpack.runtime.memory import empty_output
from nnpack.transposed import has_gaps

__all__ = ["is_overwritten_early", "placed_output", "readable_residual"]


def placed_output(
    problem: AnyProblem | ProductProblem,
    given: Mapping[str, Float32Array],
    out: Float32Array | None,
) -> tuple[Float32Array, Mapping[str, Float32Array]]:
    """Where the result goes, and ``given`` with a residual that lies as the result does.

    Raises ProblemError or DtypeError when ``out`` cannot be written while ``given`` is read.
    """
    if out is None:
        y = empty_output(problem.y_shape)
    else:
        y = check_out(out, problem.y_shape, given.items(), in_place="residual")
    if "residual" not in given:
        return y, given
    residual = readable_residual(given["residual"], y, is_overwritten_early(problem))
    return y, {**given, "residual": residual}


def readable_residual(residual: Float32Array, y: Float32Array, early: bool) -> Float32Array:
    """``residual`` dense, as y is before a pool: itself, or a copy.

    Copied as well if it is ``y`` and some of y is written ``early``, before it is read.
    """
    if early and are_same(y, residual):
        return residual.copy()
    return np.ascontiguousarray(residual)


def is_overwritten_early(problem: AnyProblem | ProductProblem) -> bool:
    """Whether outputs are written before the residual at the same place is read."""
    return isinstance(problem, TransposedProblem) and has_gaps(problem)
