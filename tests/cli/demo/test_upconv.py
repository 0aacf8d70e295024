"""The network is the one that the weights were trained for."""

from __future__ import annotations

import math

import numpy as np

from nnpack.cli.demo import upconv
from tests.cli.demo.synthetic import naive_upconv, random_layers


def test_the_network_takes_exactly_its_border_from_each_side() -> None:
    side = 2 * upconv.BORDER
    planes = np.zeros((3, side + 2, side + 5), np.float32)
    layers = random_layers(upconv.SHAPES)
    assert naive_upconv(layers, planes).shape == (3, upconv.SCALE * 2, upconv.SCALE * 5)


def test_its_shapes_are_those_of_the_published_network() -> None:
    assert [shape[:2] for shape in upconv.SHAPES] == [
        (16, 3), (32, 16), (64, 32), (128, 64), (128, 128), (256, 128), (3, 256),
    ]  # fmt: skip
    assert sum(map(math.prod, upconv.SHAPES)) == 551_856


def test_an_input_of_156_pixels_takes_23_gflop() -> None:
    side = 156 - 2 * upconv.BORDER
    assert round(upconv.flops(side, side) / 1e9, 1) == 23.3


def test_the_layers_of_this_library_compute_it() -> None:
    weights = random_layers(upconv.SHAPES)
    planes = np.random.default_rng(1).random((3, 33, 38), np.float32)
    enlarged = upconv.Upconv7.from_weights(weights)(planes)
    expected = naive_upconv(weights, planes)
    assert enlarged.shape == expected.shape
    np.testing.assert_allclose(enlarged, expected, atol=1e-4 * np.abs(expected).max())
