"""The functions of pooling: what they accept, what they refuse, and what PyTorch computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nnpack
from tests import pool_oracle


def _random(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(5).standard_normal(shape, dtype=np.float32)


@settings(deadline=None, max_examples=40)
@given(
    st.tuples(st.integers(1, 20), st.integers(1, 40)),
    st.tuples(st.integers(1, 10), st.integers(1, 10)),
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    st.lists(st.integers(0, 4), min_size=4, max_size=4),
    st.booleans(),
    st.booleans(),
)
def test_random_windows(
    image: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    pads: list[int],
    ceil: bool,
    count_padding: bool,
) -> None:
    padding = tuple(min(p, kernel[n // 2] - 1) for n, p in enumerate(pads))
    top, bottom, left, right = padding
    x = _random(2, 3, *image)
    if image[0] + top + bottom < kernel[0] or image[1] + left + right < kernel[1]:
        return
    maxima, places = pool_oracle.max_pool2d(
        x, kernel, stride, (top, bottom, left, right), (1, 1), ceil
    )
    y, indices = nnpack.max_pool2d(x, kernel, stride, padding, 1, ceil, return_indices=True)
    np.testing.assert_array_equal(y, maxima)
    np.testing.assert_array_equal(indices, places)
    np.testing.assert_array_equal(nnpack.max_pool2d(x, kernel, stride, padding, 1, ceil), maxima)
    mean = nnpack.avg_pool2d(x, kernel, stride, padding, ceil, count_padding)
    expected = pool_oracle.avg_pool2d(
        x, kernel, stride, (top, bottom, left, right), ceil, count_padding
    )
    np.testing.assert_allclose(mean, expected, rtol=1e-5, atol=1e-6)


def test_the_stride_is_the_kernel_unless_given() -> None:
    assert nnpack.max_pool2d(_random(1, 1, 9, 9), 3).shape == (1, 1, 3, 3)
    assert nnpack.avg_pool2d(_random(1, 1, 9, 9), (3, 2)).shape == (1, 1, 3, 4)


def test_same_and_valid_padding() -> None:
    x = _random(1, 2, 7, 8)
    assert nnpack.max_pool2d(x, 3, 2, "same").shape == (1, 2, 4, 4)
    assert nnpack.max_pool2d(x, 3, 2, "valid").shape == (1, 2, 3, 3)


@pytest.mark.parametrize("pool", [nnpack.global_avg_pool2d, nnpack.global_max_pool2d])
def test_global_pools_keep_four_dimensions(pool: Any) -> None:
    x = _random(2, 5, 7, 9)
    y = pool(x)
    reduce = np.mean if pool is nnpack.global_avg_pool2d else np.max
    assert y.shape == (2, 5, 1, 1)
    np.testing.assert_allclose(y[..., 0, 0], reduce(x, axis=(2, 3)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x[:, ::2],
        lambda x: x[:, :, 1:-1, 2:-3],
        lambda x: x[:, :, ::-1],
        lambda x: x[..., ::2],
        lambda x: x.transpose(0, 1, 3, 2),
    ],
)
def test_views_are_read_in_place_or_copied(view: Any) -> None:
    x = view(_random(2, 4, 12, 15))
    dense = x.copy()
    np.testing.assert_array_equal(nnpack.max_pool2d(x, 3, 2, 1), nnpack.max_pool2d(dense, 3, 2, 1))
    means = nnpack.global_avg_pool2d(x), nnpack.global_avg_pool2d(dense)
    np.testing.assert_allclose(*means, rtol=1e-5, atol=1e-6)  # rows with gaps are summed one by one
    for one, other in zip(
        nnpack.adaptive_max_pool2d(x, 3, True),
        nnpack.adaptive_max_pool2d(dense, 3, True),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


def test_dlpack_and_out() -> None:
    torch = pytest.importorskip("torch")
    x = _random(1, 3, 8, 8)
    out = np.empty((1, 3, 4, 4), np.float32)
    assert nnpack.max_pool2d(torch.from_numpy(x), 2, out=out) is out
    np.testing.assert_array_equal(out, nnpack.max_pool2d(x, 2))


def test_an_empty_batch_gives_an_empty_result() -> None:
    y, indices = nnpack.max_pool2d(np.zeros((0, 3, 8, 8), np.float32), 2, return_indices=True)
    assert y.shape == indices.shape == (0, 3, 4, 4)
    assert nnpack.global_avg_pool2d(np.zeros((0, 3, 8, 8), np.float32)).shape == (0, 3, 1, 1)


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    x = _random(2, 67, 30, 30)
    pools: tuple[Callable[[int], Any], ...] = (
        lambda n: nnpack.avg_pool2d(x, 3, 1, 1, threads=n),
        lambda n: nnpack.max_pool2d(x, 3, 2, 1, threads=n),
        lambda n: nnpack.global_avg_pool2d(x, threads=n),
        lambda n: nnpack.adaptive_avg_pool2d(x, 7, threads=n),
    )
    for pool in pools:
        one, *others = (pool(threads) for threads in (1, 2, 5))
        for other in others:
            np.testing.assert_array_equal(other, one)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel_size": 0}, "kernel_size=0 must be at least 1"),
        ({"kernel_size": (2, 2, 2)}, "kernel_size=.* has 3 numbers"),
        ({"kernel_size": 2, "stride": 0}, "stride=0 must be at least 1"),
        ({"kernel_size": 2, "padding": 2}, "padding=2 must be less than the 2x2"),
        ({"kernel_size": 2, "padding": "full"}, "padding='full' must be"),
        ({"kernel_size": 9}, "spans 9x9 pixels, more than the 8x8"),
        ({"kernel_size": 2, "out": np.zeros((1, 3, 3, 4), np.float32)}, "out.shape"),
    ],
)
@pytest.mark.parametrize("pool", [nnpack.max_pool2d, nnpack.avg_pool2d])
def test_malformed_arguments_are_refused(pool: Any, arguments: Any, message: str) -> None:
    with pytest.raises(nnpack.ProblemError, match=message):
        pool(_random(1, 3, 8, 8), **arguments)


def test_other_arguments_are_refused() -> None:
    x = _random(1, 3, 8, 8)
    with pytest.raises(nnpack.ProblemError, match="divisor_override=0 must be at least 1"):
        nnpack.avg_pool2d(x, 2, divisor_override=0)
    with pytest.raises(nnpack.ProblemError, match="output_size=0 must be at least 1"):
        nnpack.adaptive_avg_pool2d(x, 0)
    with pytest.raises(nnpack.ProblemError, match="dilation=0 must be at least 1"):
        nnpack.max_pool2d(x, 2, dilation=0)
    with pytest.raises(nnpack.DtypeError):
        nnpack.global_max_pool2d(x.astype(np.float64))
    with pytest.raises(nnpack.ProblemError, match="out overlaps x"):
        nnpack.max_pool2d(x, 1, out=x)


def test_what_pytorch_computes() -> None:
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    x = _random(2, 3, 17, 23)
    t = torch.from_numpy(x)
    for kernel, stride, padding, dilation, ceil in (
        (3, 2, 1, 1, False),
        (2, 2, 1, 2, True),
        ((4, 3), (3, 2), (2, 1), 1, True),
    ):
        words = kernel, stride, padding, dilation, ceil
        expected = functional.max_pool2d(t, *words, return_indices=True)
        found = nnpack.max_pool2d(x, *words, return_indices=True)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other.numpy())
        for more in ((True, None), (False, None), (True, 5)):
            means = functional.avg_pool2d(t, kernel, stride, padding, ceil, *more)
            found_means = nnpack.avg_pool2d(x, kernel, stride, padding, ceil, *more)
            np.testing.assert_allclose(found_means, means.numpy(), rtol=1e-5, atol=1e-6)
    for outputs in (1, 5, (17, 1), (30, 40)):
        means = functional.adaptive_avg_pool2d(t, outputs)
        found_means = nnpack.adaptive_avg_pool2d(x, outputs)
        np.testing.assert_allclose(found_means, means.numpy(), rtol=1e-5, atol=1e-6)
        expected = functional.adaptive_max_pool2d(t, outputs, return_indices=True)
        for one, other in zip(nnpack.adaptive_max_pool2d(x, outputs, True), expected, strict=True):
            np.testing.assert_array_equal(one, other.numpy())
