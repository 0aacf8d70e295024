"""Element-wise functions of any shape, into out, in place, on any number of threads."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

import nnpack
from tests import oracle
from tests.guard import guarded_array, guarded_copy
from tests.plans import all_survive

FUNCTIONS: list[tuple[Callable[..., Any], Any]] = [
    (nnpack.relu, nnpack.Relu()),
    (partial(nnpack.leaky_relu, slope=0.2), nnpack.Relu(0.2)),
    (partial(nnpack.elu, alpha=0.5), nnpack.Elu(0.5)),
    (partial(nnpack.clip, low=-0.5, high=1.0), nnpack.Clip(-0.5, 1.0)),
    (nnpack.sigmoid, nnpack.Sigmoid()),
    (nnpack.tanh, nnpack.Tanh()),
    (nnpack.silu, nnpack.Silu()),
    (nnpack.hard_sigmoid, nnpack.HardSigmoid()),
    (nnpack.hard_swish, nnpack.HardSwish()),
    (nnpack.gelu, nnpack.Gelu()),
    (partial(nnpack.gelu, approximate="tanh"), nnpack.Gelu("tanh")),
    (nnpack.mish, nnpack.Mish()),
]
SHAPES = [(), (0, 3), (1,), (17,), (3, 5, 7), (2, 3, 64, 65), (20_000,)]


@pytest.mark.parametrize(("function", "activation"), FUNCTIONS, ids=[repr(a) for _, a in FUNCTIONS])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_functions_are_activations(
    function: Callable[..., Any], activation: Any, shape: tuple[int, ...]
) -> None:
    x = np.asarray(3 * np.random.default_rng(1).standard_normal(shape), np.float32)
    expected = oracle.activate(x.astype(np.float64), activation)
    y = function(x)
    np.testing.assert_allclose(y, expected, rtol=6e-7, atol=1e-7)
    np.testing.assert_array_equal(function(x, threads=3), y)
    np.testing.assert_array_equal(function(x.T), y.T)
    assert function(x, out=x) is x
    np.testing.assert_array_equal(x, y)


def test_nothing_beyond_is_touched() -> None:
    x = np.random.default_rng(2).standard_normal(1037).astype(np.float32)

    def check(side: Any) -> None:
        out = guarded_array(x.shape, side)
        nnpack.silu(guarded_copy(x, side), out=out)
        nnpack.add(guarded_copy(x, side), out, out=out)
        nnpack.multiply(guarded_copy(x, side), out, out=out)

    nnpack.multiply(x, nnpack.add(x, nnpack.silu(x)))
    assert all_survive([partial(check, "before"), partial(check, "after")])


@pytest.mark.parametrize("shape", [(4, 6), (2, 6, 3), (3, 6, 5, 40), (6,)], ids=str)
def test_prelu_has_a_slope_for_each_channel(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(3)
    x, slope = (
        rng.standard_normal(shape).astype(np.float32),
        np.linspace(-1, 1, 6, dtype=np.float32),
    )
    axis = shape.index(6)
    along = slope.reshape([6 if n == axis else 1 for n in range(len(shape))])
    np.testing.assert_allclose(nnpack.prelu(x, slope, axis=axis), np.where(x > 0, x, along * x))
    with pytest.raises(nnpack.ProblemError, match="slope.shape"):
        nnpack.prelu(x, slope[:5], axis=axis)


def test_sums_of_two() -> None:
    a, b = np.random.default_rng(4).standard_normal((2, 5, 1000), np.float32)
    np.testing.assert_array_equal(nnpack.add(a, b), a + b)
    np.testing.assert_array_equal(
        nnpack.add(a, b[:, ::-1], nnpack.Relu()), np.maximum(a + b[:, ::-1], 0)
    )
    expected = a + b
    assert nnpack.add(a, b, out=b) is b
    np.testing.assert_array_equal(b, expected)
    with pytest.raises(nnpack.ProblemError, match="b.shape"):
        nnpack.add(a, b[:4])
    with pytest.raises(nnpack.ProblemError, match="prelu"):
        nnpack.add(a, b, nnpack.Prelu(np.zeros(5, np.float32)))


def test_products_of_two() -> None:
    a, b = np.random.default_rng(5).standard_normal((2, 3, 20_001), np.float32)
    np.testing.assert_array_equal(nnpack.multiply(a, b), a * b)
    np.testing.assert_array_equal(nnpack.multiply(a.T, b.T, threads=3), (a * b).T)
    expected = np.clip(a * b, -0.5, 0.5)
    assert nnpack.multiply(a, b, nnpack.Clip(-0.5, 0.5), out=b) is b
    np.testing.assert_array_equal(b, expected)
    assert nnpack.multiply(a[:0], b[:0]).shape == (0, 20_001)
    with pytest.raises(nnpack.ProblemError, match="b.shape"):
        nnpack.multiply(a, b[:2])
    with pytest.raises(nnpack.DtypeError, match="activation"):
        nnpack.multiply(a, b, [1])  # type: ignore[arg-type]


def test_numbers_are_read_at_every_call() -> None:
    """An array of one number may hold another at the next call; True is never 1."""
    x, slope = np.full(3, -1.0, np.float32), np.array(0.5)
    np.testing.assert_array_equal(nnpack.leaky_relu(x, slope), -0.5)  # type: ignore[arg-type]
    slope[...] = 0.25
    np.testing.assert_array_equal(nnpack.leaky_relu(x, slope), -0.25)  # type: ignore[arg-type]
    np.testing.assert_array_equal(nnpack.leaky_relu(x, 1), -1.0)
    with pytest.raises(nnpack.DtypeError, match="slope"):
        nnpack.leaky_relu(x, True)
    with pytest.raises(nnpack.DtypeError, match="low"):
        nnpack.clip(np.zeros(0, np.float32), [0.0], 1.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("x", [np.zeros(3), [1.0], None])
def test_other_dtypes_are_refused(x: Any) -> None:
    with pytest.raises(nnpack.DtypeError, match="x "):
        nnpack.relu(x)
