"""PyTorch's layers and functions, computed by this library; reached as ``nnpack.torch``."""

from __future__ import annotations

try:
    import torch  # noqa: F401 - whether it can be imported is the question
except ImportError as error:
    raise ImportError(
        'nnpack.torch needs PyTorch: pip install "nnpack-jit[torch]"', name="torch"
    ) from error

from nnpack.integrations.torch.activation_modules import (
    ELU,
    GELU,
    Hardswish,
    Hardtanh,
    LeakyReLU,
    ReLU,
    ReLU6,
    SiLU,
)
from nnpack.integrations.torch.averages import adaptive_avg_pool2d, avg_pool2d
from nnpack.integrations.torch.conversion import convert
from nnpack.integrations.torch.convolution import conv2d, conv_transpose2d
from nnpack.integrations.torch.linear import linear
from nnpack.integrations.torch.modules import (
    AdaptiveAvgPool2d,
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    ConvTranspose2d,
    Linear,
    MaxPool2d,
)
from nnpack.integrations.torch.normalization import batch_norm
from nnpack.integrations.torch.pooling import max_pool2d
from nnpack.integrations.torch.sequential import Sequential
from nnpack.integrations.torch.softmax_modules import LogSoftmax, Softmax

__all__ = [
    "ELU",
    "GELU",
    "AdaptiveAvgPool2d",
    "AvgPool2d",
    "BatchNorm2d",
    "Conv2d",
    "ConvTranspose2d",
    "Hardswish",
    "Hardtanh",
    "LeakyReLU",
    "Linear",
    "LogSoftmax",
    "MaxPool2d",
    "ReLU",
    "ReLU6",
    "Sequential",
    "SiLU",
    "Softmax",
    "adaptive_avg_pool2d",
    "avg_pool2d",
    "batch_norm",
    "conv2d",
    "conv_transpose2d",
    "convert",
    "linear",
    "max_pool2d",
]
