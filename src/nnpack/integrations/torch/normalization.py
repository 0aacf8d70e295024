"""Batch normalisation as operators of PyTorch, for training and for inference."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone knows it by
from torch import Tensor

import nnpack
from nnpack.errors import NnpackError
from nnpack.integrations.torch.eligibility import (
    is_higher_order,
    is_plain,
    is_usable,
)
from nnpack.integrations.torch.exchange import as_array, as_optional_array, as_tensor
from nnpack.integrations.torch.operator import Derivative, Operator
from nnpack.integrations.torch.threads import WORK_PER_FLOAT, take_threads

__all__ = ["batch_norm"]


def batch_norm(
    input: Tensor,  # noqa: A002 - PyTorch's name
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`torch.nn.functional.batch_norm`, in the manner of `conv2d`, for contiguous images."""
    vectors = [running_mean, running_var, weight, bias]
    if not (
        is_usable()
        and _are_images(input)
        and all(vector is None or _is_vector(vector, input.shape[1]) for vector in vectors)
        and (running_mean is None) == (running_var is None)
        and (training or running_mean is not None)
        and (not training or input.numel() > input.shape[1])
    ):
        return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    if not training:
        return _inference(input, weight, bias, running_mean, running_var, eps)
    y, mean, inverse_std = _training(input, weight, bias, eps)
    if running_mean is not None and running_var is not None:
        count = input.numel() // input.shape[1]
        variance = inverse_std.pow(-2).sub_(eps).clamp_(min=0).mul_(count / (count - 1))
        running_mean.lerp_(mean, momentum)
        running_var.lerp_(variance, momentum)
    return y


def _are_images(tensor: Tensor) -> bool:
    return bool(tensor.dim() == 4 and is_plain(tensor) and tensor.is_contiguous())


def _is_vector(tensor: Tensor, channels: int) -> bool:
    return bool(is_plain(tensor) and tensor.shape == (channels,) and tensor.is_contiguous())


def _compute_training(
    images: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The images normalised, and what `_gradient` reads: their mean and inverse deviation."""
    if _are_images(images):
        with contextlib.suppress(NnpackError):  # what we refuse, PyTorch may allow, or else reports
            arrays = as_array(images), as_optional_array(weight), as_optional_array(bias)
            words: Any = {
                "eps": eps,
                "training": True,
                "threads": take_threads(WORK_PER_FLOAT * images.numel()),
            }
            y, mean, inverse_std = nnpack.batch_norm(*arrays, **words)
            return as_tensor(y), as_tensor(mean), as_tensor(inverse_std)
    return _training_by_pytorch(images, weight, bias, eps)


def _training_by_pytorch(
    images: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    words = None, None, True, 0.0, eps
    y, mean, inverse_std = torch.native_batch_norm(images, weight, bias, *words)
    return y.contiguous(), mean, inverse_std


def _compute_inference(
    images: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    eps: float,
) -> Tensor:
    if _are_images(images):
        with contextlib.suppress(NnpackError):
            vectors = [as_optional_array(vector) for vector in (weight, bias, mean, variance)]
            y = nnpack.batch_norm(
                as_array(images),
                *vectors,
                eps=eps,
                threads=take_threads(WORK_PER_FLOAT * images.numel()),
            )
            return as_tensor(y)
    return _inference_by_pytorch(images, weight, bias, mean, variance, eps)


def _inference_by_pytorch(
    images: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    eps: float,
) -> Tensor:
    words = mean, variance, False, 0.0, eps
    return torch.native_batch_norm(images, weight, bias, *words)[0].contiguous()


def _compute_gradient(
    grad: Tensor,
    images: Tensor,
    weight: Tensor | None,
    mean: Tensor,
    inverse_std: Tensor,
    training: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    if _are_images(images) and is_plain(grad):
        with contextlib.suppress(NnpackError):
            vectors = as_optional_array(weight), as_array(mean), as_array(inverse_std)
            arrays = as_array(grad.contiguous()), as_array(images), *vectors
            words: Any = {
                "training": training,
                "threads": take_threads(WORK_PER_FLOAT * images.numel()),
            }
            return tuple(map(as_tensor, nnpack.batch_norm_gradient(*arrays, **words)))
    x, gamma, beta = _gradient_by_pytorch(grad, images, weight, mean, inverse_std, training)
    return x.contiguous(), gamma, beta


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


def _gradients(ctx: Any, grad: Tensor, training: bool) -> tuple[Tensor | None, ...]:
    """Gradients of images, weight and bias, as far as they are wanted."""
    images, weight, mean, inverse_std = ctx.saved_tensors
    compute = _gradient_by_pytorch if is_higher_order(grad) else _gradient
    found = compute(grad, images, weight, mean, inverse_std, training)
    return tuple(g if n else None for g, n in zip(found, ctx.needs_input_grad, strict=False))


def _save_training(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    images, weight, _, _ = inputs
    _, mean, inverse_std = output
    ctx.mark_non_differentiable(mean, inverse_std)
    ctx.save_for_backward(images, weight, mean, inverse_std)


def _save_inference(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
    images, weight, _, mean, variance, eps = inputs
    ctx.save_for_backward(images, weight, mean, (variance + eps).rsqrt())


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
_training = Operator(
    "batch_norm_training(Tensor input, Tensor? weight, Tensor? bias, float eps) "
    "-> (Tensor, Tensor, Tensor)",
    _compute_training,
    _training_by_pytorch,
    Derivative(_save_training, lambda ctx, grad, *_: (*_gradients(ctx, grad, training=True), None)),
)
_inference = Operator(
    "batch_norm_inference(Tensor input, Tensor? weight, Tensor? bias, Tensor mean, "
    "Tensor variance, float eps) -> Tensor",
    _compute_inference,
    _inference_by_pytorch,
    Derivative(
        _save_inference,
        lambda ctx, grad: (*_gradients(ctx, grad, training=False), None, None, None),
    ),
)
