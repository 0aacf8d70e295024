"""Batch normalisation as operators of PyTorch, for training and for inference."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone knows it by
from torch import Tensor
from torch.autograd.graph import increment_version

import nnpack
from nnpack.errors import NnpackError
from nnpack.integrations.torch.eligibility import (
    is_higher_order,
    is_plain,
    is_usable,
    records_gradients,
)
from nnpack.integrations.torch.exchange import as_array, as_optional_array, as_tensor
from nnpack.integrations.torch.operator import Derivative, Operator, quick_apply
from nnpack.integrations.torch.threads import WORK_PER_FLOAT, take_threads

__all__ = ["Vectors", "batch_norm", "can_train", "train"]


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
        return _inference.run((input, weight, bias, running_mean, running_var), (eps,))
    if not (torch.compiler.is_compiling() or any(map(_is_fixed, vectors[:2]))):
        return train(input, Vectors((weight, bias, running_mean, running_var)), momentum, eps)
    y, mean, _, variance = _training.registered(input, weight, bias, eps)
    if running_mean is not None and running_var is not None:
        running_mean.lerp_(mean, momentum)
        running_var.lerp_(variance, momentum)
    return y


class Vectors:
    """Weight, bias, running mean and running variance as arrays: good while the tensors stay.

    ``tensors`` are plain or None. Their memory is kept, so that no other has its address.
    """

    __slots__ = ("_places", "arrays", "tensors")

    def __init__(self, tensors: tuple[Tensor | None, ...]) -> None:
        self.tensors = tensors
        self.arrays = [as_optional_array(None if t is None else t.detach()) for t in tensors]
        self._places = self._find_places()

    @classmethod
    def of_layer(cls, tensors: tuple[Tensor | None, ...], channels: int) -> Vectors | None:
        """Those of a layer in training, if the library takes them."""
        running = tensors[2:]
        if (running[0] is None) != (running[1] is None) or any(map(_is_fixed, running)):
            return None
        given = [tensor for tensor in tensors if tensor is not None]
        return cls(tensors) if all(_is_vector(t, channels) for t in given) else None

    def are(self, tensors: tuple[Tensor | None, ...]) -> bool:
        """Whether the arrays are still those of ``tensors``."""
        return all(map(operator.is_, tensors, self.tensors)) and self._places == self._find_places()

    def _find_places(self) -> list[tuple[int, int] | None]:
        return [None if t is None else (t.data_ptr(), t.numel()) for t in self.tensors]


def train(images: Tensor, vectors: Vectors, momentum: float, eps: float) -> Tensor:
    """`batch_norm` in training outside compiled code, of what has been checked."""
    weight, bias, *_ = vectors.tensors
    call = vectors, momentum, eps
    if records_gradients(images, weight, bias):
        return _train_recorded(images, weight, bias, call)
    return _train(images, call)


def can_train(images: Tensor) -> bool:
    """Whether `train` takes ``images``, where it is called."""
    return (
        not torch.compiler.is_compiling()
        and is_usable()
        and _are_images(images)
        and images.numel() > images.shape[1]
    )


def _are_images(tensor: Tensor) -> bool:
    return bool(tensor.dim() == 4 and is_plain(tensor) and tensor.is_contiguous())


def _is_vector(tensor: Tensor, channels: int) -> bool:
    return bool(is_plain(tensor) and tensor.shape == (channels,) and tensor.is_contiguous())


def _is_fixed(running: Tensor | None) -> bool:
    """Whether PyTorch has an opinion on writing into this tensor."""
    return running is not None and (running.requires_grad or running.is_inference())


def _train(images: Tensor, call: tuple[Vectors, float, float], ctx: Any = None) -> Tensor:
    """The images normalised, the running moments moved; ``ctx`` gets the moments of the images."""
    vectors, momentum, eps = call
    words: Any = {
        "eps": eps,
        "training": True,
        "momentum": momentum,
        "threads": take_threads(WORK_PER_FLOAT * images.numel()),
    }
    weight, bias, mean, variance = vectors.tensors
    try:
        found = nnpack.batch_norm(as_array(images), *vectors.arrays, **words)
    except NnpackError:  # what we refuse, PyTorch may allow, or else reports
        places = images, weight, bias, mean, variance
        y, *moments = torch.native_batch_norm(*places, True, momentum, eps)
        y = y.contiguous()
    else:
        y, *moments = map(as_tensor, found)
        if mean is not None:
            increment_version((mean, variance))
    if ctx is not None:
        ctx.moments = moments
    return y


class _Training(torch.autograd.Function):
    """`_train`, differentiable; the moments stay inside, where the operator has to return them."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        images, weight, _, call = inputs
        ctx.save_for_backward(images, weight)
        return _train(images, call, ctx)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return *_gradients(ctx, grad, (*ctx.saved_tensors, *ctx.moments), training=True), None


_train_recorded = quick_apply(_Training)


def _compute_training(
    images: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The images normalised, their mean and inverse deviation, and their unbiased variance.

    `_gradient` reads the second and the third. The last is a running variance of no memory: told
    from the inverse deviation, a variance that is small beside ``eps`` would lose its digits.
    """
    if _are_images(images):
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
    if _are_images(images):
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


def _gradients(
    ctx: Any, grad: Tensor, saved: Sequence[Any], training: bool
) -> tuple[Tensor | None, ...]:
    """Gradients of images, weight and bias, as far as they are wanted.

    ``saved`` are images, weight, mean and inverse_std.
    """
    compute: Any = _gradient_by_pytorch if is_higher_order(grad) else _gradient
    found = compute(grad, *saved, training)
    return tuple(g if n else None for g, n in zip(found, ctx.needs_input_grad, strict=False))


def _save_training(
    ctx: Any,
    tensors: Sequence[Any],
    call: Sequence[Any],  # noqa: ARG001
    output: tuple[Tensor, ...],
) -> None:
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(*tensors[:2], *output[1:3])


def _backward_training(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    return _gradients(ctx, grad, ctx.saved_tensors, training=True)


def _save_inference(ctx: Any, tensors: Sequence[Any], call: Sequence[Any], output: Tensor) -> None:  # noqa: ARG001
    images, weight, _, mean, variance = tensors
    # A copy: training changes the running mean in place.
    ctx.save_for_backward(images, weight, mean.clone(), (variance + call[0]).rsqrt())


def _backward_inference(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return *_gradients(ctx, grad, ctx.saved_tensors, training=False), None, None


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
