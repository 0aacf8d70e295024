"""Gradients behind an activation and in the bias, and their place in the other gradients."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nnpack
from nnpack.algorithms.output_gradient import plan_output_gradient
from nnpack.codegen.target import Target
from nnpack.execution import Program
from nnpack.output_gradient_problem import OutputGradientProblem, SingleActivation
from nnpack.problem import dense_strides
from nnpack.runtime.memory import address
from tests.guard import guarded_array, guarded_copy
from tests.native import TARGETS, name_of
from tests.plans import all_survive
from tests.problems import laid_out

Float32Array = npt.NDArray[np.float32]

ACTIVATIONS: tuple[SingleActivation, ...] = (
    nnpack.Relu(),
    nnpack.Relu(slope=0.2),
    nnpack.Elu(),
    nnpack.Elu(alpha=0.3),
    nnpack.Clip(-0.5, 1.0),
    nnpack.Clip(0, math.inf),
    nnpack.Sigmoid(),
    nnpack.Tanh(),
)
SHAPES = st.tuples(
    st.integers(0, 3), st.integers(1, 5), st.integers(1, 9), st.sampled_from([1, 3, 16, 17, 40])
)
LAYOUTS = st.sampled_from(["dense", "channels last", "crop", "flipped", "channel slice"])


def _expected(grad: Float32Array, activation: Any, y: Float32Array) -> npt.NDArray[np.float64]:
    wide = grad.astype(np.float64)
    match activation:
        case nnpack.Relu(slope=slope):
            return np.where(y > 0, wide, np.float32(slope) * wide)
        case nnpack.Elu(alpha=alpha):
            return np.where(y > 0, wide, wide * (y.astype(np.float64) + np.float32(alpha)))
        case nnpack.Clip(low=low, high=high):
            return np.where((y > low) & (y < high), wide, 0.0)
        case nnpack.Sigmoid():
            return wide * y.astype(np.float64) * (1 - y.astype(np.float64))
        case nnpack.Tanh():
            return wide * (1 - y.astype(np.float64) ** 2)
    raise AssertionError(activation)


def _operands(shape: tuple[int, ...], activation: Any) -> tuple[Float32Array, Float32Array]:
    """A gradient and an output of the activation, its bounds among the numbers."""
    rng = np.random.default_rng(math.prod(shape))
    grad, y = rng.standard_normal((2, *shape), dtype=np.float32)
    y[rng.random(shape) < 0.2] = 0
    if isinstance(activation, nnpack.Clip):
        y = np.clip(y, activation.low, activation.high)
    if isinstance(activation, nnpack.Sigmoid | nnpack.Tanh):
        y = np.tanh(np.abs(y) if isinstance(activation, nnpack.Sigmoid) else y)
    return grad, y


@given(shape=SHAPES, activation=st.sampled_from(ACTIVATIONS), layouts=st.tuples(LAYOUTS, LAYOUTS))
def test_gradients_are_masked_and_summed(
    shape: tuple[int, ...], activation: SingleActivation, layouts: tuple[str, str]
) -> None:
    grad, y = _operands(shape, activation)
    expected = _expected(grad, activation, y)
    views = [laid_out(a, layout) for a, layout in zip((grad, y), layouts, strict=True)]
    masked, bias = nnpack.conv2d_output_gradient(views[0], activation, views[1])
    np.testing.assert_allclose(masked, expected, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(bias, expected.sum(axis=(0, 2, 3)), rtol=1e-4, atol=1e-4)
    alone = nnpack.conv2d_bias_gradient(views[0], activation=activation, output=views[1])
    np.testing.assert_array_equal(alone, bias)
    plain = nnpack.conv2d_bias_gradient(views[0])
    sums = grad.sum(axis=(0, 2, 3), dtype=np.float64)
    np.testing.assert_allclose(plain, sums, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("target", TARGETS, ids=name_of)
@pytest.mark.parametrize("activation", [None, *ACTIVATIONS], ids=str)
def test_nothing_beyond_the_arguments_is_touched(
    target: Target, activation: SingleActivation | None
) -> None:
    shape = (2, 3, 5, 13)
    grad, y = _operands(shape, activation)
    strides = dense_strides(shape)[:2]
    problem = OutputGradientProblem(
        shape=shape,
        activation=activation,
        grad_strides=strides,
        output_strides=strides,
        masked=True,
        sums=True,
        accumulate=True,
    )
    program = Program(plan_output_gradient(problem, target, 2).stages, target, 2, 0)
    expected = grad if activation is None else _expected(grad, activation, y)

    def check(side: Any) -> None:
        arrays = {"grad_output": guarded_copy(grad, side), "output": guarded_copy(y, side)}
        arrays |= {"masked": guarded_array(shape, side), "sums": guarded_array(3, side)}
        arrays["sums"][...] = 7
        program.run({name: address(array) for name, array in arrays.items()})
        np.testing.assert_allclose(arrays["masked"], expected, rtol=1e-6, atol=1e-7)
        sums = expected.sum(axis=(0, 2, 3)) + 7
        np.testing.assert_allclose(arrays["sums"], sums, rtol=1e-4, atol=1e-4)

    assert all_survive([partial(check, "before"), partial(check, "after")])


def test_results_are_the_same_for_any_number_of_threads() -> None:
    grad, y = _operands((5, 19, 23, 29), nnpack.Elu())
    one, *others = (
        nnpack.conv2d_output_gradient(grad, nnpack.Elu(), y, threads=threads)
        for threads in (1, 2, 5)
    )
    for other in others:
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_other_gradients_mask_as_well(activation: SingleActivation) -> None:
    rng = np.random.default_rng(2)
    x, weight = rng.standard_normal((2, 6, 9, 8), np.float32), rng.random((4, 6, 3, 3), np.float32)
    y = nnpack.conv2d(x, weight, padding=1, stride=2, activation=activation)
    grad = rng.standard_normal(y.shape, dtype=np.float32)
    masked, _ = nnpack.conv2d_output_gradient(grad, activation, y)
    behind: dict[str, Any] = {"activation": activation, "output": y}
    words: dict[str, Any] = {"padding": 1, "stride": 2}
    np.testing.assert_array_equal(
        nnpack.conv2d_input_gradient(grad, weight, x.shape, **words, **behind),
        nnpack.conv2d_input_gradient(masked, weight, x.shape, **words),
    )
    np.testing.assert_array_equal(
        nnpack.conv2d_weight_gradient(x, grad, weight.shape, **words, **behind),
        nnpack.conv2d_weight_gradient(x, masked, weight.shape, **words),
    )


def test_transposed_convolutions_mask_as_well() -> None:
    rng = np.random.default_rng(2)
    x, weight = rng.standard_normal((2, 4, 5, 6), np.float32), rng.random((4, 3, 3, 3), np.float32)
    y = nnpack.conv_transpose2d(x, weight, stride=2, activation=nnpack.Relu())
    grad = rng.standard_normal(y.shape, dtype=np.float32)
    masked = np.where(y > 0, grad, 0).astype(np.float32)
    behind: dict[str, Any] = {"activation": nnpack.Relu(), "output": y}
    np.testing.assert_array_equal(
        nnpack.conv_transpose2d_input_gradient(grad, weight, x.shape, stride=2, **behind),
        nnpack.conv_transpose2d_input_gradient(masked, weight, x.shape, stride=2),
    )
    np.testing.assert_array_equal(
        nnpack.conv_transpose2d_weight_gradient(x, grad, weight.shape, stride=2, **behind),
        nnpack.conv_transpose2d_weight_gradient(x, masked, weight.shape, stride=2),
    )


def test_a_nan_lets_the_gradient_through() -> None:
    grad, y = np.ones((1, 1, 1, 2), np.float32), np.full((1, 1, 1, 2), np.nan, np.float32)
    for activation in ACTIVATIONS[:6]:
        masked, _ = nnpack.conv2d_output_gradient(grad, activation, y)
        np.testing.assert_array_equal(masked, grad)


def test_the_gradient_of_the_bias_accumulates() -> None:
    grad = np.ones((2, 3, 4, 5), np.float32)
    out = np.full(3, 2, np.float32)
    assert nnpack.conv2d_bias_gradient(grad, out=out, accumulate=True) is out
    np.testing.assert_array_equal(out, np.full(3, 42))
    nnpack.conv2d_bias_gradient(grad[:0], out=out, accumulate=True)
    np.testing.assert_array_equal(out, np.full(3, 42))
    np.testing.assert_array_equal(nnpack.conv2d_bias_gradient(grad[:0]), np.zeros(3))


GRAD = np.ones((1, 2, 3, 4), np.float32)
BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"activation": nnpack.Relu()}, nnpack.ProblemError, "needs output="),
    ({"output": GRAD}, nnpack.ProblemError, "needs activation="),
    ({"activation": nnpack.Relu, "output": GRAD}, nnpack.DtypeError, "an instance"),
    ({"activation": nnpack.Relu(-1), "output": GRAD}, nnpack.ProblemError, "does not tell"),
    ({"activation": nnpack.Elu(-1), "output": GRAD}, nnpack.ProblemError, "does not tell"),
    ({"activation": nnpack.Gelu(), "output": GRAD}, nnpack.DtypeError, "an instance"),
    ({"activation": nnpack.Relu(), "output": GRAD[:, :1]}, nnpack.ProblemError, "output.shape"),
    ({"grad_output": GRAD[0]}, nnpack.ProblemError, "4 dimensions"),
    ({"grad_output": GRAD.astype(float)}, nnpack.DtypeError, "float64"),
    ({"accumulate": True}, nnpack.ProblemError, "needs out="),
    ({"out": np.zeros(3, np.float32)}, nnpack.ProblemError, "out.shape"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD)
def test_malformed_arguments_are_one_error(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        nnpack.conv2d_bias_gradient(**({"grad_output": GRAD} | change))


SLOPES = np.array([0.25, 1.5, 0.01], np.float32)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gradients_of_a_prelu(axis: int) -> None:
    rng = np.random.default_rng(2)
    x, grad = np.moveaxis(rng.standard_normal((2, 4, 19, 3), np.float32), 3, axis % 3 + 1)
    slope = np.array([0.25, -1.5, 0], np.float32)
    shape = np.ones(3, int)
    shape[axis] = 3
    wide = slope.reshape(shape).astype(np.float64)
    found = nnpack.prelu_gradient(grad, x, slope, axis=axis)
    np.testing.assert_allclose(found[0], np.where(x > 0, grad, wide * grad), rtol=1e-6)
    others = tuple(n for n in range(3) if n != axis % 3)
    falls = (grad.astype(np.float64) * np.minimum(x, 0)).sum(axis=others)
    np.testing.assert_allclose(found[1], falls, rtol=1e-4, atol=1e-4)


def test_a_prelu_behind_a_convolution() -> None:
    rng = np.random.default_rng(3)
    x, weight = rng.standard_normal((2, 6, 9, 8), np.float32), rng.random((3, 6, 3, 3), np.float32)
    prelu = nnpack.Prelu(SLOPES)
    sums = nnpack.conv2d(x, weight - 0.5)
    y = nnpack.conv2d(x, weight - 0.5, activation=prelu)
    grad = rng.standard_normal(y.shape, dtype=np.float32)
    masked, bias, slopes = nnpack.conv2d_output_gradient(grad, prelu, y)
    expected, falls = nnpack.prelu_gradient(grad, sums, SLOPES)
    np.testing.assert_array_equal(masked, expected)
    np.testing.assert_allclose(bias, expected.sum(axis=(0, 2, 3)), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(slopes, falls, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(
        nnpack.conv2d_input_gradient(grad, weight, x.shape, activation=prelu, output=y),
        nnpack.conv2d_input_gradient(masked, weight, x.shape),
    )
    alone = nnpack.conv2d_bias_gradient(grad, activation=prelu, output=y)
    np.testing.assert_array_equal(alone, bias)


@pytest.mark.parametrize(
    ("slopes", "message"),
    [([1, 0, 1], "greater than 0"), ([1, -1, 1], "falls on one side"), ([1, 1], "slope.shape")],
)
def test_slopes_that_the_output_does_not_tell(slopes: list[float], message: str) -> None:
    grad = np.ones((1, 3, 2, 2), np.float32)
    with pytest.raises(nnpack.ProblemError, match=message):
        nnpack.conv2d_output_gradient(grad, nnpack.Prelu(np.array(slopes, np.float32)), grad)


def test_malformed_arguments_of_a_prelu() -> None:
    grad = np.ones((1, 3, 2, 2), np.float32)
    for changed in ({"slope": SLOPES[1:]}, {"x": grad[:, :1]}, {"axis": 4}, {"out": grad}):
        words: Any = {"grad_output": grad, "x": grad, "slope": SLOPES} | changed
        with pytest.raises(nnpack.ProblemError):
            nnpack.prelu_gradient(**words)
    empty = nnpack.prelu_gradient(grad[:0], grad[:0], SLOPES)
    np.testing.assert_array_equal(empty[1], np.zeros(3))
