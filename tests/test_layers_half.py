"""Layers with weights in half precision: rounded once, everywhere alike."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import nnpack
from tests import oracle
from tests.plans import Float32Array

KINDS = pytest.mark.parametrize("kind", [nnpack.Conv2d, nnpack.ConvTranspose2d])


def _arrays() -> tuple[Float32Array, Float32Array]:
    rng = np.random.default_rng(7)
    x = rng.standard_normal((2, 12, 15, 15), dtype=np.float32)
    return x, rng.standard_normal((12, 12, 3, 3), dtype=np.float32)


def _halves(weight: Float32Array) -> Float32Array:
    return weight.astype(np.float16).astype(np.float32)


@KINDS
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("accuracy", "bound"), [("fast", 5.2e-4), ("exact", 1e-6)])
def test_the_error_is_against_the_rounded_weights(
    kind: type, stride: int, accuracy: str, bound: float
) -> None:
    x, weight = _arrays()
    layer = kind(weight, stride=stride, padding=1, weight_storage="float16", accuracy=accuracy)
    compute = oracle.conv2d if kind is nnpack.Conv2d else oracle.conv_transpose2d
    y, reference = layer(x), compute(x, _halves(weight), stride=stride, padding=1)
    assert oracle.relative_l2(y, reference) <= bound
    np.testing.assert_array_equal(layer(x), y)


@KINDS
def test_packed_weights_are_rounded_only_once(kind: type) -> None:
    x, weight = _arrays()
    words = {"algorithm": "implicit_gemm", "stride": 2}
    y = kind(weight, weight_storage="float16", **words)(x)
    np.testing.assert_array_equal(y, kind(_halves(weight), **words)(x))


def test_rounding_is_to_nearest_even_into_the_subnormals() -> None:
    numbers = [1 + 2**-11, 1 + 3 * 2**-11, 2**-24, 2**-25, 3 * 2**-25, 65519, -65504, 1e-30]
    nearest = [1, 1 + 2**-9, 2**-24, 0, 2**-23, 65504, -65504, 0]
    weight = np.array(numbers, np.float32).reshape(-1, 1, 1, 1)
    layer = nnpack.Conv2d(weight, weight_storage="float16")
    y = layer(np.ones((1, 1, 2, 2), np.float32))
    np.testing.assert_array_equal(y[0, :, 0, 0], np.array(nearest, np.float32))


@pytest.mark.parametrize("value", [65520, -7e4, 3e38])
def test_weights_beyond_the_range_are_refused(value: float) -> None:
    _, weight = _arrays()
    layer = nnpack.Conv2d(weight, weight_storage="float16")
    weight[3, 2, 1, 0] = value
    message = rf"weight holds {np.float32(value)}, beyond the 65504"
    with pytest.raises(nnpack.ProblemError, match=message.replace("+", r"\+")):
        nnpack.Conv2d(weight, weight_storage="float16")
    with pytest.raises(nnpack.ProblemError, match="weight_storage='float32'"):
        layer.update(weight)


def test_infinite_weights_and_nan_stay() -> None:
    weight = np.array([np.inf, -np.inf, np.nan, 1], np.float32).reshape(4, 1, 1, 1)
    y = nnpack.Conv2d(weight, weight_storage="float16")(np.ones((1, 1, 1, 1), np.float32))
    np.testing.assert_array_equal(y.ravel(), weight.ravel())


@pytest.mark.parametrize("storage", ["float8", None, 16, np.float16])
def test_other_storage_is_refused(storage: object) -> None:
    with pytest.raises(nnpack.ProblemError, match='must be "float32" or "float16"'):
        nnpack.Conv2d(_arrays()[1], weight_storage=storage)  # type: ignore[arg-type]


@KINDS
def test_update_rounds_and_pickling_keeps_the_storage(kind: type) -> None:
    x, weight = _arrays()
    layer = kind(weight, weight_storage="float16")
    layer(x)
    layer.update(3 * weight)
    again = pickle.loads(pickle.dumps(layer))
    expected = kind(3 * weight, weight_storage="float16")(x)
    for found in (layer, again):
        np.testing.assert_array_equal(found(x), expected)
    assert str(again.explain(x.shape)) == str(layer.explain(x.shape))
    assert len(pickle.dumps(layer)) < 0.6 * len(pickle.dumps(kind(weight)))


def test_threads_and_tuning_compute_the_same_weights() -> None:
    x, weight = _arrays()
    one, three = (
        nnpack.Conv2d(weight, padding=1, weight_storage="float16", threads=n) for n in (1, 3)
    )
    np.testing.assert_array_equal(one(x), three(x))
    one.tune(x.shape, seconds=0.01)
    assert oracle.relative_l2(one(x), oracle.conv2d(x, _halves(weight), padding=1)) <= 5.2e-4
