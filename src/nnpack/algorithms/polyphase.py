"""Winograd convolution of small phase images: each is one tile, and padding is not multiplied.

Outputs ``i = d j + phase`` of a dilated convolution see inputs of one phase only: an image falls
into d * d small ones. Where the dilation is strong these have a few pixels, not all as many, and
see less of the image than there are taps. So the phases of an axis are parted into *spans* of equal
extent, and each pair of spans is a stage of its own whose tiles fit exactly: m outputs, and F(m, n)
where only n inputs, fewer than the taps, are not padding (`maths.cook_toom.bounded_cook_toom`).
With dilation 12 an axis of 28 pixels has phases of 3 and of 2: 60 products of a tap and an output
do not meet padding, of 84, and F(3, 3) and F(2, 2) take 44 multiplications.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator

from nnpack.algorithms.base import FLOAT_BYTES, Estimate, ceil_div
from nnpack.algorithms.tile_plan import (
    Blocking,
    Grid,
    choose_blocking,
    last_channels,
    tile_stages,
)
from nnpack.algorithms.winograd_plan import (
    MAX_TILE,
    winograd_detail,
    winograd_estimate,
    winograd_format,
    winograd_seconds,
    winograd_storage,
    winograd_transforms,
)
from nnpack.codegen.target import Target
from nnpack.frozen import dataclass, replace
from nnpack.kernels.transpose import BLOCK, padded_columns
from nnpack.kernels.winograd_shape import TileShape
from nnpack.plan import Argument, Plan, combine_plans
from nnpack.problem import Problem

# Kernels that one layer may compile: a pair of spans has a stage of its own.
MAX_STAGES = 9
# Vectors that are loaded before they are transformed: half of a first-level cache.
MAX_LOADED = 256


@dataclass(frozen=True)
class Span:
    """Phases ``start .. start + phases`` of an axis: ``m`` outputs each.

    Their tile sees ``inputs`` inputs from the ``first`` on; outside these all are padding.
    """

    start: int
    phases: int
    m: int
    first: int
    inputs: int

    def bounded(self, taps: int) -> tuple[int, int] | None:
        """The inputs, if they are fewer than the taps."""
        return (self.first, self.inputs) if self.inputs < taps else None


class Polyphase:
    """Winograd's algorithm with one tile for each phase of the dilation."""

    name = "polyphase"

    def refusal(self, problem: Problem, target: Target) -> str | None:
        """Strides, phases that are too large for a tile, or see nothing but padding."""
        if problem.stride != (1, 1):
            return f"needs stride 1, got {problem.stride}"
        if problem.kernel == (1, 1):
            return "needs a kernel of two taps or more, got 1x1"
        stages = 1
        for axis, taps in enumerate(problem.kernel):
            dilation = problem.dilation[axis]
            extent = (problem.out_height, problem.out_width)[axis]
            if ceil_div(extent, dilation) + taps // 2 > MAX_TILE:
                return (
                    f"needs phases that fit a tile of {MAX_TILE}, got "
                    f"{extent} outputs for dilation {dilation}"
                )
            spans = _spans(problem, axis)
            if any(span.inputs < 1 for span in spans):
                return "needs phases that see the image"
            most = max(span.m + min(taps, span.inputs) - 1 for span in spans)
            if most > MAX_TILE:
                return f"needs phases that fit a tile of {MAX_TILE}, got {most} products"
            stages *= len(spans)
        if stages > MAX_STAGES:
            return f"needs phases of at most {MAX_STAGES} extents, got {stages}"
        return None

    def shapes(self, problem: Problem, lanes: int) -> list[TileShape]:
        """The tiles of all stages."""
        return [_shape(problem, lanes, down, across) for down, across in _pairs(problem)]

    def estimate(self, problem: Problem, target: Target) -> Estimate:
        """The sum of all stages; the errors of the worst."""
        parts = []
        for down, across in _pairs(problem):
            shape = _shape(problem, target.lanes, down, across)
            blocking = _blocking(problem, target, 1, down, across)
            seconds = winograd_seconds(problem, shape, blocking, target)
            parts.append((seconds, winograd_estimate(problem, shape, blocking, target, seconds)))
        worst = max((estimate for _, estimate in parts), key=lambda e: (e.rounding, e.error))
        least = min(estimate.seconds for _, estimate in parts)
        return replace(worst, seconds=max(least, sum(seconds for seconds, _ in parts)))

    def build(self, problem: Problem, target: Target, threads: int) -> Plan:
        """A stage, or two, for each pair of spans, with transformed weights of its own."""
        _, _, y_h, y_w = problem.y_strides
        parts = []
        for down, across in _pairs(problem):
            plan = _plan(self.name, problem, target, threads, down, across)
            parts.append((plan, FLOAT_BYTES * (down.start * y_h + across.start * y_w)))
        return combine_plans(tuple(parts))


