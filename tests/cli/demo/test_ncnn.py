"""The reader of ncnn weight files returns what was stored, and refuses everything else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnpack.cli.demo.errors import NcnnFormatError
from nnpack.cli.demo.ncnn import FLOAT16_TAG, FLOAT32_TAG, LayerWeights, read_weights
from tests.cli.demo.synthetic import random_layers, weight_file

# 3 * 3 * 3 = 27 and 5 * 1 * 3 = 15 float16 values: not multiples of 4 bytes, so both are padded.
SHAPES = ((3, 1, 3, 3), (5, 3, 1, 1))
LAYERS = random_layers(SHAPES)
INT8_TAG = 0x000D4B38


@pytest.mark.parametrize("tag", [FLOAT16_TAG, FLOAT32_TAG])
def test_layers_are_read_as_they_were_written(tag: int) -> None:
    layers = read_weights(weight_file(LAYERS, tag), SHAPES)
    for layer, expected in zip(layers, LAYERS, strict=True):
        assert layer.weight.dtype == layer.bias.dtype == np.float32
        np.testing.assert_array_equal(layer.weight, expected.weight)
        np.testing.assert_array_equal(layer.bias, expected.bias)


def test_a_file_that_ends_early_is_refused_wherever_it_ends() -> None:
    data = weight_file(LAYERS)
    for size in range(len(data)):
        with pytest.raises(NcnnFormatError, match="ends within"):
            read_weights(data[:size], SHAPES)


def test_a_file_with_bytes_to_spare_is_refused() -> None:
    with pytest.raises(NcnnFormatError, match="4 bytes more"):
        read_weights(weight_file(LAYERS) + bytes(4), SHAPES)


@pytest.mark.parametrize("tag", [INT8_TAG, 1, 0xFFFFFFFF])
def test_weights_stored_in_another_way_are_refused(tag: int) -> None:
    data = tag.to_bytes(4, "little") + weight_file(LAYERS)[4:]
    with pytest.raises(NcnnFormatError, match=f"layer 1 has the tag 0x{tag:08x}"):
        read_weights(data, SHAPES)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    weight, bias = LAYERS[0].weight.copy(), LAYERS[0].bias.copy()
    weight[0, 0, 0, 0] = value
    with pytest.raises(NcnnFormatError, match="weights of layer 1 are not all finite"):
        read_weights(weight_file([LayerWeights(weight, bias)]), SHAPES[:1])
    bias[-1] = value
    with pytest.raises(NcnnFormatError, match="biases of layer 1 are not all finite"):
        read_weights(weight_file([LayerWeights(LAYERS[0].weight, bias)]), SHAPES[:1])


def test_it_is_also_a_value_error() -> None:
    with pytest.raises(ValueError, match="tag of layer 1"):
        read_weights(b"", SHAPES)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_read_or_refused_but_never_crash(data: bytes) -> None:
    try:
        layers = read_weights(data, SHAPES)
    except NcnnFormatError:
        return
    assert [layer.weight.shape for layer in layers] == list(SHAPES)
