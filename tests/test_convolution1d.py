"""Convolutions along one dimension are those of images one row high."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nnpack
from tests import oracle
from tests.plans import Float32Array

RNG = np.random.default_rng(8)


def _random(*shape: int) -> Float32Array:
    return RNG.standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize(
    "words",
    [
        {},
        {"stride": 2, "padding": 3},
        {"padding": (1, 4), "dilation": 2},
        {"padding": "same", "stride": 3},
        {"groups": 3, "padding": "valid"},
        {"groups": 6, "padding": 2},
    ],
    ids=str,
)
def test_conv1d_is_conv2d_of_one_row(words: dict[str, Any]) -> None:
    x, bias = _random(2, 6, 50), _random(12)
    weight = _random(12, 6 // words.get("groups", 1), 5)
    plane = {**words}
    for name in ("stride", "dilation"):
        plane[name] = (1, words.get(name, 1))
    padding = words.get("padding", 0)
    if not isinstance(padding, str):
        left, right = padding if isinstance(padding, tuple) else (padding, padding)
        plane["padding"] = (0, 0, left, right)
    y = nnpack.conv1d(x, weight, bias, activation=nnpack.Relu(), **words)
    image = nnpack.conv2d(
        x[:, :, None], weight[:, :, None], bias, activation=nnpack.Relu(), **plane
    )
    np.testing.assert_array_equal(y, image[:, :, 0])
    assert y.flags.c_contiguous


def _correlate(x: Float32Array, weight: Float32Array) -> oracle.Float64Array:
    """Every pair of a channel and an output, by NumPy."""
    pairs = [
        [
            sum(
                np.correlate(c.astype(np.float64), k, "valid")
                for c, k in zip(image, kernel, strict=True)
            )
            for kernel in weight
        ]
        for image in x
    ]
    return np.array(pairs)


def test_conv1d_correlates() -> None:
    x, weight = _random(3, 4, 40), _random(5, 4, 7)
    assert oracle.relative_l2(nnpack.conv1d(x, weight), _correlate(x, weight)) <= 2e-5


def test_conv_transpose1d_is_the_adjoint() -> None:
    """<conv(x), y> = <x, conv_transpose(y)>."""
    x, weight = _random(2, 4, 41), _random(6, 4, 5)
    forward = nnpack.conv1d(x, weight, stride=2, padding=1, accuracy="exact")
    y = _random(*forward.shape)
    words: dict[str, Any] = {"stride": 2, "padding": 1, "accuracy": "exact"}
    back = nnpack.conv_transpose1d(y, weight, **words)
    missing = x.shape[2] - back.shape[2]
    full = nnpack.conv_transpose1d(y, weight, output_padding=missing, **words)
    assert full.shape == x.shape
    left, right = np.vdot(forward.astype(np.float64), y), np.vdot(x.astype(np.float64), full)
    assert abs(left - right) <= 1e-4 * abs(left)


@pytest.mark.parametrize("function", [nnpack.conv1d, nnpack.conv_transpose1d])
def test_residual_and_out(function: Callable[..., Float32Array]) -> None:
    x, weight = _random(2, 4, 30), _random(4, 4, 3)
    y = function(x, weight)
    residual = _random(*y.shape)
    np.testing.assert_allclose(function(x, weight, residual=residual), y + residual, atol=1e-5)
    out = residual.copy()
    assert function(x, weight, residual=out, out=out) is out
    np.testing.assert_allclose(out, y + residual, atol=1e-5)


BAD: dict[str, dict[str, Any]] = {
    "an image": {"x": np.zeros((1, 4, 5, 5), np.float32)},
    "weight of an image": {"weight": np.zeros((4, 4, 3, 3), np.float32)},
    "a pair of strides": {"stride": (1, 2)},
    "four paddings": {"padding": (1, 1, 1, 1)},
    "no dilation": {"dilation": 0},
    "out": {"out": np.zeros((1, 4, 29), np.float32)},
    "out of an image": {"out": np.zeros((1, 4, 1, 28), np.float32)},
    "longer than x": {"weight": np.zeros((4, 4, 31), np.float32)},
}


@pytest.mark.parametrize("changes", BAD.values(), ids=BAD)
def test_malformed_arguments_are_refused(changes: dict[str, Any]) -> None:
    words = {"x": np.zeros((1, 4, 30), np.float32), "weight": np.zeros((4, 4, 3), np.float32)}
    with pytest.raises(nnpack.ProblemError):
        nnpack.conv1d(**{**words, **changes})


def test_other_dtypes_are_refused() -> None:
    x, weight = np.zeros((1, 4, 30), np.float32), np.zeros((4, 4, 3), np.float32)
    with pytest.raises(nnpack.DtypeError):
        nnpack.conv1d(x.astype(np.float64), weight)
    with pytest.raises(nnpack.DtypeError):
        nnpack.conv1d(x, weight, out=np.zeros((1, 4, 28)))  # type: ignore[arg-type]
