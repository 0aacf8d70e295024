"""Which algorithms may compute a problem: those that can, as accurately as is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from nnpack.algorithms.base import Estimate, direct_error, direct_relative_l2
from nnpack.algorithms.storage import GREATEST_PER_L2, MAX_ROUNDING
from nnpack.codegen.target import Target
from nnpack.errors import AlgorithmError
from nnpack.frozen import dataclass
from nnpack.problem import Accuracy

__all__ = ["Demand", "possible_algorithms"]

# What each accuracy allows of max|error| / max|reference|, and of the relative L2 error.
ERROR_BOUNDS = {"fast": (5e-5, 2e-5), "exact": (2e-6, 1e-6)}
# What transformed weights in half precision may add to them: see `algorithms.storage`.
_ROUNDING_BOUNDS = GREATEST_PER_L2 * MAX_ROUNDING["fast"], MAX_ROUNDING["fast"]
# Single runs scatter about the expected greatest error by up to this factor; L2 errors do not.
_SCATTER = 1.4
_L2_SCATTER = 1.1


class _Estimating(Protocol):
    """An algorithm for problems of some kind."""

    def refusal(self, problem: Any, target: Target) -> str | None: ...
    def estimate(self, problem: Any, target: Target) -> Estimate: ...


_Algorithm = TypeVar("_Algorithm", bound=_Estimating)


@dataclass(frozen=True)
class Demand:
    """The ``accuracy`` asked for of sums of ``depth`` products."""

    accuracy: Accuracy
    depth: int

    def inaccuracy(self, estimate: Estimate) -> str | None:
        """Why the expected error is too large, or None. Direct summation always passes."""
        greatest, relative_l2 = ERROR_BOUNDS[self.accuracy]
        if estimate.rounding:
            greatest += _ROUNDING_BOUNDS[0]
            relative_l2 += _ROUNDING_BOUNDS[1]
        direct = 1.01 * direct_error(self.depth), direct_relative_l2(self.depth)
        found = (
            ("greatest", estimate.error, max(greatest / _SCATTER, direct[0])),
            ("relative L2", estimate.relative_l2, max(relative_l2, direct[1])),
        )
        for name, expected, bound in found:
            if expected > bound:
                return (
                    f"has an expected {name} error of {expected:.1e}, "
                    f"accuracy={self.accuracy!r} allows {bound:.1e}"
                )
        return None

    def most_accurate(
        self, pairs: list[tuple[_Algorithm, Estimate]]
    ) -> list[tuple[_Algorithm, Estimate]]:
        """Those that keep the accuracy for certain; all where direct summation does not."""
        greatest, relative_l2 = ERROR_BOUNDS[self.accuracy]

        def keeps(estimate: Estimate) -> bool:
            if estimate.rounding:
                return True
            l2 = estimate.relative_l2 or direct_relative_l2(self.depth)
            return _SCATTER * estimate.error <= greatest and _L2_SCATTER * l2 <= relative_l2

        return [pair for pair in pairs if keeps(pair[1])] or pairs


def possible_algorithms(
    name: str,
    menu: Sequence[_Algorithm],
    problem: Any,
    target: Target,
    demand: Demand,
    otherwise: str = "",
) -> list[tuple[_Algorithm, Estimate]]:
    """Those of ``menu``, which ``name`` allows, that may compute ``problem``; and what they cost.

    Raises AlgorithmError when there is none, with what each says; ``otherwise`` is said of a menu
    without any.
    """
    reasons: dict[str, None] = {}
    possible = []
    for algorithm in menu:
        reason = algorithm.refusal(problem, target)
        if reason is None:
            estimate = algorithm.estimate(problem, target)
            reason = demand.inaccuracy(estimate)
            if reason is None:
                possible.append((algorithm, estimate))
                continue
        reasons[reason] = None
    if not possible:
        said = "; ".join(reasons) or otherwise
        raise AlgorithmError(f"algorithm={name!r} {said}; use algorithm='auto'")
    return possible
