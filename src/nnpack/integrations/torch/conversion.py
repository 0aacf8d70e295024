"""Modules converted: PyTorch's layers become the library's, with everything they hold."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TypeVar

import torch

from nnpack.errors import ProblemError
from nnpack.integrations.torch import modules
from nnpack.problem import Accuracy

__all__ = ["convert"]

_Module = TypeVar("_Module", bound=torch.nn.Module)

_REPLACEMENTS = {
    torch.nn.BatchNorm2d: modules.BatchNorm2d,
    torch.nn.Conv2d: modules.Conv2d,
    torch.nn.ConvTranspose2d: modules.ConvTranspose2d,
    torch.nn.Linear: modules.Linear,
    torch.nn.MaxPool2d: modules.MaxPool2d,
}


def convert(module: _Module, *, inplace: bool = False, accuracy: Accuracy = "fast") -> _Module:
    """``module`` with its layers computed by the library, for training and for inference.

    Layers that are exactly `torch.nn.Conv2d`, `ConvTranspose2d`, `Linear`, `MaxPool2d` or
    `BatchNorm2d` become instances of subclasses of theirs (`nnpack.torch.Conv2d`, ...). Parameters,
    buffers, their gradients, hooks, modes and state dicts stay what they are. Subclasses of others
    (lazy or parametrised layers among them) are left alone. Layers that are converted already only
    take the ``accuracy``.

    With ``inplace`` the layers change where they stand; otherwise the modules are copied, and
    the copy shares all parameters and buffers with ``module``.

    Raises ProblemError when ``accuracy`` is neither "fast" nor "exact".
    """
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
    return module


def _tensors(module: torch.nn.Module) -> Iterator[torch.Tensor]:
    """What a copy shares: parameters, buffers, and tensors that layers hold as attributes.

    The last are weights computed from parameters, as by `torch.nn.utils.weight_norm`; PyTorch
    refuses to copy those.
    """
    yield from module.parameters()
    yield from module.buffers()
    for layer in module.modules():
        yield from (value for value in vars(layer).values() if isinstance(value, torch.Tensor))
