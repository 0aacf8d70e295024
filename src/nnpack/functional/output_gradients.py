"""Gradients in a convolution's sums, before activation and bias, in the bias and in slopes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import SupportsIndex, overload

import numpy as np

from nnpack.algorithms.output_gradient import plan_output_gradient
from nnpack.arguments import as_axis, as_shape
from nnpack.arrays import Float32Array, as_float32, element_strides
from nnpack.epilogue import Activation, ChannelSlopes, Prelu, activation_arrays, check_slopes
from nnpack.errors import ProblemError
from nnpack.frozen import dataclass
from nnpack.functional.gradient_arguments import check_gradient, gradient_output
from nnpack.functional.running import run_planned
from nnpack.output_gradient_problem import (
    OutputGradientProblem,
    SingleActivation,
    check_activation,
)
from nnpack.problem import RowStrides, dense_strides
from nnpack.runtime.memory import empty_output
from nnpack.settings import resolve_num_threads

__all__ = [
    "Masking",
    "conv2d_bias_gradient",
    "conv2d_output_gradient",
    "dense_planes",
    "masking_of",
    "prelu_gradient",
]


@overload
def conv2d_output_gradient(
    grad_output: object,
    activation: Prelu,
    output: object,
    *,
    threads: SupportsIndex | None = None,
    out: Float32Array | None = None,
) -> tuple[Float32Array, Float32Array, Float32Array]: ...


@overload
def conv2d_output_gradient(
    grad_output: object,
    activation: SingleActivation,
    output: object,
    *,
    threads: SupportsIndex | None = None,
    out: Float32Array | None = None,
) -> tuple[Float32Array, Float32Array]: ...


def conv2d_output_gradient(
    grad_output: object,
    activation: Activation,
    output: object,
    *,
    threads: SupportsIndex | None = None,
    out: Float32Array | None = None,
) -> tuple[Float32Array, ...]:
    """The gradients in the sums of a convolution and in its bias, behind its activation.

    ``output`` (N, O, H, W) is what `conv2d` with ``activation`` gave, ``grad_output`` the gradient
    in it: returns ``grad_output * activation'(output)``, for `conv2d_input_gradient` and
    `conv2d_weight_gradient` of the same layer, and its sum (O,), in one pass over memory. Behind a
    `Prelu` there is a third, the gradient in its slopes (O,), which must all be greater than 0.
    Where the activation has a corner its derivative is that from the left; a NaN in ``output`` lets
    the gradient through. The gradient of a residual added before the activation is the first of
    them as well.

    Raises ProblemError or DtypeError for malformed arguments, and when the output does not tell
    the derivative (those of Relu, Prelu, Elu, Clip, Sigmoid and Tanh do, but for negative
    parameters).
    """
    grad = as_float32("grad_output", grad_output, 4)
    masking = masking_of(grad, activation, output)
    masked = gradient_output(grad.shape, out, False, masking.given)
    sums = {"sums": empty_output((grad.shape[1],))}
    if not isinstance(activation, Prelu):
        _run(masking, {"masked": masked, **sums}, False, threads)
        return masked, sums["sums"]
    if not all(slope > 0 for slope in activation.slope):
        raise ProblemError(
            f"activation={activation!r} must have slopes greater than 0, for what is multiplied by "
            "0 does not tell the slope's gradient; take prelu_gradient of the sums"
        )
    sums["falls"] = empty_output((grad.shape[1],))
    _run(masking, {"masked": masked, **sums}, False, threads)
    # Where x < 0 it is output / slope.
    np.divide(sums["falls"], activation.array, out=sums["falls"])
    return masked, sums["sums"], sums["falls"]


def prelu_gradient(
    grad_output: object,
    x: object,
    slope: object,
    *,
    axis: SupportsIndex = 1,
    threads: SupportsIndex | None = None,
    out: Float32Array | None = None,
) -> tuple[Float32Array, Float32Array]:
    """The gradients of `prelu` in x and in its slopes (x.shape[axis],), in one pass.

    ``grad_output`` is the gradient in ``prelu(x, slope)``. The slopes may be of any sign, as they
    are told from x. ``out`` is for the gradient in x.

    Raises ProblemError or DtypeError for malformed arguments, before anything is written.
    """
    x, grad = as_float32("x", x), as_float32("grad_output", grad_output)
    check_gradient("grad_output", grad, x.shape)
    place, activation = as_axis("axis", axis, x.ndim), Prelu(slope)
    channels = x.shape[place]
    check_slopes(activation, channels)
    given = {"grad_output": grad, "x": x}
    result, falls = gradient_output(x.shape, out, False, given), empty_output((channels,))
    before = int(np.prod(x.shape[:place]))
    shape = before, channels, int(np.prod(x.shape[place + 1 :])), 1
    dense = [np.ascontiguousarray(array).reshape(shape) for array in (grad, x)]
    masking = Masking(dense[0], ChannelSlopes(), dense[1], activation_arrays(activation))
    _run(masking, {"masked": result.reshape(shape), "falls": falls}, False, threads)
    return result, falls


def conv2d_bias_gradient(
    grad_output: object,
    *,
    activation: Activation | None = None,
    output: object = None,
    threads: SupportsIndex | None = None,
    out: Float32Array | None = None,
    accumulate: bool = False,
) -> Float32Array:
    """The gradient of `conv2d` in its bias: ``grad_output`` (N, O, H, W) summed to (O,).

    With ``activation`` and what it gave, ``output``, the gradient is first multiplied by the
    activation's derivative. With ``accumulate`` the sums are added to ``out``, which must then be
    given. It is that of `conv_transpose2d` as well.

    Raises ProblemError or DtypeError for malformed arguments.
    """
    grad = as_float32("grad_output", grad_output, 4)
    masking = masking_of(grad, activation, output)
    as_shape("grad_output", grad.shape, ("N", "O", "H", "W"))
    sums = gradient_output((grad.shape[1],), out, accumulate, masking.given)
    _run(masking, {"sums": sums}, accumulate, threads)
    return sums


@dataclass(frozen=True)
class Masking:
    """A gradient, and the activation and output it is behind, if it is behind any; checked."""

    grad: Float32Array
    activation: SingleActivation | ChannelSlopes | None
    output: Float32Array | None
    slopes: Mapping[str, Float32Array]

    @property
    def given(self) -> dict[str, Float32Array]:
        """What the user gave, under the names of the arguments."""
        output = {} if self.output is None else {"output": self.output}
        return {"grad_output": self.grad, **output}

    def read_as(
        self, slot: str
    ) -> tuple[OutputGradientProblem | None, dict[str, Float32Array], RowStrides]:
        """How another gradient reads this one: as ``slot``, or masked, where that is to be done.

        The strides are those of the slot; what is masked is dense.
        """
        if self.activation is None:
            return None, {slot: self.grad}, element_strides(self.grad)
        problem, arrays = self.stated({"masked": None})
        return problem, arrays, dense_strides(self.grad.shape)[:3]

    def stated(
        self, wanted: Mapping[str, object], accumulate: bool = False
    ) -> tuple[OutputGradientProblem, dict[str, Float32Array]]:
        """The problem, of ``wanted`` results, and the arrays it reads, by slot."""
        arrays = {name: dense_planes(array) for name, array in self.given.items()}
        strides = {name: element_strides(array)[:2] for name, array in arrays.items()}
        problem = OutputGradientProblem(
            shape=self.grad.shape,
            activation=self.activation,
            grad_strides=strides["grad_output"],
            output_strides=strides.get("output", (0, 0)),
            masked="masked" in wanted,
            sums="sums" in wanted,
            falls="falls" in wanted,
            accumulate=accumulate,
        )
        return problem, arrays | dict(self.slopes)


def masking_of(grad: Float32Array, activation: Activation | None, output: object) -> Masking:
    """The activation that ``grad`` is behind, told from ``output``; None where there is neither.

    Raises ProblemError or DtypeError when they do not go together.
    """
    y = None if output is None else as_float32("output", output, 4)
    known = check_activation(activation, None if y is None else y.shape)
    if y is not None:
        check_gradient("output", y, grad.shape)
    described = ChannelSlopes() if isinstance(known, Prelu) else known
    return Masking(grad, described, y, activation_arrays(known))


def dense_planes(array: Float32Array) -> Float32Array:
    """``array``, copied unless the pixels of each of its planes are consecutive."""
    _, _, height, width = array.shape
    item = array.itemsize
    rows = height == 1 or array.strides[2] == width * item
    columns = width == 1 or array.strides[3] == item
    return array if rows and columns else np.ascontiguousarray(array)


def _run(
    masking: Masking,
    results: Mapping[str, Float32Array],
    accumulate: bool,
    threads: SupportsIndex | None,
) -> None:
    count = resolve_num_threads(threads)
    if masking.grad.size == 0:
        for name in ("sums", "falls"):
            if name in results and not accumulate:
                results[name].fill(0.0)
        return
    problem, arrays = masking.stated(results, accumulate)
    run_planned(plan_output_gradient, problem, {**arrays, **results}, count)
