"""The plan of element-wise functions: one stage over blocks of numbers."""

from __future__ import annotations

from nnpack.algorithms.base import ceil_div, epilogue_words
from nnpack.algorithms.elementary import TASK_FLOATS, block_of, simple_plan, streaming_block
from nnpack.codegen.target import Target
from nnpack.elementwise_problem import ElementwiseProblem
from nnpack.plan import Argument, Plan, Slot, Stage

__all__ = ["plan_elementwise"]


def plan_elementwise(problem: ElementwiseProblem, _: Target, threads: int) -> Plan:
    """Slots x and y, ``factor`` of a product, and those of the epilogue."""
    from nnpack.kernels.activations import STREAMING
    from nnpack.kernels.elementwise import Elementwise

    width = problem.width or TASK_FLOATS
    rows = ceil_div(problem.count, width)
    cheap = problem.epilogue.kind.activation in STREAMING
    block = streaming_block(width, rows) if cheap else block_of(width)
    words: dict[str, Argument] = {
        "x": Slot("x"),
        "y": Slot("y"),
        "factor": Slot("factor"),
        "count": problem.count,
        "channels": problem.channels,
        "width": width,
        "block": block,
        **epilogue_words(problem.epilogue),
    }
    kernel = Elementwise(problem.epilogue.kind, problem.product)
    stage = Stage(kernel, ceil_div(rows, block), words)
    return simple_plan("elementwise", (stage,), threads)
