"""Training in eval mode, integers of NumPy, and views that negate: what PyTorch users do too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nnpack

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("fused", [False, True])
def test_what_was_packed_is_forgotten_when_gradients_are_recorded(fused: bool) -> None:
    layer = nnpack.torch.convert(torch.nn.Linear(5, 4)).eval()
    x = torch.randn(2, 5)
    with torch.no_grad():
        layer(x)
    optimizer = torch.optim.SGD(layer.parameters(), 1.0, fused=fused)
    layer(x).pow(2).sum().backward()
    optimizer.step()
    with torch.no_grad():
        expected = torch.nn.functional.linear(x, layer.weight, layer.bias)
        torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)


def test_gradients_of_inference_survive_a_step_of_training() -> None:
    norm = nnpack.torch.convert(torch.nn.BatchNorm2d(3)).eval()
    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    y = norm(x)
    norm.train()
    norm(x)
    y.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, torch.full_like(x, (1 + norm.eps) ** -0.5))


@pytest.mark.parametrize("size", [np.int64(2), torch.tensor(2), [2], (2, 2)])
def test_every_integer_is_a_size(size: Any) -> None:
    x = torch.randn(1, 2, 8, 8)
    expected = torch.nn.functional.max_pool2d(x, 2)
    torch.testing.assert_close(nnpack.torch.max_pool2d(x, size), expected)


def test_views_that_negate_are_refused() -> None:
    with pytest.raises(nnpack.DtypeError, match="resolve_neg"):
        nnpack.relu(torch._neg_view(torch.ones(3)))
