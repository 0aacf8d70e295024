"""The gradients of batch normalisation, which training and inference share."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone knows it by
from torch import Tensor

from nnpack.epilogue import Activation
from nnpack.functional.normalization import batch_norm_gradient_program
from nnpack.integrations.torch.activations import Function
from nnpack.integrations.torch.eligibility import is_direct, is_higher_order, is_plain
from nnpack.integrations.torch.exchange import as_tensor
from nnpack.integrations.torch.operator import Operator
from nnpack.integrations.torch.threads import WORK_PER_FLOAT, take_threads
from nnpack.runtime.memory import address, empty_output

__all__ = ["are_images", "gradients", "gradients_behind", "is_vector"]

_RESULTS = ("y", "grad_gamma", "grad_beta")
_program = functools.lru_cache(maxsize=1024)(batch_norm_gradient_program)


def are_images(tensor: Tensor) -> bool:
    """Whether the library takes ``tensor`` as images, without a copy."""
    return bool(tensor.dim() == 4 and is_plain(tensor) and tensor.is_contiguous())


def is_vector(tensor: Tensor, channels: int) -> bool:
    """Whether the library takes ``tensor`` as one number for each channel."""
    return bool(is_plain(tensor) and tensor.shape == (channels,) and tensor.is_contiguous())


def gradients(
    ctx: Any, grad: Tensor, saved: Sequence[Any], training: bool
) -> tuple[Tensor | None, ...]:
    """Gradients of images, weight and bias, as far as they are wanted.

    ``saved`` are images, weight, mean and inverse_std.
    """
    compute: Any = _gradient_by_pytorch if is_higher_order(grad) else _gradient
    found = compute(grad, *saved, training)
    return _wanted(ctx, found)


def _wanted(ctx: Any, found: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
    return tuple(g if n else None for g, n in zip(found, ctx.needs_input_grad, strict=False))


def gradients_behind(
    ctx: Any, grad: Tensor, saved: Sequence[Any], function: Function, eps: float
) -> tuple[Tensor | None, ...]:
    """`gradients` of training with an activation behind, ``grad`` being that of its output.

    ``saved`` are images, weight, bias, mean and inverse_std. The activation's input is computed
    from the images anew.
    """
    images, weight, bias, *moments = saved
    if not is_higher_order(grad) and is_direct() and is_plain(grad):
        words: Any = {"training": True, "bias": bias, "activation": function.activation}
        found = _by_library(grad.contiguous(), images, weight, *moments, **words)
        return _wanted(ctx, found)
    inner = F.batch_norm(images, None, None, weight, bias, True, 0.0, eps)
    masked = function.differentiate(grad, inner)
    return gradients(ctx, masked, (images, weight, *moments), training=True)


def _compute_gradient(
    grad: Tensor,
    images: Tensor,
    weight: Tensor | None,
    mean: Tensor,
    inverse_std: Tensor,
    training: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    if are_images(images) and is_plain(grad) and grad.shape == images.shape:
        channels = images.shape[1]
        if all(t is None or is_vector(t, channels) for t in (weight, mean, inverse_std)):
            return _by_library(grad.contiguous(), images, weight, mean, inverse_std, training)
    x, gamma, beta = _gradient_by_pytorch(grad, images, weight, mean, inverse_std, training)
    return x.contiguous(), gamma, beta


def _by_library(
    grad: Tensor,
    images: Tensor,
    weight: Tensor | None,
    mean: Tensor,
    inverse_std: Tensor,
    training: bool,
    bias: Tensor | None = None,
    activation: Activation | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    shape = images.shape
    channels, pixels = shape[1], shape[2] * shape[3]
    found = empty_output(shape), np.zeros(channels, np.float32), np.zeros(channels, np.float32)
    if shape[0] and pixels and channels:
        threads = take_threads(WORK_PER_FLOAT * images.numel())
        flags = weight is not None, training, bias is not None
        program = _program((shape[0], channels, pixels), flags, threads, activation)
        slots = dict(zip(_RESULTS, map(address, found), strict=True))
        if weight is not None:
            slots["gamma"] = weight.data_ptr()
        if bias is not None:
            slots["beta"] = bias.data_ptr()
        slots["x"], slots["grad"] = images.data_ptr(), grad.data_ptr()
        slots["mean"], slots["inverse_std"] = mean.data_ptr(), inverse_std.data_ptr()
        program.run(slots)
    x, gamma, beta = map(as_tensor, found)
    return x, gamma, beta


def _gradient_by_pytorch(
    grad: Tensor,
    images: Tensor,
    weight: Tensor | None,
    mean: Tensor,
    inverse_std: Tensor,
    training: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """PyTorch's operator, which wants the moments in one place in training, in another else."""
    if training:
        words = None, None, mean, inverse_std, True, 0.0
    else:
        words = mean, inverse_std.pow(-2), None, None, False, 0.0
    operator = torch.ops.aten.native_batch_norm_backward
    return operator(grad, images, weight, *words, (True, True, True))  # type: ignore[no-any-return]


_gradient = Operator(
    "batch_norm_gradient(Tensor grad, Tensor input, Tensor? weight, Tensor mean, "
    "Tensor inverse_std, bool training) -> (Tensor, Tensor, Tensor)",
    _compute_gradient,
    lambda grad, images, _weight, mean, inverse_std, _training: (
        grad.new_empty(images.shape),
        torch.empty_like(mean),
        torch.empty_like(inverse_std),
    ),
)
