"""The plan of element-wise functions: one stage over blocks of numbers."""

from __future__ import annotations

from nnpack.algorithms.base import ceil_div, epilogue_words
from nnpack.algorithms.elementary import TASK_FLOATS, block_of, simple_plan
from nnpack.codegen.target import Target
from nnpack.elementwise_problem import ElementwiseProblem
from nnpack.plan import Argument, Plan, Slot, Stage

__all__ = ["plan_elementwise"]


def plan_elementwise(problem: ElementwiseProblem, _: Target, threads: int) -> Plan:
    """Slots x and y, and those of the epilogue."""
    from nnpack.kernels.elementwise import Elementwise

    width = problem.width or TASK_FLOATS
    block = block_of(width)
    words: dict[str, Argument] = {
        "x": Slot("x"),
        "y": Slot("y"),
        "count": problem.count,
        "channels": problem.channels,
        "width": width,
        "block": block,
        **epilogue_words(problem.epilogue),
    }
    tasks = ceil_div(ceil_div(problem.count, width), block)
    stage = Stage(Elementwise(problem.epilogue.kind), tasks, words)
    return simple_plan("elementwise", (stage,), threads)
