"""The plan of gradients behind an activation: one stage over the channels."""

from __future__ import annotations

from nnpack.algorithms.weight_gradient_base import NO_WEIGHTS
from nnpack.codegen.target import Target
from nnpack.output_gradient_problem import OutputGradientProblem
from nnpack.plan import Argument, Plan, Slot, Stage
from nnpack.problem import dense_strides


def plan_output_gradient(problem: OutputGradientProblem, _: Target, threads: int) -> Plan:
    """Slots grad, output, masked and sums, those that the problem has."""
    from nnpack.kernels.output_gradient import OutputGradient

    batch, channels, height, width = problem.shape
    activation = problem.activation
    kind = None if activation is None else activation.kind
    kernel = OutputGradient(kind, problem.masked, problem.sums, problem.accumulate)
    y_n, y_c = dense_strides(problem.shape)[:2]
    names = [name for name, kind in kernel.fields.items() if kind == "float"]
    numbers = activation.parameters if activation else ()
    words: dict[str, Argument] = {
        **{name: Slot(name) for name in ("grad", "output", "masked", "sums")},
        "batch": batch,
        "pixels": height * width,
        "grad_n": problem.grad_strides[0],
        "grad_c": problem.grad_strides[1],
        "output_n": problem.output_strides[0],
        "output_c": problem.output_strides[1],
        "y_n": y_n,
        "y_c": y_c,
        **dict(zip(names, numbers, strict=True)),
    }
    return Plan("direct", (Stage(kernel, channels, words),), NO_WEIGHTS, 0, threads, "")
