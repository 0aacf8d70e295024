"""``NNPACK_VERBOSE=1``: one CSV line a plan, a refusal, a measurement and a call, on stderr.

Columns: ``nnpack``, event, what, algorithm, detail, shape, threads, ms; see docs/tuning.md.
"""

from __future__ import annotations

import sys

from nnpack.problem import Problem, TransposedProblem
from nnpack.settings import get_settings

__all__ = ["is_verbose", "report"]


def is_verbose() -> bool:
    """Whether the environment asks for lines."""
    return get_settings().verbose


def report(
    event: str,
    problem: Problem | TransposedProblem,
    algorithm: str,
    detail: str,
    threads: int,
    seconds: float | None,
) -> None:
    """Write one line, in one piece, so that lines of several threads do not mix."""
    import csv
    import io

    what = "conv2d" if isinstance(problem, Problem) else "conv_transpose2d"
    milliseconds = "" if seconds is None else f"{1e3 * seconds:.4f}"
    line = io.StringIO()
    row = ("nnpack", event, what, algorithm, detail, _shape(problem), threads, milliseconds)
    csv.writer(line, lineterminator="\n").writerow(row)
    sys.stderr.write(line.getvalue())


def _shape(problem: Problem | TransposedProblem) -> str:
    """``x1x64x56x56 w128x64x3x3 s1x1 p1x1x1x1 d1x1 g1``: arrays, stride, padding, ..., groups."""
    parts = {
        "x": problem.x_shape,
        "w": problem.weight_shape,
        "s": problem.stride,
        "p": problem.padding,
        "d": problem.dilation,
        "g": (problem.groups,),
    }
    return " ".join(name + "x".join(map(str, numbers)) for name, numbers in parts.items())
