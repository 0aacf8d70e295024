"""The layers that `convert` puts in place of PyTorch's: subclasses of theirs, nothing added."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nnpack.integrations.torch.activations import Function
from nnpack.integrations.torch.averages import adaptive_avg_pool2d, avg_pool2d
from nnpack.integrations.torch.batch_norm_training import Vectors, can_train, train
from nnpack.integrations.torch.convolution import (
    are_images,
    are_weights,
    conv2d,
    conv_transpose2d,
    make_layer,
)
from nnpack.integrations.torch.linear import are_rows, linear
from nnpack.integrations.torch.linear import are_weights as are_matrix
from nnpack.integrations.torch.linear import make_layer as make_linear_layer
from nnpack.integrations.torch.named import Named
from nnpack.integrations.torch.normalization import batch_norm
from nnpack.integrations.torch.packed import Packing
from nnpack.integrations.torch.pooling import max_pool2d
from nnpack.problem import Accuracy

__all__ = [
    "CONVOLUTIONS",
    "AdaptiveAvgPool2d",
    "AvgPool2d",
    "BatchNorm2d",
    "Conv2d",
    "ConvTranspose2d",
    "Linear",
    "MaxPool2d",
]


def _held(module: torch.nn.Module, name: str) -> Any:
    """``module.name``, a parameter or a buffer: `Module` looks elsewhere first, for 1 us."""
    if not torch.compiler.is_compiling():
        for tensors in (module._parameters, module._buffers):
            if name in tensors:
                return tensors[name]
    return getattr(module, name)  # computed from parameters, by weight_norm or pruning


class Conv2d(Named, Packing, torch.nn.Conv2d):
    """`torch.nn.Conv2d`, computed by the library where it can: see `nnpack.torch.conv2d`."""

    accuracy: Accuracy = "fast"

    def forward(self, images: Tensor) -> Tensor:
        """As `torch.nn.Conv2d`."""
        return self._conv_forward(images, _held(self, "weight"), _held(self, "bias"))

    def _conv_forward(self, images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.padding_mode != "zeros":
            return super()._conv_forward(images, weight, bias)
        words = self.stride, self.padding, self.dilation, self.groups
        if not self.training and are_images(images) and are_weights(weight, bias):
            y = self._run_packed(images, weight, bias, (*words, self.accuracy))
            if y is not None:
                return y
        return conv2d(images, weight, bias, *words, accuracy=self.accuracy)

    def _make_layer(
        self, weight: object, bias: object, words: tuple[Any, ...], threads: int
    ) -> Any:
        stride, padding, dilation, groups, accuracy = words
        call = stride, padding, (0, 0), dilation, groups, False, accuracy
        return make_layer(weight, bias, call, threads)


class ConvTranspose2d(Named, Packing, torch.nn.ConvTranspose2d):
    """`torch.nn.ConvTranspose2d`, computed by the library where it can: see `Conv2d`."""

    accuracy: Accuracy = "fast"

    def forward(self, images: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """As `torch.nn.ConvTranspose2d`."""
        sizes = output_size, self.stride, self.padding, self.kernel_size, 2, self.dilation
        surplus = tuple(self._output_padding(images, *sizes))
        words = self.stride, self.padding, surplus, self.groups, self.dilation
        weight, bias = _held(self, "weight"), _held(self, "bias")
        if not self.training and are_images(images) and are_weights(weight, bias):
            y = self._run_packed(images, weight, bias, (*words, self.accuracy))
            if y is not None:
                return y
        return conv_transpose2d(images, weight, bias, *words, accuracy=self.accuracy)

    def _make_layer(
        self, weight: object, bias: object, words: tuple[Any, ...], threads: int
    ) -> Any:
        stride, padding, output_padding, groups, dilation, accuracy = words
        call = stride, padding, output_padding, dilation, groups, True, accuracy
        return make_layer(weight, bias, call, threads)


class Linear(Named, Packing, torch.nn.Linear):
    """`torch.nn.Linear`, computed by the library where it can."""

    def forward(self, rows: Tensor) -> Tensor:
        """As `torch.nn.Linear`."""
        weight, bias = _held(self, "weight"), _held(self, "bias")
        if not self.training and are_rows(rows) and are_matrix(weight, bias):
            y = self._run_packed(rows, weight, bias, ())
            if y is not None:
                return y
        return linear(rows, weight, bias)

    def _make_layer(
        self, weight: object, bias: object, words: tuple[Any, ...], threads: int
    ) -> Any:
        return make_linear_layer(weight, bias, words, threads)


class MaxPool2d(Named, torch.nn.MaxPool2d):
    """`torch.nn.MaxPool2d`, computed by the library where it can."""

    def forward(self, images: Tensor) -> Any:
        """As `torch.nn.MaxPool2d`."""
        words = self.padding, self.dilation, self.ceil_mode, self.return_indices
        return max_pool2d(images, self.kernel_size, self.stride, *words)


class AvgPool2d(Named, torch.nn.AvgPool2d):
    """`torch.nn.AvgPool2d`, computed by the library where it can."""

    def forward(self, images: Tensor) -> Tensor:
        """As `torch.nn.AvgPool2d`."""
        words = self.padding, self.ceil_mode, self.count_include_pad, self.divisor_override
        return avg_pool2d(images, self.kernel_size, self.stride, *words)


class AdaptiveAvgPool2d(Named, torch.nn.AdaptiveAvgPool2d):
    """`torch.nn.AdaptiveAvgPool2d`, computed by the library where it can and is faster."""

    def forward(self, images: Tensor) -> Tensor:
        """As `torch.nn.AdaptiveAvgPool2d`."""
        return adaptive_avg_pool2d(images, self.output_size)


class BatchNorm2d(Named, torch.nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d`, computed by the library where it can."""

    _vectors: Vectors | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_vectors"}

    def forward(self, images: Tensor) -> Tensor:
        """As `torch.nn.BatchNorm2d`."""
        return self._normalize(images, None)[0]

    def forward_through(
        self, images: Tensor, behind: torch.nn.Module, function: Function
    ) -> Tensor:
        """``behind(self(images))``; in one pass over memory where the library trains.

        ``function`` is what ``behind`` computes.
        """
        y, complete = self._normalize(images, function)
        return y if complete else behind(y)

    def _normalize(self, images: Tensor, behind: Function | None) -> tuple[Tensor, bool]:
        """The images normalised, and whether what is ``behind`` has been done to them as well."""
        self._check_input_dim(images)
        training, keeps = self.training, self.track_running_stats
        mean, variance, batches, weight, bias = self._tensors()
        factor = 0.0 if self.momentum is None else self.momentum
        if training and keeps and batches is not None:
            batches.add_(1)
            if self.momentum is None:  # the mean of all batches so far
                factor = 1.0 / float(batches)
        alone = mean is None and variance is None
        if training and not keeps:
            mean = variance = None
        if training and can_train(images):
            vectors = self._found_vectors((weight, bias, mean, variance), images.shape[1])
            if vectors is not None:
                return train(images, vectors, factor, self.eps, behind), True
        words = weight, bias, training or alone, factor, self.eps
        return batch_norm(images, mean, variance, *words), False

    def _tensors(self) -> Any:
        """Parameters and buffers; `Module` looks elsewhere first, for 1 us each."""
        if not torch.compiler.is_compiling():
            buffers, parameters = self._buffers, self._parameters
            try:
                return (
                    buffers["running_mean"],
                    buffers["running_var"],
                    buffers["num_batches_tracked"],
                    parameters["weight"],
                    parameters["bias"],
                )
            except KeyError:  # computed from others, by pruning, say
                pass
        names = "running_mean", "running_var", "num_batches_tracked", "weight", "bias"
        return [getattr(self, name) for name in names]

    def _found_vectors(self, tensors: tuple[Any, ...], channels: int) -> Vectors | None:
        """The tensors as arrays, found once; None where the library does not take them."""
        vectors = self._vectors
        if vectors is None or not vectors.are(tensors):
            vectors = self.__dict__["_vectors"] = Vectors.of_layer(tensors, channels)
        return vectors


CONVOLUTIONS = (Conv2d, ConvTranspose2d)
"""The modules whose arithmetic has an accuracy."""
