"""The gradient behind any activation."""

from __future__ import annotations

from typing import SupportsIndex

import numpy as np

from nnpack.algorithms.derivative import plan_activation_gradient
from nnpack.arrays import Float32Array, as_float32
from nnpack.elementwise_problem import ActivationGradientProblem
from nnpack.epilogue import Activation, Epilogue, Prelu
from nnpack.errors import DtypeError, ProblemError
from nnpack.functional.running import result, run_planned
from nnpack.settings import resolve_num_threads

__all__ = ["activation_gradient"]


def activation_gradient(
    grad_output: object,
    x: object,
    activation: Activation,
    *,
    threads: SupportsIndex | None = None,
    out: Float32Array | None = None,
) -> Float32Array:
    """``grad_output * f'(x)`` where ``grad_output`` is the gradient of ``f(x)``, of x's shape.

    ``activation`` is any but `Prelu`, for which there is `prelu_gradient`. At the corners of
    `Relu`, `Clip` and `HardSigmoid` the derivative is 0 (or the slope of Relu). For those that tell
    their derivative from their output see `conv2d_output_gradient`. ``out`` may be either array.

    Raises ProblemError or DtypeError for malformed arguments, before anything is written.
    """
    x, grad = as_float32("x", x), as_float32("grad_output", grad_output)
    if activation is None:
        raise DtypeError("activation=None has no derivative; pass Relu(), Elu(), ...")
    Epilogue(activation=activation)  # which refuses what is no activation
    if isinstance(activation, Prelu):
        raise ProblemError("activation=Prelu has slopes, which have gradients too: prelu_gradient")
    if grad.shape != x.shape:
        raise ProblemError(f"grad_output.shape={grad.shape} must be that of x, {x.shape}")
    inputs = {"x": x, "grad_output": grad}
    count = resolve_num_threads(threads)
    y = result(x.shape, out, inputs, in_place=True)
    if y.size:
        arrays = {"x": np.ascontiguousarray(x), "grad": np.ascontiguousarray(grad), "y": y}
        problem = ActivationGradientProblem(activation, y.size)
        run_planned(plan_activation_gradient, problem, arrays, count)
    return y
