"""nnpack.torch.avg_pool2d and adaptive_avg_pool2d agree with PyTorch's."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: N812
from torch import nn

import nnpack
from tests.integrations.torch.tensors import (
    assert_close,
    assert_same_gradients,
    randn,
    recorded_calls,
)

nt = nnpack.torch

SLIDING: list[dict[str, Any]] = [
    {"kernel_size": 2},
    {"kernel_size": (3, 2), "stride": (2, 1), "padding": 1, "ceil_mode": True},
    {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False},
    {"kernel_size": 2, "divisor_override": 3},
]


@pytest.mark.parametrize("width", [10, 33])
@pytest.mark.parametrize("words", SLIDING, ids=str)
def test_results_and_gradients_agree_with_pytorch(words: dict[str, Any], width: int) -> None:
    x = randn(2, 3, 11, width)
    plain = nn.AvgPool2d(**words)
    assert_same_gradients(nt.convert(plain), plain, x)
    with torch.no_grad():
        assert_close(nt.avg_pool2d(x, **words), F.avg_pool2d(x, **words))


@pytest.mark.parametrize("size", [4, (3, None), 1, (13, 5)])
def test_adaptive_windows_agree_with_pytorch(size: Any) -> None:
    plain, x = nn.AdaptiveAvgPool2d(size), randn(2, 3, 11, 9)
    converted = nt.convert(plain)
    assert type(converted) is nt.AdaptiveAvgPool2d
    assert_same_gradients(converted, plain, x)
    with torch.no_grad():
        assert_close(nt.adaptive_avg_pool2d(x, size), F.adaptive_avg_pool2d(x, size))


def test_other_images_go_to_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = recorded_calls(monkeypatch, nnpack, "avg_pool2d", "adaptive_avg_pool2d")
    x = randn(4, 3, 8, 8, grad=False)
    for images in (x.double(), x.contiguous(memory_format=torch.channels_last), x[0]):
        assert torch.equal(nt.avg_pool2d(images, 2), F.avg_pool2d(images, 2))
        got, want = nt.adaptive_avg_pool2d(images, 3), F.adaptive_avg_pool2d(images, 3)
        assert torch.equal(got, want)
    nt.adaptive_avg_pool2d(x, 1)
    assert calls == []
    nt.avg_pool2d(x[:, ::2, 1:], 2)
    assert calls == ["avg_pool2d"]
    for kernel, divisor in ((9, None), (2, 0)):
        with pytest.raises(RuntimeError):
            nt.avg_pool2d(x, kernel, divisor_override=divisor)


def test_gradients_have_gradients_and_compiled_pools_are_pytorch_s() -> None:
    x = randn(1, 2, 8, 40).detach().requires_grad_()
    for pool in (nt.AvgPool2d(2), nt.AdaptiveAvgPool2d(3)):
        (first,) = torch.autograd.grad(pool(x).square().sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), x)
        assert second.abs().max() > 0
    compiled = torch.compile(nt.convert(nn.AvgPool2d(2)), backend="eager", fullgraph=True)
    assert_close(compiled(x), F.avg_pool2d(x, 2))
