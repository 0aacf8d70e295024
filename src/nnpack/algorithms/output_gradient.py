"""Plans of gradients behind an activation: alone, or before a gradient that reads them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

from nnpack.algorithms.base import FLOAT_BYTES, ceil_div
from nnpack.algorithms.elementary import simple_plan
from nnpack.codegen.target import Target
from nnpack.frozen import replace
from nnpack.output_gradient_problem import OutputGradientProblem
from nnpack.plan import Argument, Plan, Slot, Stage, WeightFormat, aligned, in_workspace, shifted
from nnpack.problem import dense_strides


def input_block_bytes(target: Target) -> int:
    """Of a block of what is masked for an input gradient: it is read again from the L2 cache.

    Over ResNet's 3x3 layers at batch 16 (Zen 4, one core) that adds 3 to 5 % to the time of a
    gradient, to 1x1 64->256 @56 22 %, to 3x3/2 -17 %; blocks of 8 MiB add 7 to 16 % and 30, a pass
    over all images 4 to 21 % and 51.
    """
    return target.caches.l2


def weight_block_bytes(target: Target) -> int:
    """Of a block for a weight gradient, which is finished for each, so that there are to be few."""
    return target.caches.l3 // 4


def plan_output_gradient(problem: OutputGradientProblem, _: Target, threads: int) -> Plan:
    """One stage over the channels; slots grad_output, output, slopes, masked, sums and falls."""
    return simple_plan("output_gradient", (_stage(problem),), threads)


def _stage(problem: OutputGradientProblem) -> Stage:
    from nnpack.kernels.activations import ACTIVATIONS
    from nnpack.kernels.output_gradient import PIECE, OutputGradient

    batch, channels, height, width = problem.shape
    activation = problem.activation
    kind = None if activation is None else activation.kind
    numbers: Mapping[str, float] = {}
    if activation is not None and kind is not None:
        numbers = dict(zip(ACTIVATIONS[kind].parameters, activation.parameters, strict=True))
    wanted = problem.masked, problem.sums, problem.falls
    y_n, y_c = dense_strides(problem.shape)[:2]
    words: dict[str, Argument] = {
        **{name: Slot(name) for name in ("output", "slopes", "masked", "sums", "falls")},
        "grad": Slot("grad_output"),
        "batch": batch,
        "pixels": height * width,
        "grad_n": problem.grad_strides[0],
        "grad_c": problem.grad_strides[1],
        "output_n": problem.output_strides[0],
        "output_c": problem.output_strides[1],
        "y_n": y_n,
        "y_c": y_c,
        **numbers,
    }
    kernel = OutputGradient(kind, *wanted, problem.accumulate, height * width > PIECE)
    return Stage(kernel, channels, words)


def plan_masked(
    problem: OutputGradientProblem,
    plan_of: Callable[[int, int], Plan],
    slot: str,
    strides: Mapping[str, int],
    block_bytes: int,
) -> Plan:
    """The plan of a gradient that reads what ``problem`` masks, some images at a time.

    ``plan_of(first, images)`` reads them, dense, in ``slot``; ``strides`` are bytes from one image
    to the next of its other slots. What is masked so lies in the workspace, ``block_bytes`` of it
    or one image: in cache, so that nothing but the gradient and the output behind it comes from
    memory, and nothing but the result goes there.
    """
    blocks = [
        (first, images, plan_of(first, images)) for first, images in _blocks(problem, block_bytes)
    ]
    plans = [plan for _, _, plan in blocks]
    start = aligned(max(plan.workspace_bytes for plan in plans))
    packed, packing = _pack_once(plans)
    stages: list[Stage] = []
    for first, images, plan in blocks:
        block = replace(problem, shape=(images, *problem.shape[1:]))
        moves = {
            "grad_output": FLOAT_BYTES * first * problem.grad_strides[0],
            "output": FLOAT_BYTES * first * problem.output_strides[0],
        }
        stages.append(in_workspace(shifted(_stage(block), moves), "masked", start))
        moves = {name: first * nbytes for name, nbytes in strides.items()}
        moves["packed"] = packed[plan.weight_format]
        for stage in plan.stages:
            stages.append(shifted(in_workspace(stage, slot, start), moves))
    largest = max(images for _, images, _ in blocks) * math.prod(problem.shape[1:])
    return replace(
        plans[0],
        stages=tuple(stages),
        weight_format=packing,
        workspace_bytes=start + FLOAT_BYTES * largest,
    )


def _blocks(problem: OutputGradientProblem, block_bytes: int) -> Iterator[tuple[int, int]]:
    """The first image of each block and how many there are: as even as can be."""
    batch, *extents = problem.shape
    image_bytes = FLOAT_BYTES * math.prod(extents)
    most = max(1, block_bytes // image_bytes)
    count = ceil_div(batch, most)
    for n in range(count):
        first = batch * n // count
        yield first, batch * (n + 1) // count - first


def _pack_once(plans: list[Plan]) -> tuple[dict[WeightFormat, int], WeightFormat]:
    """Where each format of the plans stands among the packed weights, and all of them as one."""
    places: dict[WeightFormat, int] = {}
    stages: list[Stage] = []
    nbytes = 0
    for form in (plan.weight_format for plan in plans):
        if form not in places:
            places[form] = nbytes
            stages += [shifted(stage, {"packed": nbytes}) for stage in form.stages]
            nbytes += aligned(form.nbytes)
    if len(places) == 1:
        return places, plans[0].weight_format
    return places, WeightFormat(
        tuple(places), nbytes, tuple(stages), plans[0].weight_format.storage
    )
