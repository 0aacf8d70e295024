"""Weight and bias gradients of convolutions: arguments -> problem -> plan -> one native call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import SupportsIndex

from nnpack.arguments import IntOrPair, PaddingLike
from nnpack.arrays import Float32Array, as_float32, element_strides, with_unit_column_stride
from nnpack.codegen.target import host_target
from nnpack.epilogue import Activation, Epilogue
from nnpack.explanation import Explanation
from nnpack.functional.gradient_arguments import check_gradient, gradient_output
from nnpack.functional.output_gradients import dense_planes, masking_of
from nnpack.functional.running import Planner, run_planned
from nnpack.functional.stating import stated
from nnpack.gradient_planner import explain_weight_gradient, weight_gradient_planner
from nnpack.gradient_problem import WeightGradientProblem
from nnpack.input_gradient import conv_transpose2d_transpose_of
from nnpack.problem import Accuracy, Problem, TransposedProblem, dense_strides
from nnpack.settings import resolve_num_threads

__all__ = [
    "conv2d_weight_gradient",
    "conv_transpose2d_weight_gradient",
    "explain_conv2d_weight_gradient",
    "explain_conv_transpose2d_weight_gradient",
]


def conv2d_weight_gradient(
    x: object,
    grad_output: object,
    weight_shape: Sequence[SupportsIndex],
    *,
    stride: IntOrPair = 1,
    padding: PaddingLike = 0,
    dilation: IntOrPair = 1,
    groups: SupportsIndex = 1,
    activation: Activation | None = None,
    output: object = None,
    algorithm: str = "auto",
    accuracy: Accuracy = "fast",
    threads: SupportsIndex | None = None,
    out: Float32Array | None = None,
    accumulate: bool = False,
) -> Float32Array:
    """The gradient of `conv2d` in its weights.

    (N, C, H, W), (N, O, H', W') -> (O, C/groups, kh, kw).

    ``grad_output`` is the gradient in the convolution's sums. It is summed over images and pixels
    in an order that does not depend on the threads. ``algorithm`` is auto, implicit_gemm or
    another that `explain_conv2d_weight_gradient` lists. ``activation``, ``output`` and
    ``accumulate`` are as in `conv2d_input_gradient`. No images give zeros.

    Raises as `conv2d` does.
    """
    x, grad_output = as_float32("x", x, 4), as_float32("grad_output", grad_output, 4)
    image = with_unit_column_stride(x)
    forward = stated(
        Problem.conv2d,
        x_shape=x.shape,
        weight_shape=weight_shape,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        accuracy=accuracy,
        x_strides=element_strides(image),
    )
    check_gradient("grad_output", grad_output, forward.y_shape)
    planner = weight_gradient_planner(algorithm)
    masking = masking_of(dense_planes(grad_output), activation, output)
    given = {"x": x, **masking.given, "grad_output": grad_output}
    result = gradient_output(forward.weight_shape, out, accumulate, given)
    stated_masking, arrays, strides = masking.read_as("grad")
    problem = WeightGradientProblem(
        forward=forward, grad_strides=strides[:2], accumulate=accumulate, masking=stated_masking
    )
    # Whoever masks what it loads reads the gradient itself.
    given = {"grad": arrays.get("grad_output", grad_output)} | arrays | {"x": image}
    return _run(planner, problem, given, threads, result)


def conv_transpose2d_weight_gradient(
    x: object,
    grad_output: object,
    weight_shape: Sequence[SupportsIndex],
    *,
    stride: IntOrPair = 1,
    padding: PaddingLike = 0,
    output_padding: IntOrPair = 0,
    dilation: IntOrPair = 1,
    groups: SupportsIndex = 1,
    activation: Activation | None = None,
    output: object = None,
    algorithm: str = "auto",
    accuracy: Accuracy = "fast",
    threads: SupportsIndex | None = None,
    out: Float32Array | None = None,
    accumulate: bool = False,
) -> Float32Array:
    """The gradient of `conv_transpose2d` in its weights.

    (N, I, H, W), (N, O, H', W') -> (I, O/groups, kh, kw): that of the convolution which takes
    ``grad_output`` to the shape of x. Everything else is as in `conv2d_weight_gradient`.

    Raises as `conv2d` does.
    """
    x, grad_output = as_float32("x", x, 4), as_float32("grad_output", grad_output, 4)
    transposed = stated(
        TransposedProblem.conv_transpose2d,
        x_shape=x.shape,
        weight_shape=weight_shape,
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        dilation=dilation,
        groups=groups,
        accuracy=accuracy,
    )
    check_gradient("grad_output", grad_output, transposed.y_shape)
    planner = weight_gradient_planner(algorithm)
    masking = masking_of(with_unit_column_stride(grad_output), activation, output)
    given = {"x": x, **masking.given, "grad_output": grad_output}
    result = gradient_output(transposed.weight_shape, out, accumulate, given)
    stated_masking, arrays, strides = masking.read_as("x")
    x = dense_planes(x)
    problem = WeightGradientProblem(
        forward=conv_transpose2d_transpose_of(transposed, strides, Epilogue()),
        grad_strides=element_strides(x)[:2],
        accumulate=accumulate,
        masking=stated_masking,
        masks_x=True,
    )
    return _run(planner, problem, arrays | {"grad": x}, threads, result)


def explain_conv2d_weight_gradient(
    weight_shape: Sequence[SupportsIndex],
    input_shape: Sequence[SupportsIndex],
    *,
    stride: IntOrPair = 1,
    padding: PaddingLike = 0,
    dilation: IntOrPair = 1,
    groups: SupportsIndex = 1,
    algorithm: str = "auto",
    accuracy: Accuracy = "fast",
    threads: SupportsIndex | None = None,
) -> Explanation:
    """Which algorithm `conv2d_weight_gradient` uses for arrays of these shapes, and why.

    Raises as `conv2d_weight_gradient` does.
    """
    forward = Problem.conv2d(
        input_shape,
        weight_shape,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        accuracy=accuracy,
    )
    return _explain(forward, algorithm, threads)


def explain_conv_transpose2d_weight_gradient(
    weight_shape: Sequence[SupportsIndex],
    input_shape: Sequence[SupportsIndex],
    *,
    stride: IntOrPair = 1,
    padding: PaddingLike = 0,
    output_padding: IntOrPair = 0,
    dilation: IntOrPair = 1,
    groups: SupportsIndex = 1,
    algorithm: str = "auto",
    accuracy: Accuracy = "fast",
    threads: SupportsIndex | None = None,
) -> Explanation:
    """Which algorithm `conv_transpose2d_weight_gradient` uses for arrays of these shapes, and why.

    Raises as `conv_transpose2d_weight_gradient` does.
    """
    transposed = TransposedProblem.conv_transpose2d(
        input_shape,
        weight_shape,
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        dilation=dilation,
        groups=groups,
        accuracy=accuracy,
    )
    strides = dense_strides(transposed.y_shape)[:3]
    forward = conv_transpose2d_transpose_of(transposed, strides, Epilogue())
    return _explain(forward, algorithm, threads)


def _explain(forward: Problem, algorithm: str, threads: SupportsIndex | None) -> Explanation:
    strides = dense_strides(forward.y_shape)[:2]
    problem = WeightGradientProblem(forward=forward, grad_strides=strides)
    return explain_weight_gradient(problem, algorithm, host_target(), resolve_num_threads(threads))


def _run(
    planner: Planner,
    problem: WeightGradientProblem,
    arrays: Mapping[str, Float32Array],
    threads: SupportsIndex | None,
    result: Float32Array,
) -> Float32Array:
    """The weight gradient, of what ``problem`` reads."""
    count = resolve_num_threads(threads)
    if problem.forward.is_empty:
        if not problem.accumulate:
            result.fill(0.0)
        return result
    run_planned(planner, problem, {**arrays, "y": result}, count)
    return result
