"""nnpack.torch.linear agrees with PyTorch's."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: N812
from torch import nn

import nnpack
from tests.integrations.torch.tensors import (
    assert_close,
    assert_same_gradients,
    gradients,
    randn,
    recorded_calls,
)

nt = nnpack.torch


@pytest.mark.parametrize("rows", [(5,), (2, 3), (1,), (), (0,), (64,)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_results_and_gradients_agree_with_pytorch(rows: tuple[int, ...], with_bias: bool) -> None:
    x, weight, bias = randn(*rows, 33), randn(17, 33), randn(17) if with_bias else None
    assert_same_gradients(nt.linear, F.linear, x, weight, bias)


@pytest.mark.parametrize("wanted", [(1, 0), (0, 1)])
def test_gradients_are_those_that_are_wanted(wanted: tuple[int, int]) -> None:
    x, weight = randn(4, 9, grad=bool(wanted[0])), randn(3, 9, grad=bool(wanted[1]))
    assert len(gradients(nt.linear, x, weight)) == 2
    assert_same_gradients(nt.linear, F.linear, x, weight)


def test_other_tensors_go_to_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module(nt.linear.__module__)
    calls = recorded_calls(monkeypatch, module, "prepare_linear")
    x, weight = randn(6, 8, grad=False), randn(4, 8, grad=False)
    assert torch.equal(
        nt.linear(x.double(), weight.double()), F.linear(x.double(), weight.double())
    )
    assert torch.equal(nt.linear(x[::2], weight), F.linear(x[::2], weight))
    with torch.autocast("cpu", torch.bfloat16):
        assert nt.linear(x, weight).dtype is torch.bfloat16
    assert calls == []
    nt.linear(x, weight)
    assert calls == ["prepare_linear"]
    with pytest.raises(RuntimeError):
        nt.linear(x, randn(4, 9, grad=False))


def test_gradients_of_any_strides_are_taken() -> None:
    x, weight = randn(4, 9), randn(3, 9)
    got, want = (torch.autograd.grad(f(x, weight).sum(), weight)[0] for f in (nt.linear, F.linear))
    assert_close(got, want)
    assert_same_gradients(lambda *t: nt.linear(*t).t(), lambda *t: F.linear(*t).t(), x, weight)


def test_gradients_have_gradients() -> None:
    def curvature(function: Any) -> list[Any]:
        x, weight = randn(4, 9), randn(3, 9)
        first = torch.autograd.grad(
            function(x, weight).pow(3).sum(), (x, weight), create_graph=True
        )
        return list(torch.autograd.grad(sum(g.square().sum() for g in first), (x, weight)))

    for got, want in zip(curvature(nt.linear), curvature(F.linear), strict=True):
        assert_close(got, want, 2e-4)


def test_the_converted_layer_packs_its_weights_once(monkeypatch: pytest.MonkeyPatch) -> None:
    packings = recorded_calls(monkeypatch, nnpack, "Linear")
    plain = nn.Linear(33, 17)
    converted = nt.convert(plain).eval()
    x = randn(5, 33, grad=False)
    with torch.no_grad():
        assert_close(converted(x), plain(x))
        assert_close(converted(x), plain(x))
        assert len(packings) == 1
        plain.weight.mul_(2)
        assert_close(converted(x), plain(x))
        assert len(packings) == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_operators_are_what_pytorch_asks_of_operators(dtype: Any) -> None:
    x, weight, bias = (randn(*shape).to(dtype).detach() for shape in ((5, 9), (3, 9), (3,)))
    operators = torch.ops.nnpack
    leaves = [t.clone().requires_grad_() for t in (x, weight, bias)]
    torch.library.opcheck(operators.linear.default, tuple(leaves))
    torch.library.opcheck(operators.linear.default, (*leaves[:2], None))
    grad = operators.linear(x, weight, bias)
    torch.library.opcheck(operators.linear_input_gradient.default, (grad, weight))
    torch.library.opcheck(operators.linear_weight_gradient.default, (grad, x))


def test_compiled_calls_give_the_same() -> None:
    compiled = torch.compile(nt.linear, backend="aot_eager", fullgraph=True)
    assert_same_gradients(compiled, F.linear, randn(5, 9), randn(3, 9), randn(3))
