"""What the algorithms for weight gradients are, and share."""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

from nnpack.algorithms.base import FLOAT_BYTES, Estimate, ceil_div
from nnpack.codegen.target import Target
from nnpack.gradient_problem import WeightGradientProblem
from nnpack.plan import Argument, Plan, Slot, WeightFormat
from nnpack.problem import ActivationKind

TASKS_PER_THREAD = 4

NO_WEIGHTS = WeightFormat((), 0, ())


class WeightGradientAlgorithm(Protocol):
    """One way to compute weight gradients; as `algorithms.base.Algorithm`."""

    @property
    def name(self) -> str:
        """What ``algorithm=`` calls it."""

    def refusal(self, problem: WeightGradientProblem, target: Target) -> str | None:
        """Why it cannot do ``problem`` ("needs ..., got ..."), or None when it can."""

    def estimate(self, problem: WeightGradientProblem, target: Target) -> Estimate:
        """What it costs; must not depend on the number of threads, nor may what is computed."""

    def build(self, problem: WeightGradientProblem, target: Target, threads: int) -> Plan:
        """The plan for at most ``threads`` threads; slots x, grad and y (the gradient)."""


@runtime_checkable
class MergingGradient(Protocol):
    """An algorithm that can mask the gradient where it loads it."""

    def merges_activation(self, problem: WeightGradientProblem, target: Target) -> bool:
        """Whether it does so for ``problem``, which it does not refuse."""


def merged_activation(problem: WeightGradientProblem) -> ActivationKind | None:
    """The activation that the gradient is behind, for kernels that mask what they load."""
    masking = problem.masking
    return None if masking is None or masking.activation is None else masking.activation.kind


def masked_load_words(problem: WeightGradientProblem, channel: int) -> dict[str, Argument]:
    """The words of `kernels.masked_load`; ``channel`` is the first of the gradient that is read."""
    masking = problem.masking
    if masking is None or masking.activation is None:
        return {}
    from nnpack.kernels.activations import ACTIVATIONS

    names = ACTIVATIONS[masking.activation.kind].parameters
    output = Slot("output", FLOAT_BYTES * channel * problem.grad_strides[1])
    return {"output": output, **dict(zip(names, masking.activation.parameters, strict=True))}


def gradient_arguments(problem: WeightGradientProblem) -> dict[str, Argument]:
    """The words of x, of the gradient and of the convolution."""
    forward = problem.forward
    x_n, x_c, x_h = problem.x_strides
    return {
        "x": Slot("x"),
        "x_n": x_n,
        "x_c": x_c,
        "x_h": x_h,
        "grad": Slot("grad"),
        "grad_n": problem.grad_strides[0],
        "grad_c": problem.grad_strides[1],
        "groups": forward.groups,
        "channels": forward.group_in_channels,
        "group_out_channels": forward.group_out_channels,
        "height": forward.height,
        "width": forward.width,
        "out_height": forward.out_height,
        "out_width": forward.out_width,
        "kernel_h": forward.kernel[0],
        "kernel_w": forward.kernel[1],
        "taps": forward.kernel[0] * forward.kernel[1],
        "stride_h": forward.stride[0],
        "stride_w": forward.stride[1],
        "dilation_h": forward.dilation[0],
        "dilation_w": forward.dilation[1],
        "pad_top": forward.padding[0],
        "pad_left": forward.padding[2],
    }


def product_arguments(problem: WeightGradientProblem) -> dict[str, Argument]:
    """`gradient_arguments`; the images of a dense pointwise convolution are one row each."""
    words = gradient_arguments(problem)
    if _is_flat(problem):
        words |= {"height": 1, "width": problem.pixels}
        words |= {"out_height": 1, "out_width": problem.pixels}
    return words


def _is_flat(problem: WeightGradientProblem) -> bool:
    """Whether outputs see the pixels of x in the order in which both stand."""
    forward = problem.forward
    pointwise = forward.kernel == (1, 1) == forward.stride and not any(forward.padding)
    return pointwise and problem.x_strides[2] == forward.width


def packing_cycles(problem: WeightGradientProblem, mr: int, lanes: int) -> float:
    """Cycles in which the patches of a group are copied into panels of ``mr`` rows."""
    forward = problem.forward
    runs = forward.batch * (1 if _is_flat(problem) else forward.out_height)
    copies = problem.depth / lanes + runs / 2
    return problem.rows * (3.0 * forward.stride[1] * copies + 10 * runs / mr)


def waiting_seconds(
    problem: WeightGradientProblem, packing: float, first_products: float, target: Target
) -> float:
    """Seconds that memory takes beyond what reads it: packing x, and the first rows' products.

    Whatever the size: between a forward and a backward pass there is much else in the caches.
    """
    forward, bandwidth = problem.forward, target.rates.memory_bandwidth
    x_bytes = FLOAT_BYTES * math.prod(forward.x_shape)
    grad_bytes = FLOAT_BYTES * math.prod(forward.y_shape)
    # Gradients are asked for a block ahead, which hides half of the rest (Zen 4).
    waiting = max(0.0, grad_bytes / bandwidth - first_products) / 2
    return max(0.0, x_bytes / bandwidth - packing) + waiting


def share_rows(row_panels: int, tasks: int, threads: int) -> tuple[int, int]:
    """Row panels of a task, and how many tasks they make of each of ``tasks``.

    As few as give all threads enough to do, for each reads the gradients anew.
    """
    parts = 1
    if threads > 1 and tasks < TASKS_PER_THREAD * threads and tasks % threads != 0:
        parts = min(row_panels, ceil_div(TASKS_PER_THREAD * threads, tasks))
    task_panels = ceil_div(row_panels, parts)
    return task_panels, ceil_div(row_panels, task_panels)
