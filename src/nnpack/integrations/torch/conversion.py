"""Modules converted: PyTorch's layers become the library's, with everything they hold."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TypeVar

import torch

from nnpack.errors import DtypeError, ProblemError
from nnpack.integrations.torch import activation_modules, modules, softmax_modules
from nnpack.integrations.torch.sequential import merges, merging
from nnpack.problem import Accuracy

__all__ = ["convert"]

_Module = TypeVar("_Module", bound=torch.nn.Module)

_REPLACEMENTS: dict[type, type] = {
    getattr(torch.nn, name): getattr(ours, name)
    for ours in (modules, activation_modules, softmax_modules)
    for name in ours.__all__
    if name != "CONVOLUTIONS"
}


def convert(module: _Module, *, inplace: bool = False, accuracy: Accuracy = "fast") -> _Module:
    """``module`` with its layers computed by the library, for training and for inference.

    Layers that are exactly `torch.nn.Conv2d`, `ConvTranspose2d`, `Linear`, `MaxPool2d`,
    `AvgPool2d`, `AdaptiveAvgPool2d`, `BatchNorm2d`, `Softmax`, `LogSoftmax` or an activation become
    instances of subclasses of theirs (`nnpack.torch.Conv2d`, ...). Parameters, buffers, their
    gradients, hooks, modes and state dicts stay what they are. Subclasses of others (lazy or
    parametrised layers among them) are left alone. Layers that are converted already only take the
    ``accuracy``. A `torch.nn.Sequential` (or a subclass that inherits its ``forward``) in which an
    activation follows a `BatchNorm2d` trains both in one pass (`nnpack.torch.Sequential`).

    With ``inplace`` the layers change where they stand; otherwise the modules are copied, and
    the copy shares all parameters and buffers with ``module``.

    Raises DtypeError when ``module`` is none, ProblemError when ``accuracy`` is neither "fast" nor
    "exact".
    """
    if not isinstance(module, torch.nn.Module):
        raise DtypeError(f"convert takes a torch.nn.Module, an instance, not {module!r:.80}")
    if accuracy not in ("fast", "exact"):
        raise ProblemError(f"accuracy={accuracy!r} must be 'fast' or 'exact'")
    if not inplace:
        module = copy.deepcopy(module, {id(tensor): tensor for tensor in _tensors(module)})
    for layer in module.modules():
        replacement = _REPLACEMENTS.get(type(layer))
        if replacement is not None:
            layer.__class__ = replacement
        if isinstance(layer, modules.CONVOLUTIONS):
            layer.accuracy = accuracy
        if isinstance(layer, modules.BatchNorm2d):
            _take_plain_numbers(layer)
    for sequence in module.modules():
        if isinstance(sequence, torch.nn.Sequential) and merges(sequence):
            sequence.__class__ = merging(type(sequence)) or type(sequence)
    return module


def _take_plain_numbers(layer: torch.nn.BatchNorm2d) -> None:
    """Python's floats in place of NumPy's, which `torch.compile` takes for tensors."""
    layer.eps = float(layer.eps)
    if layer.momentum is not None:
        layer.momentum = float(layer.momentum)


def _tensors(module: torch.nn.Module) -> Iterator[torch.Tensor]:
    """What a copy shares: parameters, buffers, and tensors that layers hold as attributes.

    The last are weights computed from parameters, as by `torch.nn.utils.weight_norm`; PyTorch
    refuses to copy those.
    """
    yield from module.parameters()
    yield from module.buffers()
    for layer in module.modules():
        yield from (value for value in vars(layer).values() if isinstance(value, torch.Tensor))
