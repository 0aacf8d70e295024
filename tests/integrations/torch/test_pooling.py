"""nnpack.torch.max_pool2d agrees with PyTorch's."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: N812
from torch import nn

import nnpack
from tests.integrations.torch.tensors import assert_same_gradients, randn, recorded_calls

nt = nnpack.torch

POOLS: list[dict[str, Any]] = [
    {"kernel_size": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": (3, 2), "stride": (1, 2)},
    {"kernel_size": 3, "stride": 2, "ceil_mode": True},
    {"kernel_size": 2, "dilation": 2, "stride": 1},
]


@pytest.mark.parametrize("words", POOLS, ids=str)
def test_maxima_indices_and_gradients_agree_with_pytorch(words: dict[str, Any]) -> None:
    x = randn(2, 3, 11, 10)
    assert_same_gradients(
        lambda x: nt.max_pool2d(x, **words), lambda x: F.max_pool2d(x, **words), x
    )
    got = nt.max_pool2d(x, **words, return_indices=True)
    want = F.max_pool2d(x, **words, return_indices=True)
    assert all(torch.equal(*pair) for pair in zip(got, want, strict=True))
    with torch.no_grad():
        assert torch.equal(nt.max_pool2d(x, **words), want[0])


def test_strided_views_are_taken_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = recorded_calls(monkeypatch, nnpack, "max_pool2d")
    x = randn(2, 6, 20, 12, grad=False)[:, ::2, 1:17:3]
    assert torch.equal(nt.max_pool2d(x, 2), F.max_pool2d(x, 2))
    assert calls == ["max_pool2d"]


def test_other_images_go_to_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = recorded_calls(monkeypatch, nnpack, "max_pool2d")
    x = randn(4, 3, 8, 8, grad=False)
    for images in (x.double(), x.contiguous(memory_format=torch.channels_last), x[0]):
        assert torch.equal(nt.max_pool2d(images, 2), F.max_pool2d(images, 2))
    assert calls == []
    with pytest.raises(RuntimeError):
        nt.max_pool2d(randn(1, 1, 2, 2, grad=False), 5)


@pytest.mark.parametrize("words", [{"stride": 0}, {"padding": (1, 1, 1, 1)}, {"padding": 2}])
def test_what_pytorch_refuses_is_refused(words: dict[str, Any]) -> None:
    with pytest.raises(RuntimeError):
        nt.max_pool2d(randn(1, 2, 8, 8, grad=False), 2, **words)


@pytest.mark.parametrize("indices", [True, False])
def test_the_converted_layer_does_what_the_layer_did(indices: bool) -> None:
    plain = nn.MaxPool2d(3, 2, 1, ceil_mode=True, return_indices=indices)
    converted = nt.convert(plain)
    assert type(converted) is nt.MaxPool2d
    x = randn(2, 3, 9, 9)
    got, want = converted(x), plain(x)
    if indices:
        assert torch.equal(got[1], want[1])
        got, want = got[0], want[0]
    assert torch.equal(got, want)


def test_gradients_have_gradients() -> None:
    def curvature(function: Any) -> Any:
        x = randn(1, 2, 6, 6)
        (first,) = torch.autograd.grad(function(x, 2).pow(3).sum(), x, create_graph=True)
        return torch.autograd.grad(first.square().sum(), x)[0]

    assert torch.allclose(curvature(nt.max_pool2d), curvature(F.max_pool2d))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_operator_is_what_pytorch_asks_of_operators(dtype: Any) -> None:
    x = randn(2, 3, 9, 9).to(dtype).detach().requires_grad_()
    call = (x, [3, 3], [2, 2], [1, 1], [1, 1], False)
    operators = torch.ops.nnpack
    torch.library.opcheck(operators.max_pool2d_with_indices.default, call)
    y, indices = operators.max_pool2d_with_indices(*call)
    gradient = (y.detach(), x.detach(), indices, *call[1:])
    torch.library.opcheck(operators.max_pool2d_gradient.default, gradient)


def test_compiled_calls_give_the_same() -> None:
    compiled = torch.compile(lambda x: nt.max_pool2d(x, 2), backend="aot_eager", fullgraph=True)
    assert_same_gradients(compiled, lambda x: F.max_pool2d(x, 2), randn(2, 3, 8, 8))
