"""Transposed convolutions with a stride: dense phases, some images at a time, then interleaved.

Phases of one slice of images stay in the workspace, where the stage that interleaves them finds
them in a cache, and y is written once, in whole rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from nnpack.algorithms.base import FLOAT_BYTES, round_up
from nnpack.algorithms.slices import slice_images
from nnpack.codegen.target import Target
from nnpack.epilogue import Epilogue
from nnpack.frozen import replace
from nnpack.geometry import dense_strides
from nnpack.plan import Argument, Plan, Slot, Stage, WeightFormat, chain_plans, shifted
from nnpack.problem import Problem, TransposedProblem
from nnpack.transposed import Phase, has_gaps, transposed_phases

__all__ = ["dense_phases", "interleave_in_slices", "interleaves"]

# Beyond it a vector of y has too few lanes of each phase; kernels are compiled for each stride.
_MOST_STRIDE = 4


def interleaves(problem: TransposedProblem) -> bool:
    """Whether phases of ``problem`` are computed densely: where each would store pixel by pixel.

    Not where an epilogue is due in gaps of y, or after a residual is added.
    """
    if not 1 < problem.stride[1] <= _MOST_STRIDE or problem.stride[0] > _MOST_STRIDE:
        return False
    if problem.y_strides[3] != 1:
        return False
    if replace(problem.epilogue, residual=None) == Epilogue():
        return True
    return problem.epilogue.residual is None and not has_gaps(problem)


def dense_phases(phases: Sequence[Phase]) -> tuple[tuple[Problem, int], ...]:
    """Each phase with an output of its own, without a residual, and where that starts."""
    parts: list[tuple[Problem, int]] = []
    start = 0
    for phase in phases:
        epilogue = replace(phase.problem.epilogue, residual=None)
        strides = dense_strides(phase.problem.y_shape)
        part = replace(phase.problem, y_strides=strides, epilogue=epilogue)
        parts.append((part, start))
        start += round_up(math.prod(part.y_shape), 16)
    return tuple(parts)


def interleave_in_slices(
    build: Callable[[TransposedProblem], Plan],
    problem: TransposedProblem,
    target: Target,
) -> Plan:
    """``build(slice)``, the phases `dense_phases` of some images, then interleaved; all slices.

    All slices have equally many images, so that one format of weights serves them; the last moves
    back so as to end with the batch, and interleaves what those before have not.
    """
    images = slice_images(problem.batch, math.prod(problem.y_shape[1:]), target)
    part = replace(problem, batch=images)
    plan, phases = build(part), transposed_phases(part)
    last, start = dense_phases(phases)[-1]
    floats = start + round_up(math.prod(last.y_shape), 16)
    y_n = problem.y_strides[0]
    steps = {"x": problem.x_strides[0], "y": y_n, "residual": y_n}
    stages: list[Stage] = []
    for number in range(0, problem.batch, images):
        first = min(number, problem.batch - images)
        stage = _stage(part, phases, number - first)
        joined = Plan("", (stage,), WeightFormat((), 0, ()), 0, plan.threads, "")
        chained = chain_plans(plan, joined, FLOAT_BYTES * floats)
        offsets = {slot: FLOAT_BYTES * first * step for slot, step in steps.items()}
        stages += [shifted(stage, offsets) for stage in chained.stages]
    return replace(chained, stages=tuple(stages), detail=f"{plan.detail}, phases interleaved")


def _stage(problem: TransposedProblem, phases: Sequence[Phase], skipped: int) -> Stage:
    """Interleave all images of ``problem`` but the first ``skipped``."""
    from nnpack.kernels.interleave import Interleave

    batch, channels, height, width = problem.y_shape
    y_n, y_c, y_h, _ = problem.y_strides
    sh, sw = problem.stride
    places = {}
    for phase, (_, start) in zip(phases, dense_phases(phases), strict=True):
        row, column = divmod(phase.y_offset, y_h)
        places[row, column] = start
    known = tuple(tuple((p, q) in places for q in range(sw)) for p in range(sh))
    kernel = Interleave(known, problem.epilogue.residual is not None)
    words: dict[str, Argument] = {
        "x": Slot("x"),
        "y": Slot("y"),
        **({"residual": Slot("residual")} if kernel.residual else {}),
        "skipped": skipped * channels,
        "channels": channels,
        "height": height,
        "width": width,
        "y_n": y_n,
        "y_c": y_c,
        "y_h": y_h,
        **{f"phase_{p}_{q}": start for (p, q), start in places.items()},
    }
    return Stage(kernel, (batch - skipped) * channels, words)
