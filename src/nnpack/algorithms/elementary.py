"""Plans of operations that have one way to be computed: stages without weights or choice."""

from __future__ import annotations

from nnpack.plan import Plan, Stage, WeightFormat

__all__ = ["TASK_FLOATS", "block_of", "simple_plan", "streaming_block"]

TASK_FLOATS = 8192
"""Floats that make a task: some microseconds of work, a quarter of a first-level cache."""

ALONE_FLOATS = 32768
"""Floats that are read, changed a little and written in the time a worker takes to wake."""


def block_of(floats: int) -> int:
    """How many items of so many floats make a task."""
    return max(1, TASK_FLOATS // max(1, floats))


def streaming_block(floats: int, items: int) -> int:
    """The same where each float takes an operation or two: all ``items`` if they are few.

    A task alone is done by the caller, who then calls nobody.
    """
    return items if floats * items <= ALONE_FLOATS else block_of(floats)


def simple_plan(
    name: str, stages: tuple[Stage, ...], threads: int, workspace_bytes: int = 0
) -> Plan:
    """The plan of ``stages``, which read and write arrays and the workspace alone."""
    return Plan(name, stages, WeightFormat((), 0, ()), workspace_bytes, threads, "")
