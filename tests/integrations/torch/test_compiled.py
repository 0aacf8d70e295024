"""Converted modules under torch.compile: whole graphs, packed once, the same in every backend."""

from __future__ import annotations

import copy
import gc
import shutil
from collections.abc import Callable, Iterator

import pytest

torch = pytest.importorskip("torch")

from torch import nn

import nnpack
from nnpack.integrations.torch import packed
from tests.integrations.torch.networks import NETWORKS
from tests.integrations.torch.tensors import assert_close, randn, recorded_calls

convert = nnpack.torch.convert
needs_a_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="needs a C++ compiler"
)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    yield
    torch._dynamo.reset()


def tiny() -> nn.Sequential:
    """What inductor, which calls a C++ compiler for each loop, compiles in seconds."""
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3, stride=4), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(256, 2)
    return nn.Sequential(*layers)


@pytest.mark.parametrize(
    ("backend", "network"),
    [
        ("eager", tiny),
        ("aot_eager", NETWORKS["small_resnet"]),
        ("aot_eager", NETWORKS["autoencoder"]),
        pytest.param("inductor", tiny, marks=needs_a_compiler),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_training_and_inference_are_whole_graphs(
    backend: str, network: Callable[[], nn.Module]
) -> None:
    torch.manual_seed(0)
    plain = network()
    converted = convert(copy.deepcopy(plain))
    compiled = torch.compile(converted, backend=backend, fullgraph=True)
    images = randn(4, 3, 32, 32, grad=False)
    for module in (plain, compiled):
        optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
        module(images).square().mean().backward()
        optimizer.step()
    for got, want in zip(converted.state_dict().values(), plain.state_dict().values(), strict=True):
        assert_close(got.float(), want.float(), 1e-4)
    with torch.no_grad():
        assert_close(compiled.eval()(images), plain.eval()(images), 2e-4)


LAYERS = {
    "Conv2d": lambda: nn.Conv2d(3, 8, 3, padding="same"),
    "ConvTranspose2d": lambda: nn.ConvTranspose2d(3, 8, 3, stride=2, output_padding=1),
    "Linear": lambda: nn.Linear(9, 8),
}


@pytest.mark.parametrize("name", LAYERS)
def test_inference_packs_each_version_of_the_weights_once(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    packings = recorded_calls(monkeypatch, nnpack, name)
    plain = LAYERS[name]().eval()
    layer = convert(plain)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    x = randn(2, 3, 9, 9, grad=False)

    def check(times: int) -> None:
        packings.clear()
        for _ in range(2):
            with torch.no_grad():
                assert_close(compiled(x), plain(x))
        assert len(packings) == times

    check(1)
    with torch.no_grad():
        plain.weight.mul_(2)
    check(1)
    plain.bias.data.mul_(3)  # of which versions know nothing
    check(1)
    plain.weight.data = plain.weight.data * 2
    check(1)
    optimizer = torch.optim.SGD(layer.parameters(), 0.5, fused=True)
    compiled(x).square().sum().backward()
    optimizer.step()
    check(1)
    layer.train()
    check(1)
    check(0)


def test_what_was_packed_goes_with_the_weights() -> None:
    layer = convert(nn.Linear(9, 8)).eval()
    before = len(packed._kept)
    with torch.no_grad():
        torch.compile(layer, backend="eager", fullgraph=True)(randn(2, 9, grad=False))
    assert len(packed._kept) == before + 1
    del layer
    torch._dynamo.reset()
    gc.collect()
    assert len(packed._kept) == before


def test_the_operators_of_inference_are_what_pytorch_asks_of_operators() -> None:
    operators = torch.ops.nnpack
    x, weight, bias = (randn(*s, grad=False) for s in ((2, 4, 9, 9), (6, 4, 3, 3), (6,)))
    call = ([2, 2], [1, 1], [0, 0], [1, 1], 1, False, "fast")
    for w in (weight, nn.Parameter(weight, requires_grad=False)):
        torch.library.opcheck(operators.convolution_inference.default, (x, w, bias, *call))
        rows = (x, w[0, 0, 0].expand(9, 3).repeat(1, 3), None)
        torch.library.opcheck(operators.linear_inference.default, rows)
