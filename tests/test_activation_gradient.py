"""The gradient behind every activation, against the derivative in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import nnpack
from nnpack.algorithms.derivative import plan_activation_gradient
from nnpack.elementwise_problem import ActivationGradientProblem
from nnpack.execution import Program
from nnpack.runtime.memory import address
from tests.guard import Side, guarded_array, guarded_copy, run_guarded
from tests.native import TARGETS, name_of

Array = npt.NDArray[Any]


def _logistic(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    result: Array = np.where(x < 0, e, 1.0) / (1 + e)
    return result


def _gelu(x: Array) -> Array:
    phi = np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    distribution = np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in x])
    result: Array = distribution + x * phi
    return result


def _gelu_tanh(x: Array) -> Array:
    c = math.sqrt(2 / math.pi)
    t = np.tanh(c * (x + 0.044715 * x**3))
    result: Array = 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * c * (1 + 3 * 0.044715 * x * x)
    return result


def _mish(x: Array) -> Array:
    t = np.tanh(np.logaddexp(0, x))
    result: Array = t + x * _logistic(x) * (1 - t * t)
    return result


CASES: list[tuple[Any, Any]] = [
    (nnpack.Relu(), lambda x: 1.0 * (x > 0)),
    (nnpack.Relu(0.25), lambda x: np.where(x > 0, 1, 0.25)),
    (nnpack.Elu(1.5), lambda x: np.where(x > 0, 1, 1.5 * np.exp(np.minimum(x, 0)))),
    (nnpack.Clip(-1, 2), lambda x: 1.0 * ((x > -1) & (x < 2))),
    (nnpack.Sigmoid(), lambda x: _logistic(x) * _logistic(-x)),
    (nnpack.Tanh(), lambda x: 1 / np.cosh(np.clip(x, -300, 300)) ** 2),
    (nnpack.Silu(), lambda x: _logistic(x) * (1 + x * _logistic(-x))),
    (nnpack.HardSigmoid(0.25, 0.5), lambda x: 0.25 * ((x > -2) & (x < 2))),
    (nnpack.HardSwish(), lambda x: np.where(x <= -3, 0, np.where(x >= 3, 1, x / 3 + 0.5))),
    (nnpack.Gelu(), _gelu),
    (nnpack.Gelu("tanh"), _gelu_tanh),
    (nnpack.Mish(), _mish),
]
BY_ACTIVATION = pytest.mark.parametrize(
    ("activation", "derivative"), CASES, ids=lambda value: type(value).__name__
)


@BY_ACTIVATION
@pytest.mark.parametrize("target", TARGETS, ids=name_of)
def test_derivatives_are_right_everywhere(target: Any, activation: Any, derivative: Any) -> None:
    near = np.linspace(-12, 12, 20_001)
    x = np.concatenate([near, [-100, 100, -1e4, 1e4, 0.0, -0.0]]).astype(np.float32)
    grad, y = np.full_like(x, 2), np.empty_like(x)
    plan = plan_activation_gradient(ActivationGradientProblem(activation, x.size), target, 1)
    arrays = {"x": address(x), "grad": address(grad), "y": address(y)}
    Program(plan.stages, target, 1, 0).run(arrays)
    expected = 2 * derivative(np.clip(x.astype(np.float64), -700, 700))
    np.testing.assert_allclose(y, expected, rtol=1e-6, atol=2e-6)


@BY_ACTIVATION
def test_numbers_that_are_not_finite(activation: Any, derivative: Any) -> None:
    del derivative
    x = np.array([np.inf, -np.inf, np.nan], np.float32)
    found = nnpack.activation_gradient(np.ones(3, np.float32), x, activation)
    assert found[0] in (0.0, 1.0)
    assert np.isfinite(found[1])


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("target", TARGETS, ids=name_of)
def test_every_length_stays_inside_the_arrays(target: Any, side: Side) -> None:
    def check() -> None:
        for size in [*range(1, 70), 8191, 8193]:
            x = guarded_copy(np.linspace(-2, 2, size, dtype=np.float32), side)
            y = guarded_array(size, side)
            plan = plan_activation_gradient(
                ActivationGradientProblem(nnpack.Tanh(), size), target, 1
            )
            arrays = {"x": address(x), "grad": address(x), "y": address(y)}
            Program(plan.stages, target, 1, 0).run(arrays)
            np.testing.assert_allclose(y, x / np.cosh(x) ** 2, atol=1e-6)

    assert run_guarded(check) == 0


def test_in_place_threads_views_and_errors() -> None:
    rng = np.random.default_rng(0)
    x, grad = (rng.standard_normal((40, 500), dtype=np.float32) for _ in range(2))
    expected = nnpack.activation_gradient(grad, x, nnpack.Gelu(), threads=1)
    for threads in (2, 3):
        found = nnpack.activation_gradient(grad, x, nnpack.Gelu(), threads=threads)
        np.testing.assert_array_equal(found, expected)
    view = nnpack.activation_gradient(grad[::2].T, x[::2].T, nnpack.Gelu())
    np.testing.assert_array_equal(view, expected[::2].T)
    assert nnpack.activation_gradient(grad, x, nnpack.Gelu(), out=grad) is grad
    np.testing.assert_array_equal(grad, expected)
    with pytest.raises(nnpack.ProblemError, match="must be that of x"):
        nnpack.activation_gradient(grad[1:], x, nnpack.Relu())
    wrong: Any
    for wrong in (None, nnpack.Relu, "relu"):
        with pytest.raises(nnpack.DtypeError):
            nnpack.activation_gradient(grad, x, wrong)
