"""Batch normalisation in training outside compiled code: the layer's vectors are looked at once."""

from __future__ import annotations

import functools
import operator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from nnpack.errors import NnpackError
from nnpack.functional.normalization import batch_norm_program, running_weights
from nnpack.integrations.torch.activations import Function, in_place
from nnpack.integrations.torch.batch_norm_gradient import (
    are_images,
    gradients,
    gradients_behind,
    is_vector,
)
from nnpack.integrations.torch.eligibility import is_usable, records_gradients
from nnpack.integrations.torch.exchange import as_tensor
from nnpack.integrations.torch.operator import quick_apply
from nnpack.integrations.torch.threads import WORK_PER_FLOAT, take_threads
from nnpack.runtime.memory import address, empty_output

__all__ = ["Vectors", "can_train", "is_fixed", "train"]

_SLOTS = ("gamma", "beta", "running_mean", "running_variance")
_program = functools.lru_cache(maxsize=1024)(batch_norm_program)


class Vectors:
    """Weight, bias, running mean and running variance by address: good while the tensors stay.

    ``tensors`` are plain or None. Their memory is kept, so that no other has its address.
    """

    __slots__ = ("_memory", "_places", "flags", "slots", "tensors")

    def __init__(self, tensors: tuple[Tensor | None, ...]) -> None:
        self.tensors = tensors
        self._memory = [None if t is None else t.detach() for t in tensors]
        self._places = self._find_places()
        given = zip(_SLOTS, tensors, strict=True)
        self.slots = {name: tensor.data_ptr() for name, tensor in given if tensor is not None}
        gamma, beta, running, _ = (tensor is not None for tensor in tensors)
        self.flags = gamma, beta, True, running

    @classmethod
    def of_layer(cls, tensors: tuple[Tensor | None, ...], channels: int) -> Vectors | None:
        """Those of a layer in training, if the library takes them."""
        running = tensors[2:]
        if (running[0] is None) != (running[1] is None) or any(map(is_fixed, running)):
            return None
        given = [tensor for tensor in tensors if tensor is not None]
        return cls(tensors) if all(is_vector(t, channels) for t in given) else None

    def are(self, tensors: tuple[Tensor | None, ...]) -> bool:
        """Whether the addresses are still those of ``tensors``."""
        return all(map(operator.is_, tensors, self.tensors)) and self._places == self._find_places()

    def _find_places(self) -> list[tuple[int, int] | None]:
        return [None if t is None else (t.data_ptr(), t.numel()) for t in self.tensors]


def can_train(images: Tensor) -> bool:
    """Whether `train` takes ``images``, where it is called."""
    return (
        not torch.compiler.is_compiling()
        and is_usable()
        and are_images(images)
        and images.numel() > images.shape[1]
    )


def is_fixed(running: Tensor | None) -> bool:
    """Whether PyTorch has an opinion on writing into this tensor."""
    return running is not None and (running.requires_grad or running.is_inference())


_Call = tuple[Vectors, float, float, Function | None]
"""Vectors, momentum, eps, and the activation behind, if that is computed along."""


def train(
    images: Tensor, vectors: Vectors, momentum: float, eps: float, behind: Function | None = None
) -> Tensor:
    """`batch_norm` in training, of what has been checked, or what is ``behind`` of that."""
    weight, bias, *_ = vectors.tensors
    call = vectors, momentum, eps, behind
    if records_gradients(images, weight, bias):
        return _train_recorded(images, weight, bias, call)
    return _train(images, call)


def _train(images: Tensor, call: _Call, ctx: Any = None) -> Tensor:
    """The images normalised, the running moments moved; ``ctx`` gets the moments of the images."""
    try:
        y, moments = _by_library(images, *call)
    except NnpackError:  # what we refuse, PyTorch may allow, or else reports
        vectors, momentum, eps, behind = call
        y, *moments = torch.native_batch_norm(images, *vectors.tensors, True, momentum, eps)
        y = y.contiguous()
        if behind is not None:
            in_place(y, behind)
    if ctx is not None:
        ctx.moments = moments
    return y


def _by_library(
    images: Tensor, vectors: Vectors, momentum: float, eps: float, behind: Function | None
) -> tuple[Tensor, list[Tensor]]:
    """The images normalised, and what is behind; their mean and inverse deviation."""
    shape, threads = images.shape, take_threads(WORK_PER_FLOAT * images.numel())
    channels, pixels = shape[1], shape[2] * shape[3]
    activation = None if behind is None else behind.activation
    program = _program((shape[0], channels, pixels), vectors.flags, threads, eps, activation)
    assert program is not None  # there are two numbers a channel at least
    slots = {**vectors.slots, "x": images.data_ptr()}
    running = vectors.tensors[2:]
    if running[0] is not None:
        weights = running_weights(momentum, shape[0] * pixels)
        slots["momentum"] = address(weights)
    y, variance = empty_output(shape), np.empty(channels, np.float32)
    mean, inverse_std = np.empty(channels, np.float32), np.empty(channels, np.float32)
    slots["y"], slots["variance"] = address(y), address(variance)
    slots["mean"], slots["inverse_std"] = address(mean), address(inverse_std)
    program.run(slots)
    if running[0] is not None:
        increment_version(running)
    return as_tensor(y), [as_tensor(mean), as_tensor(inverse_std)]


class _Training(torch.autograd.Function):
    """`_train`, differentiable; the moments stay inside, where the operator has to return them."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        images, weight, bias, call = inputs
        ctx.eps, ctx.behind = call[2:]
        ctx.save_for_backward(images, weight, *(() if ctx.behind is None else (bias,)))
        return _train(images, call, ctx)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        saved = *ctx.saved_tensors, *ctx.moments
        if ctx.behind is None:
            return *gradients(ctx, grad, saved, training=True), None
        return *gradients_behind(ctx, grad, saved, ctx.behind, ctx.eps), None


_train_recorded = quick_apply(_Training)
