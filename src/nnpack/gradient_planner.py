"""Planning of weight gradients: applicable -> estimate -> choose; and the explanation."""

from __future__ import annotations

import functools
from collections.abc import Callable

from nnpack.algorithms.base import Estimate, direct_error
from nnpack.algorithms.weight_gradient_base import WeightGradientAlgorithm
from nnpack.algorithms.weight_gradient_table import (
    WEIGHT_GRADIENT_ALGORITHMS,
    find_gradient_algorithms,
)
from nnpack.codegen.target import Target
from nnpack.errors import AlgorithmError
from nnpack.explanation import Candidate, Explanation
from nnpack.frozen import replace
from nnpack.gradient_problem import WeightGradientProblem
from nnpack.plan import Plan
from nnpack.planner import ERROR_BOUNDS, check_algorithm

__all__ = ["explain_weight_gradient", "plan_weight_gradient", "weight_gradient_planner"]

# Single runs scatter about the expected greatest error by up to this factor.
_SCATTER = 1.4


@functools.cache
def weight_gradient_planner(
    algorithm: str,
) -> Callable[[WeightGradientProblem, Target, int], Plan]:
    """`plan_weight_gradient` for ``algorithm``: one function a name, by which programs are kept."""
    return functools.partial(plan_weight_gradient, check_algorithm(algorithm))


def plan_weight_gradient(
    algorithm: str, problem: WeightGradientProblem, target: Target, threads: int
) -> Plan:
    """The plan of the algorithm that is predicted to be fastest.

    Raises AlgorithmError when the named algorithm cannot do the problem.
    """
    return _choose(problem, algorithm, target).build(problem, target, threads)


def explain_weight_gradient(
    problem: WeightGradientProblem, algorithm: str, target: Target, threads: int
) -> Explanation:
    """What every algorithm answers to ``problem``, and which one is used.

    No images are explained as one image.
    """
    forward = replace(problem.forward, batch=max(1, problem.forward.batch))
    problem = replace(problem, forward=forward)
    chosen = _choose(problem, check_algorithm(algorithm), target)
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
        _inaccuracy(problem, estimate),
        estimate.seconds,
        estimate.error,
        plan.workspace_bytes,
        0,
        plan.detail,
    )


def _choose(problem: WeightGradientProblem, name: str, target: Target) -> WeightGradientAlgorithm:
    reasons = []
    possible: list[tuple[float, int, WeightGradientAlgorithm]] = []
    for n, algorithm in enumerate(find_gradient_algorithms(name)):
        reason = algorithm.refusal(problem, target)
        if reason is None:
            estimate = algorithm.estimate(problem, target)
            reason = _inaccuracy(problem, estimate)
            if reason is None:
                possible.append((estimate.seconds, n, algorithm))
                continue
        reasons.append(reason)
    if possible:
        return min(possible, key=lambda item: item[:2])[2]
    why = "; ".join(dict.fromkeys(reasons)) or "does not compute weight gradients"
    raise AlgorithmError(f"algorithm={name!r} {why}; use algorithm='auto'")


def _inaccuracy(problem: WeightGradientProblem, estimate: Estimate) -> str | None:
    """Why the expected error is too large, or None; direct summation always passes."""
    accuracy = problem.forward.accuracy
    greatest, relative_l2 = ERROR_BOUNDS[accuracy]
    direct = direct_error(problem.depth)
    found = (
        ("greatest", estimate.error, max(greatest / _SCATTER, 1.01 * direct)),
        ("relative L2", estimate.relative_l2, max(relative_l2, direct / 2)),
    )
    for name, expected, bound in found:
        if expected > bound:
            return (
                f"has an expected {name} error of {expected:.1e}, "
                f"accuracy={accuracy!r} allows {bound:.1e}"
            )
    return None
