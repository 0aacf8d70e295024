"""The layers that are timed."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter

import pytest

from nnpack.cli.bench.layers import Layer, select_layers, unique_layers
from nnpack.cli.bench.networks import ALL_LAYERS, LAYERS, NAMED_NETWORKS, NETWORKS


@pytest.mark.parametrize("layers", [LAYERS, unique_layers(ALL_LAYERS)])
def test_every_shape_is_there_once(layers: tuple[Layer, ...]) -> None:
    shapes = Counter(dataclasses.replace(layer, network="") for layer in layers)
    assert set(shapes.values()) == {1}
    assert len({layer.name for layer in layers}) == len(layers)


def test_a_shape_of_two_networks_belongs_to_the_first_that_is_asked_for() -> None:
    shared = [layer for layer in NETWORKS if (layer.kernel, layer.image) == (7, 224)]
    assert [layer.network for layer in shared] == ["ResNet-50", "GoogLeNet"]
    assert select_layers(NETWORKS, "^7x7/2")[0].network == "ResNet-50"
    assert select_layers(NETWORKS, "^7x7/2", ["googlenet"])[0].network == "GoogLeNet"
    assert len(select_layers(NETWORKS, "^7x7/2")) == 1


def test_seven_networks_go_by_name() -> None:
    assert len(NAMED_NETWORKS) == 7


def test_googlenet_adds_up_to_what_its_paper_says() -> None:
    """1.5 billion multiply-adds with the fully connected layer."""
    flops = sum(layer.flops(1) for layer in NETWORKS if layer.network == "GoogLeNet")
    assert flops / 2e9 == pytest.approx(1.58, abs=0.02)


def test_mobilenet_v2_adds_up_to_what_its_paper_says() -> None:
    """300 million multiply-adds, of which 1.28 in the classifier."""
    flops = sum(layer.flops(1) for layer in NETWORKS if layer.network == "MobileNet-v2")
    assert flops / 2e6 == pytest.approx(300 - 1.28, rel=5e-3)


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
        (Layer("", 3, 64, 224, 11, 4, 2), "11x11/4 3->64 @224", "first large", 55, 140_553_600),
        (Layer("", 64, 192, 27, 5, 1, 2), "5x5 64->192 @27", "5x5", 27, 447_897_600),
        (Layer("", 256, 256, 56, 3, 1, 1), "3x3 256->256 @56", "3x3", 56, 3_699_376_128),
        (Layer("", 128, 128, 56, 3, 2, 1), "3x3/2 128->128 @56", "3x3/2", 28, 231_211_008),
        (Layer("", 256, 512, 56, 1, 2), "1x1/2 256->512 @56", "1x1/2", 28, 205_520_896),
        (
            Layer("", 64, 32, 28, 3, padding=2, dilation=2),
            "3x3 d2 64->32 @28",
            "dilated 3x3",
            28,
            28_901_376,
        ),
        (Layer("", 128, 96, 17, (1, 7), padding=(0, 3)), "1x7 128->96 @17", "1xN", 17, 49_717_248),
        (
            Layer("", 128, 128, 56, 3, 2, 1, 32),
            "3x3/2 128->128 g32 @56",
            "grouped/2",
            28,
            7_225_344,
        ),
        (Layer("", 3, 16, 32, 3), "3x3 3->16 @32", "first 3x3", 30, 777_600),
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
    assert (layer.name, layer.kind, layer.out_size) == (name, kind, (out_image, out_image))
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
    assert {layer.kind for layer in select_layers(LAYERS, kinds=["3X3/2"])} == {"3x3/2"}


def test_a_malformed_pattern_is_an_error() -> None:
    with pytest.raises(re.error):
        select_layers(LAYERS, "(3x3")
