"""nnpack.torch.batch_norm agrees with PyTorch's, in training, in inference, and between."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: N812
from torch import nn

import nnpack
from nnpack.integrations.torch import batch_norm_training
from tests.integrations.torch.tensors import (
    assert_close,
    assert_same_gradients,
    randn,
    recorded_calls,
)

nt = nnpack.torch
CHANNELS = 6


def _running() -> tuple[Any, Any]:
    return randn(CHANNELS, grad=False, seed=1), randn(CHANNELS, grad=False, seed=2).abs() + 0.5


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [(4, CHANNELS, 5, 7), (2, CHANNELS, 1, 1), (3, CHANNELS, 16, 16)])
def test_results_and_gradients_agree_with_pytorch(
    training: bool, affine: bool, shape: tuple[int, ...]
) -> None:
    weight, bias = (randn(CHANNELS), randn(CHANNELS, seed=4)) if affine else (None, None)
    mean, variance = _running()

    def normalized(function: Any) -> Any:
        return lambda x, w, b: function(x, mean.clone(), variance.clone(), w, b, training)

    tensors = randn(*shape), weight, bias
    assert_same_gradients(normalized(nt.batch_norm), normalized(F.batch_norm), *tensors)


@pytest.mark.parametrize("momentum", [0.1, 0.0, 1.0])
def test_running_moments_move_as_pytorch_moves_them(momentum: float) -> None:
    x = randn(4, CHANNELS, 5, 5) * 3 + 2
    ours, theirs = _running(), _running()
    version = ours[0]._version
    nt.batch_norm(x, *ours, training=True, momentum=momentum)
    F.batch_norm(x, *theirs, training=True, momentum=momentum)
    for got, want in zip(ours, theirs, strict=True):
        assert_close(got, want)
    assert ours[0]._version > version


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("tracks", [True, False])
def test_the_converted_layer_keeps_the_books(momentum: float | None, tracks: bool) -> None:
    plain = nn.BatchNorm2d(CHANNELS, momentum=momentum, track_running_stats=tracks)
    converted = nnpack.torch.convert(nn.BatchNorm2d(CHANNELS, 1e-5, momentum, True, tracks))
    assert type(converted) is nt.BatchNorm2d
    for seed in range(3):
        x = randn(4, CHANNELS, 6, 6, grad=False, seed=seed)
        assert_close(converted(x), plain(x))
    assert_close(converted.eval()(x), plain.eval()(x))
    for key, want in plain.state_dict().items():
        assert_close(converted.state_dict()[key].float(), want.float())


def test_other_images_go_to_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = recorded_calls(monkeypatch, batch_norm_training, "_by_library")
    x = randn(4, CHANNELS, 5, 5, grad=False)
    for images in (
        x.double(),
        x.contiguous(memory_format=torch.channels_last),
        x[:, :, ::2],
        x[..., 0],
    ):
        got = nt.batch_norm(images, None, None, training=True)
        assert torch.equal(got, F.batch_norm(images, None, None, training=True))
    assert calls == []
    nt.batch_norm(x, None, None, training=True)
    assert calls == ["_by_library"]


def test_what_pytorch_refuses_is_refused() -> None:
    one = randn(1, CHANNELS, 1, 1)
    with pytest.raises(ValueError, match="more than 1 value"):
        nt.batch_norm(one, None, None, training=True)
    with pytest.raises(RuntimeError):
        nt.batch_norm(one, *(randn(CHANNELS + 1, grad=False) for _ in range(2)))
    with pytest.raises(ValueError, match="4D"):
        nt.BatchNorm2d(CHANNELS)(randn(2, CHANNELS))


@pytest.mark.parametrize("training", [True, False])
def test_gradients_have_gradients(training: bool) -> None:
    def curvature(function: Any) -> list[Any]:
        x, weight = randn(3, CHANNELS, 4, 4), randn(CHANNELS)
        y = function(x, *_running(), weight, None, training).pow(3).sum()
        first = torch.autograd.grad(y, (x, weight), create_graph=True)
        return list(torch.autograd.grad(sum(g.square().sum() for g in first), (x, weight)))

    for got, want in zip(curvature(nt.batch_norm), curvature(F.batch_norm), strict=True):
        assert_close(got, want, 2e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("affine", [True, False])
def test_the_operators_are_what_pytorch_asks_of_operators(dtype: Any, affine: bool) -> None:
    x = randn(3, CHANNELS, 4, 4).to(dtype).detach().requires_grad_()
    weight = randn(CHANNELS).to(dtype).detach().requires_grad_() if affine else None
    moments = [moment.to(dtype) for moment in _running()]
    operators = torch.ops.nnpack
    torch.library.opcheck(operators.batch_norm_training.default, (x, weight, weight, 1e-5))
    call = (x, weight, weight, *moments, 1e-5)
    torch.library.opcheck(operators.batch_norm_inference.default, call)
    plain = [None if t is None else t.detach() for t in (x, x, weight)]
    for training in (True, False):
        call = (*plain, *moments, training)
        torch.library.opcheck(operators.batch_norm_gradient.default, call)


@pytest.mark.parametrize("training", [True, False])
def test_compiled_layers_give_the_same(training: bool) -> None:
    x = randn(4, CHANNELS, 6, 6)
    layers = [nnpack.torch.convert(nn.BatchNorm2d(CHANNELS)).train(training) for _ in range(2)]
    compiled = torch.compile(layers[0], backend="aot_eager", fullgraph=True)
    assert_same_gradients(compiled, layers[1], x)
    for got, want in zip(layers[0].buffers(), layers[1].buffers(), strict=True):
        assert_close(got.float(), want.float())


def test_compiled_layers_keep_the_digits_of_a_small_variance() -> None:
    x = randn(4, CHANNELS, 6, 6, grad=False) * 1e-4  # a variance of a thousandth of eps
    plain, converted = nn.BatchNorm2d(CHANNELS), nnpack.torch.convert(nn.BatchNorm2d(CHANNELS))
    for layer in (plain, converted):
        layer.running_var.zero_()
    torch.compile(converted, backend="aot_eager", fullgraph=True)(x)
    plain(x)
    assert_close(converted.running_var * 1e9, plain.running_var * 1e9)


@pytest.mark.parametrize("number", [np.float64, np.float32])
def test_every_number_is_an_eps(number: Any) -> None:
    words = {"eps": number(1e-3), "momentum": number(0.25)}
    plain = nn.BatchNorm2d(CHANNELS, **words)
    layers = [nnpack.torch.convert(nn.BatchNorm2d(CHANNELS, **words)) for _ in range(2)]
    compiled = torch.compile(layers[1], backend="aot_eager", fullgraph=True)
    x = randn(4, CHANNELS, 6, 6, grad=False)
    for training in (True, False):
        want = plain.train(training)(x)
        for layer in (layers[0], compiled):
            assert_close(layer.train(training)(x), want, 1e-4)


def _replace_data(layer: Any) -> None:
    layer.weight.data = layer.weight.data * 3


def _replace_buffer(layer: Any) -> None:
    layer.running_mean = torch.ones(CHANNELS)


def _replace_parameter(layer: Any) -> None:
    layer.bias = nn.Parameter(torch.ones(CHANNELS))


def _write(layer: Any) -> None:
    layer.load_state_dict({name: value + 1 for name, value in layer.state_dict().items()})


@pytest.mark.parametrize("change", [_replace_data, _replace_buffer, _replace_parameter, _write])
def test_training_sees_tensors_put_in_place_of_others(change: Any) -> None:
    plain, converted = nn.BatchNorm2d(CHANNELS), nnpack.torch.convert(nn.BatchNorm2d(CHANNELS))
    x = randn(4, CHANNELS, 6, 6, grad=False)
    for layer in (plain, converted):
        layer(x)
        change(layer)
    assert_close(converted(x), plain(x))
    for key, want in plain.state_dict().items():
        assert_close(converted.state_dict()[key].float(), want.float())


def test_copies_of_a_layer_in_training_move_their_own_moments() -> None:
    layer = nnpack.torch.convert(nn.BatchNorm2d(CHANNELS))
    x = randn(4, CHANNELS, 6, 6, grad=False)
    layer(x)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        before = layer.running_mean.clone()
        other(x)
        assert torch.equal(layer.running_mean, before)
        assert not torch.equal(other.running_mean, before)


def test_running_moments_that_want_gradients_are_pytorch_s() -> None:
    x, mean = randn(4, CHANNELS, 5, 5), torch.zeros(CHANNELS, requires_grad=True)
    with pytest.raises(RuntimeError, match="in-place"):
        nt.batch_norm(x, mean, torch.ones(CHANNELS), training=True)
