"""Planning: applicable -> estimate -> choose; and the explanation of a choice."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from nnpack.algorithms.base import (
    FLOAT_BYTES,
    Algorithm,
    Estimate,
    direct_error,
    direct_relative_l2,
)
from nnpack.algorithms.table import ALGORITHMS, algorithm_names, find_algorithms
from nnpack.codegen.target import Target
from nnpack.errors import AlgorithmError
from nnpack.frozen import dataclass, replace
from nnpack.plan import Plan, combine_plans
from nnpack.problem import Problem, TransposedProblem
from nnpack.transposed import transposed_phases

__all__ = ["AnyProblem", "Candidate", "Explanation", "check_algorithm", "explain", "make_plan"]

AnyProblem = Problem | TransposedProblem

# What each accuracy allows of max|error| / max|reference|, and of the relative L2 error.
ERROR_BOUNDS = {"fast": (5e-5, 2e-5), "exact": (2e-6, 1e-6)}
# Single runs scatter about the expected greatest error by up to this factor; L2 errors do not.
_SCATTER = 1.4


@dataclass(frozen=True)
class Candidate:
    """One algorithm's answer to a problem.

    ``refusal`` says why it cannot be used, or is None; then ``seconds`` is the predicted time on
    one thread, ``error`` the expected max|error| / max|reference|, and the bytes are exact.
    """

    algorithm: str
    refusal: str | None
    seconds: float | None = None
    error: float | None = None
    workspace_bytes: int | None = None
    packed_bytes: int | None = None
    detail: str = ""


@dataclass(frozen=True)
class Explanation:
    """Why an algorithm was chosen: ``chosen`` (its name) among ``candidates``.

    ``str()`` is a table.
    """

    problem: AnyProblem
    chosen: str
    candidates: tuple[Candidate, ...]

    def __str__(self) -> str:
        header = ("", "algorithm", "predicted ms", "error", "workspace KiB", "packed KiB", "")
        rows = [header, *(self._row(candidate) for candidate in self.candidates)]
        widths = [max(len(row[n]) for row in rows) for n in range(len(header))]
        lines = (
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        )
        return "\n".join(lines)

    def _row(self, candidate: Candidate) -> tuple[str, ...]:
        mark = "*" if candidate.algorithm in self.chosen.split("+") else ""
        if candidate.seconds is None or candidate.error is None:
            return mark, candidate.algorithm, "", "", "", "", f"refused: {candidate.refusal}"
        note = candidate.detail if candidate.refusal is None else f"refused: {candidate.refusal}"
        return (
            mark,
            candidate.algorithm,
            f"{1e3 * candidate.seconds:.3f}",
            f"{candidate.error:.1e}",
            f"{(candidate.workspace_bytes or 0) / 1024:.0f}",
            f"{(candidate.packed_bytes or 0) / 1024:.0f}",
            note,
        )


def check_algorithm(name: object) -> str:
    """``name`` if some algorithm is called so. Raises AlgorithmError."""
    if isinstance(name, str) and find_algorithms(name):
        return name
    names = ", ".join(algorithm_names())
    raise AlgorithmError(f"algorithm={name!r} is unknown; choose one of {names}")


@functools.lru_cache(maxsize=1024)
def make_plan(problem: AnyProblem, algorithm: str, target: Target, threads: int) -> Plan:
    """The plan of the fastest algorithm that ``algorithm`` allows and ``problem`` admits.

    A transposed convolution is planned phase by phase.
    Raises AlgorithmError when the named algorithm cannot do the problem.
    """
    parts = []
    for part, y_offset in _parts(problem):
        plan = _choose(part, algorithm, target).build(part, target, threads)
        parts.append((plan, FLOAT_BYTES * y_offset))
    return combine_plans(tuple(parts))


def _parts(problem: AnyProblem) -> tuple[tuple[Problem, int], ...]:
    """The forward problems ``problem`` consists of, with their offsets in y, in elements."""
    if isinstance(problem, Problem):
        return ((problem, 0),)
    return tuple((phase.problem, phase.y_offset) for phase in transposed_phases(problem))


def explain(problem: AnyProblem, algorithm: str, target: Target, threads: int) -> Explanation:
    """What every algorithm answers to ``problem``, and which one is used.

    No images are explained as one image: nothing is planned for them.
    """
    parts = [part for part, _ in _parts(replace(problem, batch=max(1, problem.batch)))]
    chosen = dict.fromkeys(_choose(part, algorithm, target).name for part in parts)
    candidates = tuple(_ask(a, parts, target, threads) for a in ALGORITHMS)
    return Explanation(problem, "+".join(chosen), candidates)


def _ask(algorithm: Algorithm, parts: Sequence[Problem], target: Target, threads: int) -> Candidate:
    refusals = [algorithm.refusal(part, target) for part in parts]
    refused = next((refusal for refusal in refusals if refusal is not None), None)
    if refused is not None:
        return Candidate(algorithm.name, refused)
    estimates = [algorithm.estimate(part, target) for part in parts]
    plans = [algorithm.build(part, target, threads) for part in parts]
    reasons = map(_inaccuracy, parts, estimates)
    return Candidate(
        algorithm.name,
        next((reason for reason in reasons if reason is not None), None),
        sum(estimate.seconds for estimate in estimates),
        max(estimate.error for estimate in estimates),
        max(plan.workspace_bytes for plan in plans),
        sum(plan.weight_format.nbytes for plan in plans),
        plans[0].detail,
    )


def _choose(problem: Problem, name: str, target: Target) -> Algorithm:
    allowed = find_algorithms(check_algorithm(name))
    reasons = []
    possible: list[tuple[float, Algorithm]] = []
    for algorithm in allowed:
        refusal = algorithm.refusal(problem, target)
        if refusal is None:
            estimate = algorithm.estimate(problem, target)
            refusal = _inaccuracy(problem, estimate)
            if refusal is None:
                possible.append((estimate.seconds, algorithm))
        if refusal is not None:
            reasons.append(refusal)
    if not possible:
        raise AlgorithmError(_refusal_message(name, reasons))
    return min(possible, key=lambda pair: pair[0])[1]


def _refusal_message(name: str, reasons: Sequence[str]) -> str:
    return f"algorithm={name!r} {'; '.join(dict.fromkeys(reasons))}; use algorithm='auto'"


def _inaccuracy(problem: Problem, estimate: Estimate) -> str | None:
    """Why the expected error is too large, or None; direct summation always passes."""
    depth = problem.group_in_channels * problem.kernel[0] * problem.kernel[1]
    greatest, relative_l2 = ERROR_BOUNDS[problem.accuracy]
    found = (
        ("greatest", estimate.error, max(greatest / _SCATTER, 1.01 * direct_error(depth))),
        ("relative L2", estimate.relative_l2, max(relative_l2, direct_relative_l2(depth))),
    )
    for name, expected, bound in found:
        if expected > bound:
            return (
                f"has an expected {name} error of {expected:.1e}, "
                f"accuracy={problem.accuracy!r} allows {bound:.1e}"
            )
    return None
