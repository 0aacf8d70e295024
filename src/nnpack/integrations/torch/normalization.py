"""Batch normalisation as operators of PyTorch, for training and for inference."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone knows it by
from torch import Tensor

import nnpack
from nnpack.errors import NnpackError
from nnpack.integrations.torch.batch_norm_gradient import are_images, gradients, is_vector
from nnpack.integrations.torch.batch_norm_training import Vectors, is_fixed, train
from nnpack.integrations.torch.eligibility import is_usable
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
        and are_images(input)
        and all(vector is None or is_vector(vector, input.shape[1]) for vector in vectors)
        and (running_mean is None) == (running_var is None)
        and (training or running_mean is not None)
        and (not training or input.numel() > input.shape[1])
    ):
        return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    if not training:
        return _inference.run((input, weight, bias, running_mean, running_var), (eps,))
    if not (torch.compiler.is_compiling() or any(map(is_fixed, vectors[:2]))):
        return train(input, Vectors((weight, bias, running_mean, running_var)), momentum, eps)
    y, mean, _, variance = _training.registered(input, weight, bias, eps)
    if running_mean is not None and running_var is not None:
        running_mean.lerp_(mean, momentum)
        running_var.lerp_(variance, momentum)
    return y


def _compute_training(
    images: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The images normalised, their mean and inverse deviation, and their unbiased variance.

    `gradients` reads the second and the third. The last is a running variance of no memory: told
    from the inverse deviation, a variance that is small beside ``eps`` would lose its digits.
    """
    if are_images(images):
        with contextlib.suppress(NnpackError):  # what we refuse, PyTorch may allow, or else reports
            arrays = as_array(images), as_optional_array(weight), as_optional_array(bias)
            running = np.zeros((2, images.shape[1]), np.float32)
            words: Any = {
                "eps": eps,
                "training": True,
                "momentum": 1.0,
                "threads": take_threads(WORK_PER_FLOAT * images.numel()),
            }
            y, mean, inverse_std = nnpack.batch_norm(*arrays, *running, **words)
            return as_tensor(y), as_tensor(mean), as_tensor(inverse_std), as_tensor(running[1])
    return _training_by_pytorch(images, weight, bias, eps)


def _training_by_pytorch(
    images: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    running = [images.new_zeros(images.shape[1]) for _ in range(2)]
    y, mean, inverse_std = torch.native_batch_norm(images, weight, bias, *running, True, 1.0, eps)
    return y.contiguous(), mean, inverse_std, running[1]


def _compute_inference(
    images: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    eps: float,
) -> Tensor:
    if are_images(images):
        return _infer(images, weight, bias, mean, variance, (eps,))
    return _inference_by_pytorch(images, weight, bias, mean, variance, eps)


def _infer(
    images: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    call: tuple[float],
) -> Tensor:
    vectors = weight, bias, mean, variance
    threads = take_threads(WORK_PER_FLOAT * images.numel())
    try:
        y = nnpack.batch_norm(
            as_array(images), *map(as_optional_array, vectors), eps=call[0], threads=threads
        )
    except NnpackError:
        return _inference_by_pytorch(images, *vectors, call[0])
    return as_tensor(y)


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


def _save_training(
    ctx: Any,
    tensors: Sequence[Any],
    call: Sequence[Any],  # noqa: ARG001
    output: tuple[Tensor, ...],
) -> None:
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(*tensors[:2], *output[1:3])


def _backward_training(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    return gradients(ctx, grad, ctx.saved_tensors, training=True)


def _save_inference(ctx: Any, tensors: Sequence[Any], call: Sequence[Any], output: Tensor) -> None:  # noqa: ARG001
    images, weight, _, mean, variance = tensors
    # A copy: training changes the running mean in place.
    ctx.save_for_backward(images, weight, mean.clone(), (variance + call[0]).rsqrt())


def _backward_inference(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return *gradients(ctx, grad, ctx.saved_tensors, training=False), None, None


_training = Operator(
    "batch_norm_training(Tensor input, Tensor? weight, Tensor? bias, float eps) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    _compute_training,
    _training_by_pytorch,
    Derivative(_save_training, _backward_training),
)
_inference = Operator(
    "batch_norm_inference(Tensor input, Tensor? weight, Tensor? bias, Tensor mean, "
    "Tensor variance, float eps) -> Tensor",
    _compute_inference,
    _inference_by_pytorch,
    Derivative(_save_inference, _backward_inference, _infer),
)
