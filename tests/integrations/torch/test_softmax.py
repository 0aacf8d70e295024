"""Converted softmax layers agree with PyTorch's, and small ones are PyTorch's."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn

import nnpack
from tests.integrations.torch.tensors import (
    assert_close,
    assert_same_gradients,
    randn,
    recorded_calls,
)

convert = nnpack.torch.convert


@pytest.mark.parametrize("layer", [nn.Softmax, nn.LogSoftmax])
@pytest.mark.parametrize(("shape", "dim"), [((70, 1000), 1), ((5, 7, 60, 33), -3), ((70000,), 0)])
def test_results_and_gradients_agree_with_pytorch(
    layer: Any, shape: tuple[int, ...], dim: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = recorded_calls(monkeypatch, nnpack, "softmax", "log_softmax")
    plain, converted, x = layer(dim), convert(layer(dim)), randn(*shape)
    assert type(converted).__name__ == layer.__name__
    assert_same_gradients(converted, plain, x)
    with torch.no_grad():
        assert_close(converted(x), plain(x))
    assert len(calls) == 2


@pytest.mark.parametrize("layer", [nn.Softmax, nn.LogSoftmax])
def test_other_tensors_go_to_pytorch(layer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = recorded_calls(monkeypatch, nnpack, "softmax", "log_softmax")
    plain, converted, large = layer(1), convert(layer(1)), randn(300, 300, grad=False)
    for x in (large.double(), large.t(), large[:8]):
        assert torch.equal(converted(x), plain(x))
    assert calls == []
    with pytest.raises(IndexError):
        convert(layer(5))(large)
    compiled = torch.compile(converted, backend="eager", fullgraph=True)
    assert_close(compiled(large), plain(large))


@pytest.mark.parametrize("layer", [nn.Softmax, nn.LogSoftmax])
def test_gradients_have_gradients(layer: Any) -> None:
    def curvature(module: Any) -> Any:
        x = randn(2, 40000)
        (first,) = torch.autograd.grad(module(x).square().sum(), x, create_graph=True)
        return torch.autograd.grad(first.square().sum(), x)[0]

    assert_close(curvature(convert(layer(0))), curvature(layer(0)), 2e-4)
