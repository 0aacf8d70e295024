"""A transposed convolution is its phases; the phases tile the output."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nnpack
from nnpack.algorithms import interleaving
from nnpack.transposed import has_gaps, transposed_phases
from tests import oracle
from tests.plans import integers
from tests.problems import TransposedCase, conv_transpose_problems, problem_count


def assert_close(y: np.ndarray, reference: oracle.Float64Array, case: TransposedCase) -> None:
    """Errors within what ``accuracy="fast"`` allows of the greatest sum of absolute values."""
    bare = {**case.arguments, "scale": None, "activation": None, "residual": None}
    sums = oracle.conv_transpose2d(np.abs(case.x), np.abs(case.weight), **bare)
    scale = 1.0 if case.scale is None else float(np.abs(case.scale).max())
    bias = 0.0 if case.bias is None else float(np.abs(case.bias).max())
    assert y.shape == reference.shape
    added = 0.0 if case.residual is None else float(np.max(np.abs(case.residual), initial=0.0))
    bound = 5e-5 * (scale * np.max(sums, initial=0.0) + bias + added + 1)
    assert np.all(np.abs(y - reference) <= bound)


def assert_same(y: np.ndarray, reference: oracle.Float64Array) -> None:
    """Of integer data: rounding aside, whatever algorithm computed them."""
    np.testing.assert_allclose(y, reference, rtol=0, atol=1e-2)


@given(case=conv_transpose_problems())
def test_any_transposed_convolution_agrees_with_the_oracle(case: TransposedCase) -> None:
    y = nnpack.conv_transpose2d(case.x, case.weight, case.bias, **case.arguments)
    assert y.flags.c_contiguous
    assert y.dtype == np.float32
    assert_close(y, case.reference(), case)


@settings(max_examples=problem_count(0.2))
@given(case=conv_transpose_problems(), threads=st.sampled_from([1, 2]))
def test_a_residual_may_be_the_output(case: TransposedCase, threads: int) -> None:
    if case.residual is not None:
        out = np.array(case.residual, order="C")
        words = {**case.arguments, "residual": out, "threads": threads, "out": out}
        assert nnpack.conv_transpose2d(case.x, case.weight, case.bias, **words) is out
        assert_close(out, case.reference(), case)


@given(case=conv_transpose_problems())
def test_phases_write_no_element_twice_and_gaps_are_announced(case: TransposedCase) -> None:
    problem = case.problem()
    written = np.zeros(problem.y_shape, np.int64).ravel()
    for phase in transposed_phases(problem):
        forward = phase.problem
        assert not forward.is_empty or problem.is_empty
        places = phase.y_offset + sum(
            np.arange(extent).reshape([-1 if axis == n else 1 for n in range(4)]) * stride
            for axis, (extent, stride) in enumerate(
                zip(forward.y_shape, forward.y_strides, strict=True)
            )
        )
        written[np.asarray(places).ravel()] += 1
    assert (written <= 1).all()
    assert (written == 1).all() or has_gaps(problem)


@pytest.mark.parametrize(("stride", "dilation"), [(2, 1), (3, 2), (2, 2), (1, 3), (5, 1)])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4])
def test_phases_without_taps_hold_the_epilogue_of_zero(
    stride: int, dilation: int, kernel: int
) -> None:
    rng = np.random.default_rng(1)
    x, weight = integers(rng, (2, 3, 4, 5)), integers(rng, (3, 2, kernel, kernel))
    bias = np.array([1.0, -2.0], np.float32)
    words = {"stride": stride, "dilation": dilation, "activation": nnpack.Relu()}
    y = nnpack.conv_transpose2d(x, weight, bias, **words)  # type: ignore[call-overload]
    assert_same(y, oracle.conv_transpose2d(x, weight, bias, **words))  # type: ignore[arg-type]


def test_phases_of_different_images_are_packed_apart() -> None:
    """1x2 and 2x1 images ask for phases of the same sizes made of different taps."""
    rng = np.random.default_rng(2)
    weight = integers(rng, (3, 4, 3, 3))
    layer = nnpack.ConvTranspose2d(weight, stride=2, padding=1)
    for size in ((1, 2), (2, 1), (1, 2), (1, 1), (2, 2)):
        x = integers(rng, (1, 3, *size))
        expected = oracle.conv_transpose2d(x, weight, stride=2, padding=1)
        assert_same(layer(x), expected)


@pytest.mark.parametrize(("stride", "kernel"), [((2, 2), 3), ((1, 3), 2), ((4, 2), 5), ((3, 4), 3)])
def test_phases_are_interleaved_slice_by_slice(
    monkeypatch: pytest.MonkeyPatch, stride: tuple[int, int], kernel: int
) -> None:
    """Slices of two images, the last of which moves back; with gaps, and with an epilogue."""
    monkeypatch.setattr(interleaving, "slice_images", lambda *_: 2)
    rng = np.random.default_rng(kernel)
    x = rng.integers(-4, 5, (3, 5, 7, 6 + kernel)).astype(np.float32)
    weight = rng.integers(-4, 5, (5, 4, kernel, kernel)).astype(np.float32)
    expected = oracle.conv_transpose2d(x, weight, stride=stride)
    assert_same(nnpack.conv_transpose2d(x, weight, stride=stride), expected)
    y = nnpack.conv_transpose2d(x, weight, stride=stride, activation=nnpack.Relu())
    assert_same(y, np.maximum(expected, 0))
    nnpack.conv_transpose2d(x, weight, stride=stride, residual=y, out=y)
    assert_same(y, np.maximum(expected, 0) + expected)


def test_output_padding_and_groups() -> None:
    rng = np.random.default_rng(3)
    x, weight = integers(rng, (1, 4, 5, 6)), integers(rng, (4, 3, 3, 3))
    words = {"stride": 2, "padding": (1, 0), "output_padding": 1, "groups": 2}
    y = nnpack.ConvTranspose2d(weight, **words)(x)  # type: ignore[arg-type]
    assert_same(y, oracle.conv_transpose2d(x, weight, **words))  # type: ignore[arg-type]


def test_strided_phases_beyond_the_padding_are_refused() -> None:
    x, weight = np.zeros((1, 1, 2, 2), np.float32), np.zeros((1, 1, 3, 3), np.float32)
    with pytest.raises(nnpack.ProblemError, match="pad less"):
        nnpack.conv_transpose2d(x, weight, padding=3)


def test_weights_that_are_not_finite_do_not_reach_outputs_without_taps() -> None:
    weight = np.full((1, 1, 1, 1), np.inf, np.float32)
    x, bias = np.ones((1, 1, 1, 1), np.float32), np.array([2.0], np.float32)
    y = nnpack.conv_transpose2d(x, weight, bias, stride=2, output_padding=1)
    assert y.ravel().tolist() == [np.inf, 2.0, 2.0, 2.0]


def test_a_large_stride_is_planned_by_the_taps_not_by_the_stride() -> None:
    x, weight = np.ones((1, 2, 2, 2), np.float32), np.ones((2, 1, 1, 1), np.float32)
    y = nnpack.conv_transpose2d(x, weight, stride=512)
    assert y.shape == (1, 1, 513, 513)
    assert y.sum() == y[:, :, ::512, ::512].sum() == 8
