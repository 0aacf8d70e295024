"""Explanations of a choice: what every algorithm answered to a problem; a table of it."""

from __future__ import annotations

from nnpack.frozen import dataclass
from nnpack.gradient_problem import WeightGradientProblem
from nnpack.linear_problem import ProductProblem
from nnpack.problem import Problem, TransposedProblem

__all__ = ["AnyProblem", "Candidate", "Explanation"]

AnyProblem = Problem | TransposedProblem

_HEADER = (
    "",
    "algorithm",
    "predicted ms",
    "measured ms",
    "error",
    "workspace KiB",
    "packed KiB",
    "packed as",
)


@dataclass(frozen=True)
class Candidate:
    """One algorithm's answer to a problem.

    ``refusal`` says why it cannot be used, or is None; then ``seconds`` is the predicted time on
    one thread, ``error`` the expected max|error| / max|reference|, and the bytes are exact.
    ``measured`` is the time of a run on all threads, when the problem was tuned.
    ``packed_storage`` says whether the packed weights are "float32" or "float16"; ``error`` has
    what rounding them adds.
    """

    algorithm: str
    refusal: str | None
    seconds: float | None = None
    error: float | None = None
    workspace_bytes: int | None = None
    packed_bytes: int | None = None
    detail: str = ""
    measured: float | None = None
    packed_storage: str = ""


@dataclass(frozen=True)
class Explanation:
    """Why an algorithm was chosen: ``chosen`` (its name) among ``candidates``.

    ``measured`` says whether it was chosen by measurement. ``str()`` is a table.
    """

    problem: AnyProblem | ProductProblem | WeightGradientProblem
    chosen: str
    candidates: tuple[Candidate, ...]
    measured: bool = False

    def __str__(self) -> str:
        how = "measured" if self.measured else "predicted"
        head = (*_HEADER, f"* chosen as {how}")
        rows = [head, *(self._row(candidate) for candidate in self.candidates)]
        widths = [max(len(row[n]) for row in rows) for n in range(len(head))]
        lines = (
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        )
        return "\n".join(lines)

    def _row(self, candidate: Candidate) -> tuple[str, ...]:
        mark = "*" if candidate.algorithm in self.chosen.split("+") else ""
        if candidate.seconds is None or candidate.error is None:
            return mark, candidate.algorithm, *[""] * 6, f"refused: {candidate.refusal}"
        note = candidate.detail if candidate.refusal is None else f"refused: {candidate.refusal}"
        return (
            mark,
            candidate.algorithm,
            f"{1e3 * candidate.seconds:.3f}",
            "" if candidate.measured is None else f"{1e3 * candidate.measured:.3f}",
            f"{candidate.error:.1e}",
            f"{(candidate.workspace_bytes or 0) / 1024:.0f}",
            f"{(candidate.packed_bytes or 0) / 1024:.0f}",
            candidate.packed_storage,
            note,
        )
