"""``NNPACK_VERBOSE=1``: one CSV line a plan, a refusal, a measurement and a call, on stderr.

Columns: ``nnpack``, event, what, algorithm, detail, shape, threads, ms; see docs/tuning.md.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import fields

from nnpack.problem import Problem, TransposedProblem
from nnpack.settings import get_settings

__all__ = ["is_verbose", "report"]


def is_verbose() -> bool:
    """Whether the environment asks for lines."""
    return get_settings().verbose


def report(
    event: str,
    problem: object,
    algorithm: str,
    detail: str,
    threads: int,
    seconds: float | None,
) -> None:
    """Write one line, in one piece, so that lines of several threads do not mix.

    Nothing is written where there is no standard error.
    """
    if sys.stderr is None:
        return
    import csv
    import io

    milliseconds = "" if seconds is None else f"{1e3 * seconds:.4f}"
    line = io.StringIO()
    what, shape = _described(problem)
    row = ("nnpack", event, what, algorithm, detail, shape, threads, milliseconds)
    csv.writer(line, lineterminator="\n").writerow(row)
    sys.stderr.write(line.getvalue())


def _described(problem: object) -> tuple[str, str]:
    """What is computed, and of which shapes: the extents and choices that a problem consists of."""
    if isinstance(problem, Problem | TransposedProblem):
        return "conv2d" if isinstance(problem, Problem) else "conv_transpose2d", _shape(problem)
    import re

    words = re.findall("[A-Z][a-z]*", type(problem).__name__.removesuffix("Problem"))
    return "_".join(words).lower(), " ".join(_items(problem))


def _items(problem: object, prefix: str = "") -> Iterator[str]:
    """``name=value`` of the integers, names and flags of a problem, and of problems in it."""
    for field in fields(problem):  # type: ignore[arg-type]
        value, name = getattr(problem, field.name), prefix + field.name
        if isinstance(value, Problem | TransposedProblem):
            yield _shape(value)
        elif field.name.startswith("_") or value is False:
            continue
        elif type(value) in (int, str, bool):
            yield f"{name}={value}"
        elif isinstance(value, tuple) and value and all(type(item) is int for item in value):
            yield f"{name}={'x'.join(map(str, value))}"
        elif type(value).__name__.endswith("Problem"):
            yield from _items(value, f"{name}.")


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
