"""Softmax and its gradients: rows whole in cache, or columns in the lanes."""

from __future__ import annotations

from nnpack.algorithms.base import ceil_div
from nnpack.algorithms.elementary import block_of, simple_plan
from nnpack.codegen.target import Target
from nnpack.plan import Argument, Plan, Slot, Stage
from nnpack.softmax_problem import SoftmaxProblem

__all__ = ["plan_softmax"]


def plan_softmax(problem: SoftmaxProblem, target: Target, threads: int) -> Plan:
    """One stage; slots x and y, and of a gradient grad, x being what is written."""
    from nnpack.kernels.softmax import Softmax, SoftmaxGradient

    rows = problem.inner == 1
    vectors = 1 if rows else ceil_div(problem.inner, target.lanes)
    block = block_of(problem.length * (1 if rows else target.lanes))
    count = problem.outer * vectors
    words: dict[str, Argument] = {
        "x": Slot("x"),
        "y": Slot("y"),
        "length": problem.length,
        "inner": problem.inner,
        "count": count,
        "block": block,
    }
    if problem.gradient:
        gradient = SoftmaxGradient(rows, problem.logarithm)
        stage = Stage(gradient, ceil_div(count, block), {**words, "grad": Slot("grad")})
    else:
        softmax = Softmax(rows, problem.logarithm)
        stage = Stage(softmax, ceil_div(count, block), {**words, "factor": problem.factor})
    return simple_plan("softmax", (stage,), threads)
