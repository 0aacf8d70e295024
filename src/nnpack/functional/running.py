"""Plans kept as programs, and run: what every function does last."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, SupportsIndex

import numpy as np

from nnpack import wisdom
from nnpack.arrays import Float32Array, check_out
from nnpack.codegen.target import Target, host_target
from nnpack.execution import Program, ReportedProgram, Runnable
from nnpack.output_gradient_problem import OutputGradientProblem
from nnpack.plan import Plan, packed_in_workspace
from nnpack.planner import AnyProblem, make_masked_plan, make_plan
from nnpack.runtime.memory import address, empty_output
from nnpack.settings import resolve_num_threads
from nnpack.verbose import is_verbose, report

__all__ = [
    "Planner",
    "Prepared",
    "packing_program",
    "planned_program",
    "reported",
    "result",
    "run",
    "run_planned",
]

Planner = Callable[[Any, Target, int], Plan]
"""What turns a problem into a plan for a target and at most so many threads."""


class Prepared:
    """The ``shape`` of a result, the program that makes it unless it is empty, what that reads."""

    __slots__ = ("_tables", "program", "shape")

    def __init__(
        self,
        shape: tuple[int, ...],
        program: Runnable | None,
        tables: Mapping[str, np.ndarray[Any, Any]] | None = None,
    ) -> None:
        self.shape = shape
        self.program = program
        self._tables = tables or {}

    def run(self, name: str, x: Float32Array, out: Float32Array | None) -> Float32Array:
        """What the program makes of x, the argument ``name``; slots x, y and those of the tables.

        Raises as `arrays.check_out` does.
        """
        y = result(self.shape, out, {name: x})
        if self.program is not None:
            run(self.program, {"x": np.ascontiguousarray(x), "y": y, **self._tables})
        return y

    def run_at(self, addresses: dict[str, int]) -> Float32Array:
        """What the program makes of the arrays at ``addresses``, by slot name; zeros of nothing.

        ``addresses`` is used up. The arrays must be what the program was made for.
        """
        y = empty_output(self.shape)
        if self.program is None:
            y.fill(0.0)
        else:
            addresses["y"] = address(y)
            self.program.run(addresses)
        return y


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
    run(program, arrays)


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


def result(
    shape: tuple[int, ...],
    out: Float32Array | None,
    inputs: Mapping[str, np.ndarray[Any, Any]],
    *,
    in_place: bool | str = False,
) -> Float32Array:
    """Where a result of ``shape`` goes: a new array, or ``out`` if it may be written.

    With ``in_place`` it may be one of ``inputs``, or that one. Raises as `arrays.check_out` does.
    """
    if out is None:
        return empty_output(shape)
    return check_out(out, shape, inputs.items(), in_place=in_place)


def run(program: Runnable, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Run ``program`` on ``arrays``, given by slot name."""
    program.run({name: address(array) for name, array in arrays.items()})


def reported(program: Runnable, problem: object, plan: Plan) -> Runnable:
    """``program``, which reports its runs where the environment asks for that."""
    if not is_verbose():
        return program
    words = problem, plan.algorithm, plan.detail, plan.threads
    return ReportedProgram(program, functools.partial(report, "call", *words))
