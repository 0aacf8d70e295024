"""The layers that are timed."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter

import pytest

from nnpack.cli.bench.layers import LAYERS, Layer, select_layers


def test_every_shape_is_there_once() -> None:
    shapes = Counter(dataclasses.replace(layer, network="") for layer in LAYERS)
    assert set(shapes.values()) == {1}
    assert len({layer.name for layer in LAYERS}) == len(LAYERS)


def test_networks_are_complete() -> None:
    networks = Counter(layer.network for layer in LAYERS)
    assert networks == {
        "AlexNet": 5,
        "OverFeat-fast": 5,
        "VGG-A": 7,
        "ResNet-50": 23,
        "MobileNet-v1": 19,
    }


@pytest.mark.parametrize(
    ("layer", "name", "kind", "out_image", "flops"),
    [
        (Layer("", 3, 64, 224, 11, 4, 2), "11x11/4 3->64 @224", "first", 55, 140_553_600),
        (Layer("", 64, 192, 27, 5, 1, 2), "5x5 64->192 @27", "5x5", 27, 447_897_600),
        (Layer("", 256, 256, 56, 3, 1, 1), "3x3 256->256 @56", "3x3", 56, 3_699_376_128),
        (Layer("", 128, 128, 56, 3, 2, 1), "3x3/2 128->128 @56", "3x3/2", 28, 231_211_008),
        (Layer("", 256, 512, 56, 1, 2), "1x1/2 256->512 @56", "1x1/2", 28, 205_520_896),
        (Layer("", 32, 32, 112, 3, 1, 1, 32), "depthwise 3x3 32 @112", "depthwise", 112, 7_225_344),
        (
            Layer("", 64, 64, 112, 3, 2, 1, 64),
            "depthwise 3x3/2 64 @112",
            "depthwise/2",
            56,
            3_612_672,
        ),
    ],
)
def test_name_kind_and_operations(
    layer: Layer, name: str, kind: str, out_image: int, flops: int
) -> None:
    assert (layer.name, layer.kind, layer.out_image) == (name, kind, out_image)
    assert layer.flops(1) == flops
    assert layer.flops(8) == 8 * flops


def test_mobilenet_adds_up_to_what_its_paper_says() -> None:
    """569 million multiply-adds, of which 1.02 in the classifier; five blocks are repeated."""
    layers = select_layers(LAYERS, networks=["mobilenet"])
    repeated = [layer for layer in layers if layer.in_channels == layer.out_channels == 512]
    # The table of layers has the stride-2 one among those of 512 channels once, not five times.
    block = [layer for layer in repeated if layer.stride == 1]
    flops = sum(layer.flops(1) for layer in layers) + 4 * sum(layer.flops(1) for layer in block)
    assert flops / 2e6 == pytest.approx(569 - 1.02, rel=2e-3)


def test_layers_are_selected_by_network_name_and_kind() -> None:
    assert {layer.network for layer in select_layers(LAYERS, networks=["VGG", "alex"])} == {
        "VGG-A",
        "AlexNet",
    }
    assert {layer.kind for layer in select_layers(LAYERS, "^3x3$")} == {"3x3"}
    assert {layer.image for layer in select_layers(LAYERS, "@56$")} == {56}
    assert select_layers(LAYERS, "FIRST", ["vgg"]) == (Layer("VGG-A", 3, 64, 224, 3, padding=1),)
    assert select_layers(LAYERS, "17x17") == ()


def test_a_malformed_pattern_is_an_error() -> None:
    with pytest.raises(re.error):
        select_layers(LAYERS, "(3x3")
