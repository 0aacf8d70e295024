"""Convolutional-network layers on CPUs, whose kernels Python emits as LLVM IR.

Importing the package does no work: every public name is loaded from its module at first use
(PEP 562), so that programs which never compute anything pay neither for NumPy nor for LLVM.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nnpack.epilogue import (
        AveragePool,
        Clip,
        Elu,
        Gelu,
        HardSigmoid,
        HardSwish,
        MaxPool,
        Mish,
        Prelu,
        Relu,
        Sigmoid,
        Silu,
        Tanh,
    )
    from nnpack.errors import (
        AlgorithmError,
        CompilationError,
        DtypeError,
        NnpackError,
        ProblemError,
        RegisterPressureError,
        SettingsError,
    )
    from nnpack.explanation import Explanation
    from nnpack.functional.activation_gradient import activation_gradient
    from nnpack.functional.convolution import conv2d, conv_transpose2d
    from nnpack.functional.convolution1d import conv1d, conv_transpose1d
    from nnpack.functional.elementwise import (
        add,
        clip,
        elu,
        gelu,
        hard_sigmoid,
        hard_swish,
        leaky_relu,
        mish,
        multiply,
        prelu,
        relu,
        sigmoid,
        silu,
        tanh,
    )
    from nnpack.functional.gradients import (
        conv2d_input_gradient,
        conv_transpose2d_input_gradient,
        explain_conv2d_input_gradient,
        explain_conv_transpose2d_input_gradient,
    )
    from nnpack.functional.linear import (
        linear,
        linear_bias_gradient,
        linear_input_gradient,
        linear_weight_gradient,
    )
    from nnpack.functional.normalization import batch_norm, batch_norm_gradient, fold_batch_norm
    from nnpack.functional.output_gradients import (
        conv2d_bias_gradient,
        conv2d_output_gradient,
        prelu_gradient,
    )
    from nnpack.functional.pooling import (
        adaptive_avg_pool2d,
        adaptive_max_pool2d,
        avg_pool2d,
        global_avg_pool2d,
        global_max_pool2d,
        max_pool2d,
    )
    from nnpack.functional.pooling_gradients import (
        adaptive_avg_pool2d_gradient,
        avg_pool2d_gradient,
        max_pool2d_gradient,
        max_pool2d_input_gradient,
    )
    from nnpack.functional.reshaping import (
        concat,
        pad2d,
        pad2d_gradient,
        upsample2d,
        upsample2d_gradient,
    )
    from nnpack.functional.softmax import (
        cross_entropy,
        cross_entropy_gradient,
        log_softmax,
        log_softmax_gradient,
        softmax,
        softmax_gradient,
    )
    from nnpack.functional.weight_gradients import (
        conv2d_weight_gradient,
        conv_transpose2d_weight_gradient,
        explain_conv2d_weight_gradient,
        explain_conv_transpose2d_weight_gradient,
    )
    from nnpack.integrations import torch as torch
    from nnpack.layers.convolution import Conv2d, ConvTranspose2d
    from nnpack.layers.linear import Linear
    from nnpack.layers.network import Network
    from nnpack.runtime.memory import trim
    from nnpack.settings import get_num_threads, set_num_threads
    from nnpack.wisdom import export_wisdom, forget_wisdom, import_wisdom

__version__ = "0.1.0"

__all__ = [
    "AlgorithmError",
    "AveragePool",
    "Clip",
    "CompilationError",
    "Conv2d",
    "ConvTranspose2d",
    "DtypeError",
    "Elu",
    "Explanation",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "Linear",
    "MaxPool",
    "Mish",
    "Network",
    "NnpackError",
    "Prelu",
    "ProblemError",
    "RegisterPressureError",
    "Relu",
    "SettingsError",
    "Sigmoid",
    "Silu",
    "Tanh",
    "__version__",
    "activation_gradient",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool2d_gradient",
    "adaptive_max_pool2d",
    "add",
    "avg_pool2d",
    "avg_pool2d_gradient",
    "batch_norm",
    "batch_norm_gradient",
    "clip",
    "concat",
    "conv1d",
    "conv2d",
    "conv2d_bias_gradient",
    "conv2d_input_gradient",
    "conv2d_output_gradient",
    "conv2d_weight_gradient",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose2d_input_gradient",
    "conv_transpose2d_weight_gradient",
    "cross_entropy",
    "cross_entropy_gradient",
    "elu",
    "explain_conv2d_input_gradient",
    "explain_conv2d_weight_gradient",
    "explain_conv_transpose2d_input_gradient",
    "explain_conv_transpose2d_weight_gradient",
    "export_wisdom",
    "fold_batch_norm",
    "forget_wisdom",
    "gelu",
    "get_num_threads",
    "global_avg_pool2d",
    "global_max_pool2d",
    "hard_sigmoid",
    "hard_swish",
    "import_wisdom",
    "leaky_relu",
    "linear",
    "linear_bias_gradient",
    "linear_input_gradient",
    "linear_weight_gradient",
    "log_softmax",
    "log_softmax_gradient",
    "max_pool2d",
    "max_pool2d_gradient",
    "max_pool2d_input_gradient",
    "mish",
    "multiply",
    "pad2d",
    "pad2d_gradient",
    "prelu",
    "prelu_gradient",
    "relu",
    "set_num_threads",
    "sigmoid",
    "silu",
    "softmax",
    "softmax_gradient",
    "tanh",
    "trim",
    "upsample2d",
    "upsample2d_gradient",
]

_NAMES_BY_MODULE = {
    "nnpack.epilogue": [
        "AveragePool",
        "Clip",
        "Elu",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "MaxPool",
        "Mish",
        "Prelu",
        "Relu",
        "Sigmoid",
        "Silu",
        "Tanh",
    ],
    "nnpack.errors": [
        "AlgorithmError",
        "CompilationError",
        "DtypeError",
        "NnpackError",
        "ProblemError",
        "RegisterPressureError",
        "SettingsError",
    ],
    "nnpack.explanation": ["Explanation"],
    "nnpack.functional.activation_gradient": ["activation_gradient"],
    "nnpack.functional.elementwise": [
        "add",
        "clip",
        "elu",
        "gelu",
        "hard_sigmoid",
        "hard_swish",
        "leaky_relu",
        "mish",
        "multiply",
        "prelu",
        "relu",
        "sigmoid",
        "silu",
        "tanh",
    ],
    "nnpack.functional.convolution": ["conv2d", "conv_transpose2d"],
    "nnpack.functional.convolution1d": ["conv1d", "conv_transpose1d"],
    "nnpack.functional.gradients": [
        "conv2d_input_gradient",
        "conv_transpose2d_input_gradient",
        "explain_conv2d_input_gradient",
        "explain_conv_transpose2d_input_gradient",
    ],
    "nnpack.functional.normalization": ["batch_norm", "batch_norm_gradient", "fold_batch_norm"],
    "nnpack.functional.output_gradients": [
        "conv2d_bias_gradient",
        "conv2d_output_gradient",
        "prelu_gradient",
    ],
    "nnpack.functional.linear": [
        "linear",
        "linear_bias_gradient",
        "linear_input_gradient",
        "linear_weight_gradient",
    ],
    "nnpack.functional.pooling": [
        "adaptive_avg_pool2d",
        "adaptive_max_pool2d",
        "avg_pool2d",
        "global_avg_pool2d",
        "global_max_pool2d",
        "max_pool2d",
    ],
    "nnpack.functional.pooling_gradients": [
        "adaptive_avg_pool2d_gradient",
        "avg_pool2d_gradient",
        "max_pool2d_gradient",
        "max_pool2d_input_gradient",
    ],
    "nnpack.functional.reshaping": [
        "concat",
        "pad2d",
        "pad2d_gradient",
        "upsample2d",
        "upsample2d_gradient",
    ],
    "nnpack.functional.softmax": [
        "cross_entropy",
        "cross_entropy_gradient",
        "log_softmax",
        "log_softmax_gradient",
        "softmax",
        "softmax_gradient",
    ],
    "nnpack.functional.weight_gradients": [
        "conv2d_weight_gradient",
        "conv_transpose2d_weight_gradient",
        "explain_conv2d_weight_gradient",
        "explain_conv_transpose2d_weight_gradient",
    ],
    "nnpack.layers.convolution": ["Conv2d", "ConvTranspose2d"],
    "nnpack.layers.linear": ["Linear"],
    "nnpack.layers.network": ["Network"],
    "nnpack.runtime.memory": ["trim"],
    "nnpack.settings": ["get_num_threads", "set_num_threads"],
    "nnpack.wisdom": ["export_wisdom", "forget_wisdom", "import_wisdom"],
}
# Not in __all__: importing it needs PyTorch.
_NAMES_OF_INTEGRATIONS = {"torch": "nnpack.integrations.torch"}
_MODULE_BY_NAME = {name: module for module, names in _NAMES_BY_MODULE.items() for name in names}

# Type checkers see the imports above; a module-level __getattr__ would make them accept any name.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Load a public name from its module, once."""
        if name in _NAMES_OF_INTEGRATIONS:
            value = globals()[name] = import_module(_NAMES_OF_INTEGRATIONS[name])
            return value
        if name not in _MODULE_BY_NAME:
            raise AttributeError(f"module 'nnpack' has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_MODULE_BY_NAME[name]), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
