"""Converted activations are PyTorch's: values, gradients, writing in place, and who may see it."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn

import nnpack
from nnpack.integrations.torch import activations
from tests.integrations.torch.tensors import (
    assert_close,
    assert_same_gradients,
    gradients,
    randn,
    recorded_calls,
)

convert = nnpack.torch.convert
LAYERS: list[Any] = [
    nn.ReLU(),
    nn.ReLU(inplace=True),
    nn.ReLU6(),
    nn.ReLU6(inplace=True),
    nn.Hardtanh(-0.5, 1),
    nn.LeakyReLU(0.2),
    nn.LeakyReLU(0.2, inplace=True),
    nn.LeakyReLU(-0.5),
    nn.ELU(0.7),
    nn.ELU(inplace=True),
    nn.SiLU(),
    nn.Hardswish(),
    nn.GELU(),
    nn.GELU("tanh"),
]


@pytest.fixture
def everything(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The list of gradients by the library, which takes tensors of any size meanwhile."""
    monkeypatch.setattr(activations, "_LEAST_RECORDED", 0)
    monkeypatch.setattr(activations, "_LEAST", 0)
    return recorded_calls(monkeypatch, nnpack, "activation_gradient")


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_values_and_gradients_are_those_of_the_layer(layer: Any, everything: list[str]) -> None:
    converted = convert(layer)
    assert repr(converted) == f"nnpack.{layer!r}"

    def behind(module: Any) -> Any:
        return lambda x: module(x * 4)  # no leaf, which none may overwrite

    x = randn(2, 3, 5, 7)
    assert_same_gradients(behind(converted), behind(layer), x)
    assert everything == ([] if repr(layer) == "ELU(alpha=1.0, inplace=True)" else everything[:1])
    with torch.no_grad():
        assert_close(converted(x * 4), layer(x * 4))


def test_small_tensors_are_pytorch_s(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = recorded_calls(monkeypatch, activations, "_compute", "_gradient")
    relu = convert(nn.ReLU())
    relu(randn(2, 3, 4, 4)).sum().backward()
    assert calls == []
    large = randn(1, 1, 512, 512)
    assert torch.equal(relu(large), torch.relu(large))
    relu(large).sum().backward()
    assert calls == ["_compute", "_compute", "_gradient"]


@pytest.mark.usefixtures("everything")
class TestInPlace:
    """A converted layer that writes in place does what autograd expects of one."""

    @pytest.fixture
    def layer(self) -> Any:
        return convert(nn.ReLU(inplace=True))

    def test_the_tensor_itself_is_changed(self, layer: Any) -> None:
        x = randn(2, 3, 4, 4) * 2
        version = x._version
        kept = torch.relu(x)
        assert layer(x) is x
        assert torch.equal(x, kept)
        assert x._version > version

    def test_a_result_that_is_ignored_has_its_gradient(self, layer: Any) -> None:
        def ignoring(module: Any) -> Any:
            def run(x: Any) -> Any:
                y = x * 2
                module(y)
                return y * 3

            return run

        x = randn(2, 3, 4, 4)
        assert_same_gradients(ignoring(layer), ignoring(nn.ReLU(inplace=True)), x)

    def test_what_was_saved_must_not_be_overwritten(self, layer: Any) -> None:
        x = randn(2, 3, 4, 4) * 2
        y = x.square()  # whose gradient reads x
        layer(x)
        with pytest.raises(RuntimeError, match="inplace"):
            y.sum().backward()

    def test_leaves_and_views_are_pytorch_s(self, layer: Any) -> None:
        with pytest.raises(RuntimeError, match="leaf"):
            layer(randn(2, 3))

        def through_a_view(module: Any) -> Any:
            def run(x: Any) -> Any:
                y = x * 2
                module(y[:1])
                return y * 1

            return run

        plain = nn.ReLU(inplace=True)
        got, want = (gradients(through_a_view(m), randn(2, 3)) for m in (layer, plain))
        assert all(torch.equal(*pair) for pair in zip(got, want, strict=True))


@pytest.mark.usefixtures("everything")
@pytest.mark.parametrize("layer", [nn.ReLU(), nn.ReLU6(), nn.SiLU()], ids=str)
def test_gradients_have_gradients(layer: Any) -> None:
    def curvature(function: Any) -> Any:
        x = randn(2, 3, 5)
        (first,) = torch.autograd.grad(function(x).pow(3).sum(), x, create_graph=True)
        return torch.autograd.grad(first.square().sum(), x)[0]

    assert_close(curvature(convert(layer)), curvature(layer))


def test_constant_sides_stop_infinite_gradients(everything: list[str]) -> None:
    x = torch.tensor([-1.0, 0.0, 1.0, float("nan")], requires_grad=True)
    grad = torch.full((4,), float("inf"))
    for layer in (nn.ReLU(), nn.ReLU6()):
        got, want = (torch.autograd.grad(m(x), x, grad)[0] for m in (convert(layer), layer))
        assert torch.equal(got.isinf(), want.isinf())
        assert torch.equal(got.isnan(), want.isnan())
    assert everything


@pytest.mark.usefixtures("everything")
def test_other_tensors_and_gradients_are_pytorch_s() -> None:
    relu = convert(nn.ReLU())
    x = randn(2, 3, 4, 5)
    for other in (x.double(), x.transpose(1, 2), x.to(memory_format=torch.channels_last)):
        assert torch.equal(relu(other), torch.relu(other))
        assert relu(other).stride() == torch.relu(other).stride()
    for module in (relu, torch.relu):
        (grad,) = torch.autograd.grad(module(x).sum(), x)  # expanded, of one number
        assert torch.equal(grad, (x > 0).float())
    with torch.inference_mode():
        assert torch.equal(relu(x.clone()), torch.relu(x))
