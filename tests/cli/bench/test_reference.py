"""The float64 reference that everything timed is held against."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from nnpack.cli.bench.contestant import Operands, random_operands
from nnpack.cli.bench.layers import Layer
from nnpack.cli.bench.reference import CHECKED_IMAGES, Reference, convolve_image
from tests.cli.bench.fakes import LAYERS, OBLONG, SMALL, convolve


def by_definition(layer: Layer, operands: Operands, i: int) -> np.ndarray:
    """The sum over the window, output by output."""
    (top, left), depth = layer.margins, layer.in_channels // layer.groups
    padded = np.pad(operands.x[i].astype(float), ((0, 0), (top, top), (left, left)))
    rows, columns = ((k - 1) * layer.dilation + 1 for k in layer.window)
    y = np.empty(layer.output_shape(1)[1:])
    for o, h, w in itertools.product(*map(range, y.shape)):
        first = o * layer.groups // layer.out_channels * depth
        top, left = h * layer.stride, w * layer.stride
        window = padded[first : first + depth, top : top + rows, left : left + columns]
        window = window[:, :: layer.dilation, :: layer.dilation]
        y[o, h, w] = (window * operands.weight[o]).sum() + operands.bias[o]
    return y


@pytest.mark.parametrize("layer", [*LAYERS, OBLONG, Layer("", 6, 9, 5, 3, 2, 0, groups=3)])
def test_it_is_the_definition_of_convolution(layer: Layer) -> None:
    operands = random_operands(layer, 2)
    image = convolve_image(layer, operands, operands.x[1])
    np.testing.assert_allclose(image, by_definition(layer, operands, 1), atol=1e-12)


def test_errors_are_relative_to_the_largest_output() -> None:
    operands = random_operands(SMALL, 2)
    reference, y = Reference(SMALL, operands), convolve(SMALL, operands)
    assert reference.error(y) < 1e-7
    y[1, 2, 3, 4] += np.abs(reference.values).max() / 100
    assert reference.error(y) == pytest.approx(0.01, rel=1e-4)


def test_nan_and_other_shapes_are_infinitely_wrong() -> None:
    operands = random_operands(SMALL, 1)
    reference, y = Reference(SMALL, operands), convolve(SMALL, operands)
    assert reference.error(y[:, :-1]) == np.inf
    y[0, 0, 0, 0] = np.nan
    assert reference.error(y) == np.inf


def test_a_large_batch_is_checked_at_both_ends_and_between() -> None:
    reference = Reference(SMALL, random_operands(SMALL, 40))
    assert len(reference.images) == CHECKED_IMAGES
    assert {0, 39} <= set(reference.images.tolist())


def test_of_large_images_fewer_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nnpack.cli.bench.reference.CHECKED_FLOPS", 1.0)
    assert Reference(SMALL, random_operands(SMALL, 40)).images.tolist() == [0, 39]
