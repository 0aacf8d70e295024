"""Every peer that is installed computes the layers it is timed on."""

from __future__ import annotations

import warnings

import pytest

from nnpack.cli.bench.contestant import Contestant, random_operands
from nnpack.cli.bench.layers import Layer
from nnpack.cli.bench.peers import PEERS, peer_versions
from nnpack.cli.bench.peers.ncnn import parameters
from nnpack.cli.bench.reference import EXACT, Reference
from tests.cli.bench.fakes import fake_peer

APPROXIMATE = {"mnn": 1e-2}
LAYERS = (
    Layer("", 20, 30, 13, 3, padding=1),
    Layer("", 33, 17, 9, 1),
    Layer("", 3, 16, 32, 7, stride=2, padding=3),
    Layer("", 24, 24, 15, 3, stride=2, padding=1, groups=24),
    Layer("", 12, 10, 14, 3, padding=2, dilation=2),
    Layer("", 12, 10, 14, (1, 5), padding=(0, 2)),
    Layer("", 24, 12, 9, 3, padding=1, groups=3),
)


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_an_installed_peer_is_correct(peer: Contestant, layer: Layer) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs, not ours
        if reason := peer.why_unavailable():
            pytest.skip(reason)
        operands = random_operands(layer, 2)
        prepared = peer.prepare(layer, operands, 1)
        prepared.run()
        output = prepared.to_array(prepared.run())
    assert Reference(layer, operands).error(output) <= APPROXIMATE.get(peer.name, EXACT)


def test_a_peer_that_is_not_installed_says_so() -> None:
    reason = fake_peer("caffe", packages=("no_such_package",)).why_unavailable()
    assert reason == "ModuleNotFoundError: No module named 'no_such_package'"


def test_versions_are_told_of_packages_that_have_any() -> None:
    assert list(peer_versions([fake_peer("a", packages=("numpy", "math"))])) == ["numpy"]


def test_ncnn_knows_groups_as_another_layer() -> None:
    assert "Convolution conv 1 1 x y 0=30 1=3 2=1 3=1 4=1 5=1 6=5400\n" in parameters(LAYERS[0])
    assert "ConvolutionDepthWise conv 1 1 x y 0=24 1=3 2=1 3=2 4=1 5=1 6=216 7=24\n" in parameters(
        LAYERS[3]
    )


def test_ncnn_is_told_both_sides_of_oblong_kernels() -> None:
    words = "0=10 1=5 2=1 3=1 4=2 5=1 6=600 11=1 14=0"
    assert f"Convolution conv 1 1 x y {words}\n" in parameters(LAYERS[5])