def _pairs(problem: Problem) -> Iterator[tuple[Span, Span]]:
    return itertools.product(_spans(problem, 0), _spans(problem, 1))


@functools.lru_cache(maxsize=256)
def _spans(problem: Problem, axis: int) -> tuple[Span, ...]:
    """The phases of an axis, parted where what they see changes."""
    found: list[Span] = []
    for phase in range(min(problem.dilation[axis], _outputs(problem, axis))):
        span = _phase(problem, axis, phase)
        last = found[-1] if found else None
        if last is not None and _extent(last) == _extent(span):
            found[-1] = replace(last, phases=last.phases + 1)
        else:
            found.append(span)
    return tuple(found)


def _outputs(problem: Problem, axis: int) -> int:
    return (problem.out_height, problem.out_width)[axis]


def _extent(span: Span) -> tuple[int, int, int]:
    return span.m, span.first, span.inputs


def _phase(problem: Problem, axis: int, phase: int) -> Span:
    """One phase: input u of its tile is pixel ``phase - padding + d u`` of the image."""
    dilation, taps = problem.dilation[axis], problem.kernel[axis]
    size, before = (problem.height, problem.width)[axis], problem.padding[2 * axis]
    m = ceil_div(_outputs(problem, axis) - phase, dilation)
    first = max(0, ceil_div(before - phase, dilation))
    last = min(m + taps - 1, ceil_div(size + before - phase, dilation))
    if last - first >= taps:
        return Span(phase, 1, m, 0, m + taps - 1)
    return Span(phase, 1, m, first, last - first)


def _shape(problem: Problem, lanes: int, down: Span, across: Span) -> TileShape:
    step = problem.dilation[1]
    shape = TileShape(
        (down.m, across.m),
        problem.kernel,
        column_step=1 if step == 1 else None,
        dilated=problem.dilation != (1, 1),
        scattered=problem.y_strides[3] * step != 1,
        bounded=(down.bounded(problem.kernel[0]), across.bounded(problem.kernel[1])),
    )
    if across.phases == 1:
        return shape
    room = max(BLOCK, MAX_LOADED // math.prod(shape.inputs))
    return replace(shape, neighbours=padded_columns(min(across.phases, room), lanes))


def _blocking(problem: Problem, target: Target, threads: int, down: Span, across: Span) -> Blocking:
    shape = _shape(problem, target.lanes, down, across)
    grid = Grid(
        planes=shape.frequencies,
        fold=1,
        tiles_h=1,
        tiles_w=1,
        images=problem.batch * down.phases * across.phases,
        input_blocks=ceil_div(problem.group_in_channels, target.lanes),
        last_channels=last_channels(problem.group_in_channels, target.lanes),
        storage=winograd_storage(problem, shape, target),
    )
    return choose_blocking(grid, problem, target, threads)


def _plan(
    name: str, problem: Problem, target: Target, threads: int, down: Span, across: Span
) -> Plan:
    """The plan of one pair of spans, from its first output on."""
    shape = _shape(problem, target.lanes, down, across)
    blocking = _blocking(problem, target, threads, down, across)
    words = _arguments(problem, down, across)
    transforms = winograd_transforms(problem, shape, blocking, words)
    stages, floats = tile_stages(problem, blocking, threads, transforms)
    return Plan(
        algorithm=name,
        stages=stages,
        weight_format=winograd_format(problem, shape, blocking, words),
        workspace_bytes=FLOAT_BYTES * floats,
        threads=threads,
        detail=winograd_detail(shape, blocking),
    )


def _arguments(problem: Problem, down: Span, across: Span) -> dict[str, Argument]:
    """What differs from the whole image: outputs begin with the span, inputs with its first."""
    (d_h, d_w), (top, _, left, _) = problem.dilation, problem.padding
    axes = zip((down, across), problem.kernel, strict=True)
    first_h, first_w = (span.first if span.bounded(taps) else 0 for span, taps in axes)
    return {
        "step_h": d_h,
        "step_w": d_w,
        "phases_h": down.phases,
        "phases_w": across.phases,
        "phase_blocks": 0,
        "pad_top": top - down.start - first_h * d_h,
        "pad_left": left - across.start - first_w * d_w,
        "out_height": problem.out_height - down.start,
        "out_width": problem.out_width - across.start,
    }
