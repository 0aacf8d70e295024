"""Plans kept as programs, and run: what every function does last."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, SupportsIndex

import numpy as np

from nnpack import wisdom
from nnpack.codegen.target import Target, host_target
from nnpack.execution import Program, ReportedProgram, Runnable
from nnpack.output_gradient_problem import OutputGradientProblem
from nnpack.plan import Plan, packed_in_workspace
from nnpack.planner import AnyProblem, make_masked_plan, make_plan
from nnpack.runtime.memory import address
from nnpack.settings import resolve_num_threads
from nnpack.verbose import is_verbose, report

__all__ = [
    "Planner",
    "are_plain",
    "packing_program",
    "planned_program",
    "reported",
    "run_planned",
]

Planner = Callable[[Any, Target, int], Plan]
"""What turns a problem into a plan for a target and at most so many threads."""


def run_planned(
    planner: Planner,
    problem: object,
    arrays: Mapping[str, np.ndarray[Any, Any]],
    threads: SupportsIndex | None,
) -> None:
    """Run the plan of ``problem`` (frozen, hashable) on ``arrays``, given by slot name.

    Programs are kept by problem. Everything has been validated before.
    """
    program = planned_program(planner, problem, resolve_num_threads(threads))
    program.run({name: address(array) for name, array in arrays.items()})


def planned_program(planner: Planner, problem: object, threads: int) -> Runnable:
    """The program of ``problem`` on this machine, kept by problem."""
    return _planned_program(planner, problem, threads)


@functools.lru_cache(maxsize=256)
def _planned_program(planner: Planner, problem: object, threads: int) -> Runnable:
    target = host_target()
    plan = planner(problem, target, threads)
    return reported(Program(plan.stages, target, threads, plan.workspace_bytes), problem, plan)


def packing_program(
    problem: AnyProblem,
    algorithm: str,
    threads: int,
    masking: OutputGradientProblem | None = None,
) -> Runnable:
    """The program that packs the weights into the workspace and runs, kept by problem.

    With ``masking`` x is what that gives of its own slots.
    """
    return _packing_program(
        problem, algorithm, host_target(), threads, masking, wisdom.generation()
    )


@functools.lru_cache(maxsize=256)
def _packing_program(
    problem: AnyProblem,
    algorithm: str,
    target: Target,
    threads: int,
    masking: OutputGradientProblem | None,
    _generation: int,
) -> Runnable:
    if masking is None:
        plan = make_plan(problem, algorithm, target, threads, packs=True)
    else:
        plan = make_masked_plan(problem, masking, algorithm, target, threads)
    stages, workspace_bytes = packed_in_workspace(plan)
    return reported(Program(stages, target, threads, workspace_bytes), problem, plan)


_PLAIN = frozenset((int, float, str, tuple, type(None)))


def are_plain(values: tuple[object, ...]) -> bool:
    """Whether equal values mean the same, so that what was found for them may be kept by them.

    Not True, which is refused where 1 is not; not arrays of one number, which may change.
    """
    for value in values:
        if type(value) not in _PLAIN:
            return False
        if type(value) is tuple and not are_plain(value):
            return False
    return True


def reported(program: Runnable, problem: object, plan: Plan) -> Runnable:
    """``program``, which reports its runs where the environment asks for that."""
    if not is_verbose():
        return program
    words = problem, plan.algorithm, plan.detail, plan.threads
    return ReportedProgram(program, functools.partial(report, "call", *words))
