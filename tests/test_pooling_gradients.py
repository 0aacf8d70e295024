"""Gradients of pools: the transpose of an average, and what belongs to a maximum."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import nnpack
from nnpack.algorithms.reshaping import plan_average_gradient, plan_max_gradient
from nnpack.execution import Program
from nnpack.pool_problem import PoolProblem
from nnpack.resampling import average_gradient_tables
from nnpack.runtime.memory import address
from tests.guard import Side, guarded_array, guarded_copy, run_guarded
from tests.native import TARGETS, name_of

Array = npt.NDArray[Any]


@st.composite
def calls(draw: st.DrawFn) -> tuple[tuple[int, ...], dict[str, Any]]:
    shape = draw(st.tuples(*(st.integers(1, n) for n in (3, 3, 17, 21))))
    kernel = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    words = {
        "kernel_size": kernel,
        "stride": draw(st.tuples(st.integers(1, 4), st.integers(1, 4))),
        "padding": padding,
        "ceil_mode": draw(st.booleans()),
    }
    for size, k, p in zip(shape[2:], kernel, padding, strict=True):
        assume(size + 2 * p >= k)
    return shape, words


def adjoint(function: Any, shape: tuple[int, ...], grad: Any) -> Array:
    """The gradient of a linear function of one plane, pixel by pixel."""
    found = np.zeros(shape)
    for row, column in np.ndindex(*shape[2:]):
        x = np.zeros((1, 1, *shape[2:]), np.float32)
        x[0, 0, row, column] = 1
        found[:, :, row, column] = (function(x) * grad.astype(np.float64)).sum((2, 3))
    return found


@given(calls(), st.booleans(), st.sampled_from([None, 3]))
def test_the_gradient_of_an_average_is_its_transpose(
    call: tuple[tuple[int, ...], dict[str, Any]], counted: bool, divisor: int | None
) -> None:
    shape, words = call
    words = {**words, "count_include_pad": counted, "divisor_override": divisor}
    y = nnpack.avg_pool2d(np.zeros(shape, np.float32), **words)
    grad = np.random.default_rng(0).standard_normal(y.shape, dtype=np.float32)
    found = nnpack.avg_pool2d_gradient(grad, shape, **words)
    expected = adjoint(lambda x: nnpack.avg_pool2d(x, **words), shape, grad)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [1, 3, 5, (2, 7), 12])
def test_adaptive_and_global_averages(size: Any) -> None:
    shape = (2, 3, 7, 10)
    y = nnpack.adaptive_avg_pool2d(np.zeros(shape, np.float32), size)
    grad = np.random.default_rng(0).standard_normal(y.shape, dtype=np.float32)
    found = nnpack.adaptive_avg_pool2d_gradient(grad, shape)
    expected = adjoint(lambda x: nnpack.adaptive_avg_pool2d(x, size), shape, grad)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def scattered(grad: Any, indices: Any, shape: tuple[int, ...]) -> Array:
    found = np.zeros((*shape[:2], shape[2] * shape[3]))
    for n, c, i, j in np.ndindex(*grad.shape):
        if indices[n, c, i, j] >= 0:
            found[n, c, indices[n, c, i, j]] += grad[n, c, i, j]
    return found.reshape(shape)


@given(calls(), st.integers(1, 2))
def test_the_gradient_of_a_maximum_goes_to_its_place(
    call: tuple[tuple[int, ...], dict[str, Any]], dilation: int
) -> None:
    shape, words = call
    words = {**words, "dilation": dilation}
    spans = [(k - 1) * dilation + 1 for k in words["kernel_size"]]
    assume(all(n + 2 * p >= s for n, p, s in zip(shape[2:], words["padding"], spans, strict=True)))
    rng = np.random.default_rng(0)
    x = rng.integers(-5, 6, shape).astype(np.float32)
    y, indices = nnpack.max_pool2d(x, **words, return_indices=True)
    grad = rng.standard_normal(y.shape, dtype=np.float32)
    found = nnpack.max_pool2d_gradient(grad, indices, shape)
    np.testing.assert_allclose(found, scattered(grad, indices, shape), rtol=1e-5, atol=1e-5)
    again = nnpack.max_pool2d_input_gradient(grad, x, **words)
    np.testing.assert_array_equal(again, found)


def test_adaptive_and_global_maxima() -> None:
    rng = np.random.default_rng(0)
    x, grad = (rng.standard_normal((2, 3, 7, 10), dtype=np.float32) for _ in range(2))
    y, indices = nnpack.adaptive_max_pool2d(x, (3, 4), True)
    found = nnpack.max_pool2d_gradient(grad[:, :, :3, :4], indices, x.shape)
    expected = scattered(grad[:, :, :3, :4], indices, x.shape)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert y.shape == (2, 3, 3, 4)


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    x = np.random.default_rng(1).standard_normal((3, 8, 40, 41), dtype=np.float32)
    _, indices = nnpack.max_pool2d(x, 3, 2, return_indices=True)
    grad = x[:, :, : indices.shape[2], : indices.shape[3]]
    words = (x.shape, 3, 2)
    for threads in (2, 3):
        np.testing.assert_array_equal(
            nnpack.max_pool2d_gradient(grad, indices, x.shape, threads=threads),
            nnpack.max_pool2d_gradient(grad, indices, x.shape, threads=1),
        )
        np.testing.assert_array_equal(
            nnpack.avg_pool2d_gradient(grad, *words, threads=threads),
            nnpack.avg_pool2d_gradient(grad, *words, threads=1),
        )


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("target", TARGETS, ids=name_of)
def test_every_width_stays_inside_the_arrays(target: Any, side: Side) -> None:
    def check() -> None:
        for width in (2, 3, 7, 8, 9, 16, 17, 31, 33, 65):
            shape = (1, 2, 5, width)
            for stride in (1, 2):
                _check_guarded(target, side, shape, stride)

    assert run_guarded(check, seconds=120) == 0


def _check_guarded(target: Any, side: Side, shape: tuple[int, ...], stride: int) -> None:
    rng = np.random.default_rng(0)
    average = PoolProblem.pool2d("average", shape, 3, stride=stride, padding=1)
    grad = guarded_copy(rng.standard_normal(average.y_shape, dtype=np.float32), side)
    indices = guarded_copy(rng.integers(-1, shape[2] * shape[3], grad.shape), side)
    y = guarded_array(shape, side)
    places = {"grad": address(grad), "indices": address(indices), "y": address(y)}
    Program(plan_max_gradient(average, target, 1).stages, target, 1, 0).run(places)
    np.testing.assert_allclose(y, scattered(grad, indices, shape), rtol=1e-5, atol=1e-5)
    rows, columns = average_gradient_tables(average)
    plan = plan_average_gradient(average, target, 1)
    arrays = {"x": grad, "y": y, "row_places": rows.places, "column_places": columns.places}
    assert rows.weights is not None
    assert columns.weights is not None
    arrays |= {"row_weights": rows.weights, "column_weights": columns.weights}
    kept = {name: guarded_copy(a, side) for name, a in arrays.items() if name != "y"} | {"y": y}
    kept["workspace"] = guarded_array(plan.workspace_bytes // 4, side)
    Program(plan.stages, target, 1, 0).run({name: address(a) for name, a in kept.items()})
    expected = adjoint(lambda x: nnpack.avg_pool2d(x, 3, stride, 1), shape, grad)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda g, i: (g, i + 20, (1, 2, 4, 5)), nnpack.ProblemError, "must be from -1 to 19"),
        (lambda g, i: (g, i - 2, (1, 2, 4, 5)), nnpack.ProblemError, "must be from -1 to 19"),
        (lambda g, i: (g, i[:, :1], (1, 2, 4, 5)), nnpack.ProblemError, "indices.shape"),
        (lambda g, i: (g, i.astype(np.int32), (1, 2, 4, 5)), nnpack.DtypeError, "int64"),
        (lambda g, i: (g, i, (1, 3, 4, 5)), nnpack.ProblemError, "must have N and C"),
        (lambda g, i: (g.astype(float), i, (1, 2, 4, 5)), nnpack.DtypeError, "float64"),
    ],
)
def test_malformed_indices_are_refused(call: Any, error: type[Exception], message: str) -> None:
    grad, indices = np.zeros((1, 2, 2, 2), np.float32), np.zeros((1, 2, 2, 2), np.int64)
    with pytest.raises(error, match=message):
        nnpack.max_pool2d_gradient(*call(grad, indices))


def test_gradients_of_other_shapes_are_refused_and_of_nothing_are_nothing() -> None:
    grad, x = np.zeros((1, 2, 2, 2), np.float32), np.zeros((1, 2, 6, 6), np.float32)
    with pytest.raises(nnpack.ProblemError, match=r"must be \(1, 2, 3, 3\), that of the pooled x"):
        nnpack.avg_pool2d_gradient(grad, x.shape, 2)
    with pytest.raises(nnpack.ProblemError, match="that of the pooled x"):
        nnpack.max_pool2d_input_gradient(grad, x, 2)
    with pytest.raises(nnpack.ProblemError, match="out overlaps x"):
        nnpack.max_pool2d_input_gradient(np.zeros((1, 2, 3, 3), np.float32), x, 2, out=x)
    assert nnpack.avg_pool2d_gradient(grad[:0], (0, 2, 4, 4), 2).shape == (0, 2, 4, 4)
