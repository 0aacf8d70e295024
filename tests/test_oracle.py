"""The oracle agrees with sums written out by hand and with the adjoint identity."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given

import nnpack
from tests import oracle
from tests.problems import ConvCase, TransposedCase, conv_problems, conv_transpose_problems


def _sum_by_hand(case: ConvCase, top: int, left: int, at: tuple[int, int, int, int]) -> float:
    n, k, i, j = at
    (sh, sw), (dh, dw) = case.stride, case.dilation
    first = k // (case.weight.shape[0] // case.groups) * case.weight.shape[1]
    total = 0.0
    for c, p, q in np.ndindex(*case.weight.shape[1:]):
        row, column = i * sh + p * dh - top, j * sw + q * dw - left
        if 0 <= row < case.x.shape[2] and 0 <= column < case.x.shape[3]:
            total += float(case.x[n, first + c, row, column]) * float(case.weight[k, c, p, q])
    return total


@given(conv_problems(epilogues=False))
def test_a_convolution_is_the_sum_of_its_definition(case: ConvCase) -> None:
    y = case.reference()
    assert y.shape == case.problem().y_shape
    top, _, left, _ = case.problem().padding
    if y.size:
        corners = [tuple(extent - 1 for extent in y.shape), (0, 0, 0, 0)]
        for at in corners:
            n, k, i, j = at
            by_hand = _sum_by_hand(case, top, left, (n, k, i, j))
            assert y[n, k, i, j] == pytest.approx(by_hand, rel=1e-9, abs=1e-9)


@given(conv_transpose_problems(epilogues=False))
def test_a_transposed_convolution_is_the_adjoint_of_the_forward_one(case: TransposedCase) -> None:
    """<conv_transpose(x), z> = <x, conv(z)> with the same weight, whatever z."""
    y = case.reference()
    problem = case.problem()
    assert y.shape == problem.y_shape
    z = np.random.default_rng(1).standard_normal(y.shape)
    forward = oracle.conv2d(
        z,
        case.weight,
        stride=case.stride,
        padding=problem.padding,
        dilation=case.dilation,
        groups=case.groups,
    )
    # Rows of output padding may let the forward kernel fit once more.
    forward = forward[:, :, : case.x.shape[2], : case.x.shape[3]]
    x = case.x.astype(np.float64)
    assert np.vdot(y, z) == pytest.approx(np.vdot(x, forward), rel=1e-9, abs=1e-6)


def test_negative_padding_crops() -> None:
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((2, 3, 9, 8)), rng.standard_normal((4, 3, 3, 2))
    cropped = oracle.conv2d(x[:, :, 2:-1, 1:], weight, padding=(0, 0, 0, 2))
    np.testing.assert_allclose(oracle.conv2d(x, weight, padding=(-2, -1, -1, 2)), cropped)


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        (None, [-3.0, 1.0, 5.0]),
        (nnpack.Relu(), [0.0, 1.0, 5.0]),
        (nnpack.Relu(slope=0.5), [-1.5, 1.0, 5.0]),
        (nnpack.Elu(alpha=2.0), [2 * math.expm1(-3), 1.0, 5.0]),
        (nnpack.Clip(-1, 3), [-1.0, 1.0, 3.0]),
    ],
)
def test_the_epilogue_scales_adds_then_activates(activation: Any, expected: list[float]) -> None:
    x = np.array([-2.0, 0.0, 2.0]).reshape(1, 1, 1, 3)
    one = np.ones((1, 1, 1, 1))
    y = oracle.conv2d(x, one, np.array([1.0]), scale=np.array([2.0]), activation=activation)
    np.testing.assert_allclose(y.ravel(), expected)


def test_errors_are_relative_to_the_largest_value_and_to_the_norm() -> None:
    reference = np.array([3.0, -4.0])
    assert oracle.max_error(np.array([3.0, -3.0]), reference) == 0.25
    assert oracle.relative_l2(np.array([3.0, -3.0]), reference) == pytest.approx(0.2)


@pytest.mark.parametrize("measure", [oracle.max_error, oracle.relative_l2])
def test_errors_of_nothing_and_against_zeros(measure: Any) -> None:
    assert measure(np.zeros((0, 3)), np.zeros((0, 3))) == 0.0
    assert measure(np.zeros(2), np.zeros(2)) == 0.0
    assert measure(np.ones(2), np.zeros(2)) == math.inf
    assert math.isnan(measure(np.array([math.nan, 0.0]), np.ones(2)))
    with pytest.raises(AssertionError, match="expected"):
        measure(np.zeros(1), np.zeros(2))
