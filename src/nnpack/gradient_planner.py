"""Planning of weight gradients: applicable -> estimate -> choose; and the explanation."""

from __future__ import annotations

import functools
from collections.abc import Callable

from nnpack.admission import Demand, possible_algorithms
from nnpack.algorithms.base import FLOAT_BYTES
from nnpack.algorithms.output_gradient import plan_masked, weight_block_bytes
from nnpack.algorithms.weight_gradient_base import MergingGradient, WeightGradientAlgorithm
from nnpack.algorithms.weight_gradient_table import (
    WEIGHT_GRADIENT_ALGORITHMS,
    find_gradient_algorithms,
)
from nnpack.codegen.target import Target
from nnpack.epilogue import ChannelSlopes
from nnpack.explanation import Candidate, Explanation
from nnpack.frozen import replace
from nnpack.gradient_problem import WeightGradientProblem
from nnpack.plan import Plan
from nnpack.planner import check_algorithm

__all__ = ["explain_weight_gradient", "plan_weight_gradient", "weight_gradient_planner"]


def weight_gradient_planner(
    algorithm: str,
) -> Callable[[WeightGradientProblem, Target, int], Plan]:
    """`plan_weight_gradient` for ``algorithm``: one function a name, by which programs are kept.

    Raises AlgorithmError for an unknown name.
    """
    return _weight_gradient_planner(_check_algorithm(algorithm))


@functools.cache
def _weight_gradient_planner(
    algorithm: str,
) -> Callable[[WeightGradientProblem, Target, int], Plan]:
    return functools.partial(plan_weight_gradient, algorithm)


def plan_weight_gradient(
    algorithm: str, problem: WeightGradientProblem, target: Target, threads: int
) -> Plan:
    """The plan of the algorithm that is predicted to be fastest.

    Raises AlgorithmError when the named algorithm cannot do the problem.
    """
    chosen = _choose(problem, algorithm, target)
    if problem.masking is None:
        return chosen.build(problem, target, threads)
    if _merges(chosen, problem, target):
        return chosen.build(_reading_both(problem), target, threads)
    return _plan_masked(problem, chosen, target, threads)


def _merges(
    chosen: WeightGradientAlgorithm, problem: WeightGradientProblem, target: Target
) -> bool:
    """Whether the gradient is masked where it is loaded.

    Not with slopes of each channel, nor x in the place of a gradient, which is loaded many times.
    """
    masking = problem.masking
    assert masking is not None
    if problem.masks_x or isinstance(masking.activation, ChannelSlopes):
        return False
    if masking.grad_strides != masking.output_strides or not isinstance(chosen, MergingGradient):
        return False
    return chosen.merges_activation(problem, target)


def _reading_both(problem: WeightGradientProblem) -> WeightGradientProblem:
    """``problem`` with the strides of what is to be masked, for kernels that do so."""
    assert problem.masking is not None
    return replace(problem, grad_strides=problem.masking.grad_strides)


def _plan_masked(
    problem: WeightGradientProblem, chosen: WeightGradientAlgorithm, target: Target, threads: int
) -> Plan:
    """Some images at a time, which add to the sums of those before."""
    assert problem.masking is not None
    x_n, grad_n = problem.x_strides[0], problem.grad_strides[0]
    slot, other, stride = ("x", "grad", grad_n) if problem.masks_x else ("grad", "x", x_n)

    def plan_of(first: int, images: int) -> Plan:
        forward = replace(problem.forward, batch=images)
        adds = problem.accumulate or first > 0
        block = replace(problem, forward=forward, accumulate=adds, masking=None)
        return chosen.build(block, target, threads)

    strides = {other: FLOAT_BYTES * stride}
    return plan_masked(problem.masking, plan_of, slot, strides, weight_block_bytes(target))


def explain_weight_gradient(
    problem: WeightGradientProblem, algorithm: str, target: Target, threads: int
) -> Explanation:
    """What every algorithm answers to ``problem``, and which one is used.

    No images are explained as one image.
    """
    forward = replace(problem.forward, batch=max(1, problem.forward.batch))
    problem = replace(problem, forward=forward)
    chosen = _choose(problem, _check_algorithm(algorithm), target)
    candidates = (_ask(a, problem, target, threads) for a in WEIGHT_GRADIENT_ALGORITHMS)
    return Explanation(problem, chosen.name, tuple(candidates))


def _ask(
    algorithm: WeightGradientAlgorithm,
    problem: WeightGradientProblem,
    target: Target,
    threads: int,
) -> Candidate:
    refusal = algorithm.refusal(problem, target)
    if refusal is not None:
        return Candidate(algorithm.name, refusal)
    estimate, plan = (
        algorithm.estimate(problem, target),
        algorithm.build(problem, target, threads),
    )
    return Candidate(
        algorithm.name,
        _demand(problem).inaccuracy(estimate),
        estimate.seconds,
        estimate.error,
        plan.workspace_bytes,
        0,
        plan.detail,
    )


def _check_algorithm(name: object) -> str:
    """``name`` if an algorithm of either direction is called so. Raises AlgorithmError."""
    return check_algorithm(name, [a.name for a in WEIGHT_GRADIENT_ALGORITHMS])


def _choose(problem: WeightGradientProblem, name: str, target: Target) -> WeightGradientAlgorithm:
    menu, otherwise = find_gradient_algorithms(name), "does not compute weight gradients"
    possible = possible_algorithms(name, menu, problem, target, _demand(problem), otherwise)
    return min(possible, key=lambda pair: pair[1].seconds)[0]


def _demand(problem: WeightGradientProblem) -> Demand:
    return Demand(problem.forward.accuracy, problem.depth)
