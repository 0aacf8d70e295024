"""Calls prepared by shapes do what the functions do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nnpack
from nnpack.arrays import Float32Array
from nnpack.functional.prepared import (
    Place,
    prepare_convolution,
    prepare_input_gradient,
    prepare_linear,
    prepare_max_pool,
    prepare_max_pool_gradient,
    prepare_weight_gradient,
)
from nnpack.runtime.memory import address

WORDS = {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": 2, "accuracy": "exact"}


def _words(transposed: bool) -> tuple[Any, ...]:
    stride, padding, dilation, groups, accuracy = WORDS.values()
    return stride, padding, (1, 0), dilation, groups, transposed, accuracy


def _randn(*shape: int) -> Float32Array:
    return np.random.default_rng(sum(shape)).standard_normal(shape, dtype=np.float32)


def _place(array: Float32Array) -> Place:
    n, c, h, w = array.strides
    return array.shape, (n // 4, c // 4, h // 4, w // 4)


def _addresses(**arrays: Float32Array) -> dict[str, int]:
    return {name: address(array) for name, array in arrays.items()}


@pytest.mark.parametrize("transposed", [False, True])
def test_convolutions_and_their_gradients(transposed: bool) -> None:
    name = "conv_transpose2d" if transposed else "conv2d"
    words: dict[str, Any] = WORDS | ({"output_padding": (1, 0)} if transposed else {})
    x = _randn(3, 12, 9, 8)[:, ::2, 1:]
    weight, bias = _randn(6, 2 if transposed else 3, 3, 3), _randn(4 if transposed else 6)
    y = getattr(nnpack, name)(x, weight, bias, threads=1, **words)
    call = _place(x), weight.shape, bias.shape, _words(transposed), 1
    arrays = _addresses(x=x, weight=weight, bias=bias)
    np.testing.assert_array_equal(prepare_convolution(*call).run_at(arrays), y)

    grad, known = _randn(*y.shape), (_words(transposed), 1)
    expected = getattr(nnpack, f"{name}_input_gradient")(grad, weight, x.shape, threads=1, **words)
    prepared = prepare_input_gradient(_place(grad), weight.shape, x.shape, *known)
    found = prepared.run_at(_addresses(x=grad, weight=weight))
    np.testing.assert_array_equal(found, expected)

    x = np.ascontiguousarray(x)
    gradient = getattr(nnpack, f"{name}_weight_gradient")
    expected = gradient(x, grad, weight.shape, threads=1, **words)
    prepared = prepare_weight_gradient(_place(x), _place(grad), weight.shape, *known)
    slots = _addresses(x=grad, grad=x) if transposed else _addresses(x=x, grad=grad)
    np.testing.assert_array_equal(prepared.run_at(slots), expected)
    with pytest.raises(nnpack.ProblemError, match=r"grad.shape=\(3, 1, 1, 1\) must be"):
        prepare_weight_gradient(_place(x), _place(grad[:, :1, :1, :1]), weight.shape, *known)


def test_linear_layers_and_pools() -> None:
    x, weight, bias = _randn(5, 7, 33), _randn(20, 33), _randn(20)
    prepared = prepare_linear(x.shape, weight.shape, bias.shape, 1)
    found = prepared.run_at(_addresses(x=x, weight=weight, bias=bias))
    np.testing.assert_array_equal(found, nnpack.linear(x, weight, bias, threads=1))
    with pytest.raises(nnpack.ProblemError, match="bias"):
        prepare_linear(x.shape, weight.shape, (19,), 1)
    images = _randn(2, 3, 9, 20)[:, :, 1:, ::1]
    words = (3, 3), (2, 2), (1, 1), (1, 1), True
    y, places = nnpack.max_pool2d(images, *words, return_indices=True)
    prepared, indices = prepare_max_pool(_place(images), words, 1), np.empty(y.shape, np.int64)
    found = prepared.run_at({**_addresses(x=images), "indices": address(indices)})
    np.testing.assert_array_equal(found, y)
    np.testing.assert_array_equal(indices, places)
    grad = _randn(*y.shape)
    expected = nnpack.max_pool2d_gradient(grad, places, images.shape)
    prepared = prepare_max_pool_gradient(grad.shape, images.shape, 1)
    given = _addresses(grad=grad) | {"indices": address(indices)}
    np.testing.assert_array_equal(prepared.run_at(given), expected)
    indices[0, 0, 0, :3] = -1, images[0, 0].size, 2**62
    found = prepared.run_at(_addresses(grad=grad) | {"indices": address(indices)})
    np.testing.assert_array_equal(found[0, 1:], expected[0, 1:])


def test_the_weight_gradient_of_no_images_is_zero() -> None:
    words = ((1, 1), (0, 0), (0, 0), (1, 1), 1, False, "fast")
    empty = (0, 2, 5, 5), (50, 25, 5, 1)
    prepared = prepare_weight_gradient(empty, ((0, 3, 3, 3), (27, 9, 3, 1)), (3, 2, 3, 3), words, 1)
    assert not prepared.run_at({}).any()
