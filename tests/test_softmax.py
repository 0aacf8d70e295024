"""Softmax, its logarithm, cross-entropy and their gradients against float64."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nnpack
from nnpack.algorithms.softmax import plan_softmax
from nnpack.execution import Program
from nnpack.functional.softmax import Reduction
from nnpack.runtime.memory import address
from nnpack.softmax_problem import softmax_problem
from tests.guard import Side, guarded_array, guarded_copy, run_guarded
from tests.native import TARGETS, name_of

Array = npt.NDArray[Any]


def exact(x: Array, axis: int) -> Array:
    powers = np.exp(x.astype(np.float64) - x.max(axis, keepdims=True))
    shares: Array = powers / powers.sum(axis, keepdims=True)
    return shares


@st.composite
def arrays(draw: st.DrawFn) -> tuple[Array, int]:
    shape = draw(st.lists(st.integers(1, 40), min_size=1, max_size=4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    x = rng.standard_normal(shape, dtype=np.float32) * np.float32(draw(st.sampled_from([1, 9])))
    return x, draw(st.integers(-len(shape), len(shape) - 1))


@given(arrays())
def test_all_four_are_right_along_any_axis(case: tuple[Array, int]) -> None:
    x, axis = case
    y, logarithm = nnpack.softmax(x, axis), nnpack.log_softmax(x, axis)
    shares = exact(x, axis)
    np.testing.assert_allclose(y, shares, rtol=1e-5, atol=1e-30)
    np.testing.assert_allclose(logarithm, np.log(shares), rtol=1e-5, atol=2e-6)
    grad = x[::-1].copy()
    expected = shares * (grad - (grad * shares).sum(axis, keepdims=True))
    np.testing.assert_allclose(
        nnpack.softmax_gradient(grad, y, axis), expected, rtol=0, atol=1e-5 * np.abs(grad).max()
    )
    expected = grad - shares * grad.sum(axis, keepdims=True, dtype=np.float64)
    np.testing.assert_allclose(
        nnpack.log_softmax_gradient(grad, logarithm, axis),
        expected,
        rtol=0,
        atol=1e-5 * np.abs(grad).sum(axis).max(),
    )


@pytest.mark.parametrize("axis", [0, 1])
def test_special_values(axis: int) -> None:
    inf, nan = np.inf, np.nan
    rows = np.array(
        [[1, -inf, 1], [-inf, -inf, -inf], [inf, 0, 1], [nan, 0, 1], [3e38, -3e38, 3e38]],
        np.float32,
    )
    x = np.ascontiguousarray(rows.T) if axis == 0 else rows
    expected = np.array([[0.5, 0, 0.5], [nan] * 3, [nan] * 3, [nan] * 3, [0.5, 0, 0.5]])
    found = nnpack.softmax(x, axis)
    np.testing.assert_allclose(found if axis else found.T, expected, rtol=1e-6)
    found = nnpack.log_softmax(x, axis)
    half = np.log(0.5)
    some = np.array([[half, -inf, half], [half, -inf, half]])
    np.testing.assert_allclose((found if axis else found.T)[[0, 4]], some, rtol=1e-6)
    assert np.isnan((found if axis else found.T)[[1, 3]]).all()


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("target", TARGETS, ids=name_of)
def test_every_length_stays_inside_the_arrays(target: Any, side: Side) -> None:
    def check() -> None:
        for shape in [(2, n, 1) for n in range(1, 70)] + [(2, 3, n) for n in range(2, 35)]:
            for logarithm in (False, True):
                _check_guarded(target, side, shape, logarithm)

    assert run_guarded(check, seconds=120) == 0


def _check_guarded(target: Any, side: Side, shape: tuple[int, ...], logarithm: bool) -> None:
    x = guarded_copy(np.random.default_rng(0).standard_normal(shape, dtype=np.float32), side)
    y, grad = guarded_array(shape, side), guarded_array(shape, side)
    arrays = {"x": address(x), "y": address(y), "grad": address(x)}
    problem = softmax_problem(shape, 1, logarithm=logarithm)
    Program(plan_softmax(problem, target, 1).stages, target, 1, 0).run(arrays)
    shares = exact(x, 1)
    np.testing.assert_allclose(y, np.log(shares) if logarithm else shares, rtol=1e-5, atol=2e-6)
    problem = softmax_problem(shape, 1, logarithm=logarithm, gradient=True)
    program = Program(plan_softmax(problem, target, 1).stages, target, 1, 0)
    program.run({**arrays, "x": address(grad)})
    total = (x if logarithm else x * shares).sum(1, keepdims=True)
    expected = x - shares * total if logarithm else shares * (x - total)
    np.testing.assert_allclose(grad, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("axis", [0, 1])
def test_errors_do_not_grow_with_the_length(axis: int) -> None:
    """Of terms that are all alike the roundings of one long chain would all go the same way."""
    x = np.full((60_000, 3) if axis == 0 else (3, 60_000), -0.3, np.float32)
    x.swapaxes(0, axis)[0] = 0
    shares = exact(x, axis)
    np.testing.assert_allclose(nnpack.softmax(x, axis), shares, rtol=3e-5)
    np.testing.assert_allclose(nnpack.log_softmax(x, axis), np.log(shares), rtol=3e-6)


def test_in_place_into_out_and_from_views() -> None:
    x = np.random.default_rng(1).standard_normal((6, 8, 10), dtype=np.float32)
    expected = nnpack.softmax(x, 1)
    np.testing.assert_array_equal(
        nnpack.softmax(x[::-1, ::2], 1), nnpack.softmax(x[::-1, ::2].copy(), 1)
    )
    out = np.empty_like(x)
    assert nnpack.softmax(x, 1, out=out) is out
    np.testing.assert_array_equal(out, expected)
    assert nnpack.softmax(x, 1, out=x) is x
    np.testing.assert_array_equal(x, expected)
    grad = np.ones_like(x)
    expected = nnpack.softmax_gradient(grad, x, 1)
    np.testing.assert_array_equal(nnpack.softmax_gradient(grad, x, 1, out=grad), expected)


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    x = np.random.default_rng(2).standard_normal((300, 1000), dtype=np.float32)
    for axis in (0, 1):
        one = nnpack.softmax(x, axis, threads=1)
        for threads in (2, 3):
            np.testing.assert_array_equal(nnpack.softmax(x, axis, threads=threads), one)


@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (3, 0, 2)])
def test_nothing_gives_nothing(shape: tuple[int, ...]) -> None:
    assert nnpack.softmax(np.zeros(shape, np.float32), 1).shape == shape


def test_cross_entropy_and_its_gradient() -> None:
    rng = np.random.default_rng(3)
    for shape in ((64, 10), (2, 5, 3, 4), (1, 1)):
        x = rng.standard_normal(shape, dtype=np.float32)
        labels = rng.integers(0, shape[1], (shape[0], *shape[2:]))
        shares = exact(x, 1)
        losses = -np.log(np.take_along_axis(shares, labels[:, None], 1)[:, 0])
        one_hot = np.moveaxis(np.eye(shape[1])[labels], -1, 1)
        np.testing.assert_allclose(
            nnpack.cross_entropy(x, labels, reduction="none"), losses, rtol=1e-5, atol=1e-6
        )
        for reduction, size in (("mean", labels.size), ("sum", 1)):
            loss = nnpack.cross_entropy(x, labels, reduction=reduction)  # type: ignore[arg-type]
            np.testing.assert_allclose(loss, losses.sum() / size, rtol=1e-5, atol=1e-6)
            grad = nnpack.cross_entropy_gradient(x, labels, reduction=reduction)  # type: ignore[arg-type]
            np.testing.assert_allclose(grad, (shares - one_hot) / size, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: nnpack.softmax(x, 2), nnpack.ProblemError, "axis=2 must be from -2 to 1"),
        (
            lambda x: nnpack.softmax(x, cast("int", 1.5)),
            nnpack.ProblemError,
            "axis=1.5 must be an integer",
        ),
        (lambda x: nnpack.softmax(x[0, 0, ...]), nnpack.ProblemError, "at least 1 dimension"),
        (lambda x: nnpack.softmax(x.astype(float)), nnpack.DtypeError, "float64"),
        (lambda x: nnpack.softmax(x, out=x[1:]), nnpack.ProblemError, "out.shape"),
        (lambda x: nnpack.softmax(x[:2], out=x[1:3]), nnpack.ProblemError, "out overlaps x"),
        (lambda x: nnpack.softmax_gradient(x, x[1:]), nnpack.ProblemError, "must be that of y"),
        (lambda x: nnpack.cross_entropy(x, [0, 1]), nnpack.ProblemError, "labels.shape"),
        (lambda x: nnpack.cross_entropy(x, [0, 1, 5]), nnpack.ProblemError, "from 0 to 3"),
        (lambda x: nnpack.cross_entropy(x, [0, 1, -1]), nnpack.ProblemError, "from -1 to 1"),
        (lambda x: nnpack.cross_entropy(x, [0, 1, 1.0]), nnpack.DtypeError, "integers"),
        (
            lambda x: nnpack.cross_entropy(x, [0, 1, 1], reduction=cast("Reduction", "max")),
            nnpack.ProblemError,
            '"mean", "sum" or "none"',
        ),
    ],
)
def test_what_is_malformed_is_refused(call: Any, error: type[Exception], message: str) -> None:
    x = np.zeros((3, 4), np.float32)
    with pytest.raises(error, match=message):
        call(x)
