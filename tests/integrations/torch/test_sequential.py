"""Batch normalisation and the activation behind it in one pass: as the two of them in turn."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn

import nnpack
from nnpack.integrations.torch import batch_norm_gradient
from tests.integrations.torch.tensors import assert_close, randn, recorded_calls

nt = nnpack.torch

ACTIVATIONS = {
    "relu": lambda: nn.ReLU(inplace=True),
    "relu6": nn.ReLU6,
    "leaky": lambda: nn.LeakyReLU(-0.5),
    "elu": lambda: nn.ELU(0.5),
    "silu": lambda: nn.SiLU(inplace=True),
    "gelu": lambda: nn.GELU("tanh"),
    "hardswish": nn.Hardswish,
}


class Block(nn.Sequential):
    """A subclass whose constructor takes other arguments than a sequence's."""

    def __init__(self, channels: int) -> None:
        super().__init__(nn.Conv2d(3, channels, 3, bias=False), nn.BatchNorm2d(channels), nn.ReLU())
        self.width = channels
        self.names: Any = (name for name in "ab")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "names": None}  # a generator, which cannot be copied


def _sequence(activation: Any = nn.ReLU, **words: Any) -> Any:
    torch.manual_seed(0)
    sequence = nn.Sequential(
        nn.Conv2d(3, 20, 3, bias=False), nn.BatchNorm2d(20, **words), activation()
    )
    for parameter in sequence[1].parameters():
        nn.init.normal_(parameter)
    return sequence


def _gradients(module: Any, seed: int = 0) -> list[Any]:
    images = randn(4, 3, 9, 11, seed=seed)
    module.zero_grad()
    y = module(images)
    (y * randn(*y.shape, seed=1, grad=False)).sum().backward()
    return [y.detach(), images.grad, *(p.grad for p in module.parameters()), *module.buffers()]


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("affine", [True, False])
def test_training_is_what_the_two_give_in_turn(
    name: str, affine: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = _sequence(ACTIVATIONS[name], affine=affine)
    merged = nt.convert(copy.deepcopy(plain))
    assert type(merged) is nt.Sequential
    calls = recorded_calls(monkeypatch, nt.BatchNorm2d, "__call__")
    for got, want in zip(_gradients(merged), _gradients(plain), strict=True):
        assert_close(got.float(), want.float(), 1e-4)
    assert calls == []
    merged.eval(), plain.eval()
    for got, want in zip(_gradients(merged), _gradients(plain), strict=True):
        assert_close(got.float(), want.float(), 1e-4)


def test_gradients_have_gradients() -> None:
    def curvature(module: Any) -> list[Any]:
        x = randn(3, 3, 6, 6)
        parameters = x, *module.parameters()
        first = torch.autograd.grad(module(x).pow(3).sum(), parameters, create_graph=True)
        return list(torch.autograd.grad(sum(g.square().sum() for g in first), parameters))

    plain = _sequence(nn.SiLU)
    merged = nt.convert(copy.deepcopy(plain))
    for got, want in zip(curvature(merged), curvature(plain), strict=True):
        assert_close(got, want, 1e-3)


def test_whoever_looks_between_sees_modules_called_one_by_one() -> None:
    seen: list[Any] = []
    for place in (1, 2):
        module = nt.convert(_sequence())
        module[place].register_forward_hook(lambda *given: seen.append(given[2]))
        y = module(randn(4, 3, 9, 9))
        assert len(seen) == place
        if place == 1:
            assert seen[0].min() < 0 <= y.min()
    module = nt.convert(_sequence())
    handle = nn.modules.module.register_module_forward_hook(lambda *given: seen.append(given[0]))
    module(randn(4, 3, 9, 9))
    handle.remove()
    assert len(seen) == 2 + 4
    assert module[:2](randn(4, 3, 9, 9)).min() < 0


def test_frozen_parameters_have_no_gradients() -> None:
    module = nt.convert(_sequence())
    module[1].weight.requires_grad_(False)
    found = _gradients(module)
    assert found[3] is None
    assert found[4] is not None
    module.requires_grad_(False)
    with torch.no_grad():
        assert module(randn(4, 3, 9, 9)).min() == 0


def test_other_images_and_gradients_go_to_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = _sequence().double()
    assert torch.equal(
        nt.convert(plain)(randn(2, 3, 5, 5).double()), plain(randn(2, 3, 5, 5).double())
    )
    calls = recorded_calls(monkeypatch, batch_norm_gradient, "_by_library")
    plain, found = _sequence()[1:], []
    for module in (plain, nt.convert(plain)):
        x = randn(4, 20, 5, 5)
        found.append(torch.autograd.grad(module(x).sum(), x)[0])  # of an expanded gradient
    assert calls == ["_by_library"]
    assert_close(found[1], found[0], 1e-4)


def test_subclasses_that_are_sequences_become_such_and_stay_what_they_are() -> None:
    plain = Block(4)
    module = nt.convert(plain)
    module.names = (name for name in "cd")
    assert {Block, nt.Sequential} <= set(type(module).__mro__)
    assert type(nt.convert(module)) is type(module)
    assert repr(module).startswith("nnpack.Block(")
    for again in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert type(again) is type(module)
        assert (again.width, again.names) == (4, None)
        y = copy.deepcopy(plain)(randn(4, 3, 9, 9))
        assert_close(again(randn(4, 3, 9, 9)), y, 1e-4)

    class Other(nn.Sequential):
        def forward(self, x: Any) -> Any:
            return super().forward(x) + 1

    assert type(nt.convert(Other(*_sequence()))) is Other
    assert type(nt.convert(nn.Sequential(nn.BatchNorm2d(3), nn.Flatten()))) is nn.Sequential
