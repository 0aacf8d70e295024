"""The gradient behind an activation, element by element."""

from __future__ import annotations

from nnpack.algorithms.base import ceil_div
from nnpack.algorithms.elementary import TASK_FLOATS, simple_plan
from nnpack.codegen.target import Target
from nnpack.elementwise_problem import ActivationGradientProblem
from nnpack.epilogue import Prelu
from nnpack.plan import Plan, Slot, Stage

__all__ = ["plan_activation_gradient"]


def plan_activation_gradient(
    problem: ActivationGradientProblem, _target: Target, threads: int
) -> Plan:
    """Slots x, grad and y."""
    from nnpack.kernels.activations import ACTIVATIONS
    from nnpack.kernels.derivatives import ActivationGradient

    activation, count = problem.activation, problem.count
    assert not isinstance(activation, Prelu)
    numbers = zip(ACTIVATIONS[activation.kind].parameters, activation.parameters, strict=True)
    words = {name: Slot(name) for name in ("x", "grad", "y")}
    extents = {"count": count, "block": TASK_FLOATS}
    stage = Stage(
        ActivationGradient(activation.kind),
        ceil_div(count, TASK_FLOATS),
        {**words, **extents, **dict(numbers)},
    )
    return simple_plan("activation_gradient", (stage,), threads)
