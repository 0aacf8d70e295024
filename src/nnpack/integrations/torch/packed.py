"""Layers of the library on the parameters of modules, packed once for each of their versions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nnpack.errors import NnpackError
from nnpack.integrations.torch.eligibility import is_usable, records_gradients
from nnpack.integrations.torch.exchange import as_array, as_optional_array, as_tensor
from nnpack.integrations.torch.threads import take_threads

__all__ = ["Packing"]


class _Packed:
    """A layer of the library, with copies of ``weight`` and ``bias`` as they were.

    The tensors are kept: neither they nor their memory make room for others that would pass for
    them.
    """

    __slots__ = ("bias", "kept", "layer", "state", "weight")

    def __init__(self, layer: Any, weight: Tensor, bias: Tensor | None, state: Any) -> None:
        self.layer, self.weight, self.bias, self.state = layer, weight, bias, state
        self.kept = [tensor.detach() for tensor in (weight, bias) if tensor is not None]


class Packing(torch.nn.Module):
    """A module that keeps packed parameters for inference: in eval mode and without gradients.

    A write through ``parameter.data`` leaves no trace in the version; as such writes belong to
    training, every call of ``train`` or ``eval`` forgets what was packed.
    """

    _packed: _Packed | None = None

    def train(self, mode: bool = True) -> Any:
        """Set the mode, as for every module."""
        self.__dict__.pop("_packed", None)
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_packed"}

    def _make_layer(
        self, weight: object, bias: object, words: tuple[Any, ...], threads: int
    ) -> Any:
        """The layer of the library for these parameters and arguments."""
        raise NotImplementedError

    def _run_packed(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, words: tuple[Any, ...]
    ) -> Tensor | None:
        """The layer on ``x``, which the library takes; None where it is not to be packed.

        ``words`` are all other arguments of the layer.
        """
        if torch.compiler.is_compiling() or not is_usable():
            return None
        if records_gradients(x, weight, bias):
            # An optimizer may follow, and the fused ones leave no trace in the version.
            self.__dict__.pop("_packed", None)
            return None
        if not _have_versions(weight, bias):
            return None
        threads = take_threads(x.numel() * weight.numel() // max(1, weight.shape[1]))
        state = words, threads, _version(weight), None if bias is None else _version(bias)
        packed = self._packed
        try:
            if (
                packed is None
                or packed.state != state
                or packed.weight is not weight
                or packed.bias is not bias
            ):
                arrays = as_array(weight), as_optional_array(bias)
                layer = self._make_layer(*arrays, words, threads)
                packed = self._packed = _Packed(layer, weight, bias, state)
            return as_tensor(packed.layer(as_array(x)))
        except NnpackError:  # what we refuse, PyTorch may allow, or else reports
            return None


def _have_versions(*tensors: Tensor | None) -> bool:
    """Whether these are parameters, which last, and count what is written into them.

    A weight that is computed anew for each call (by weight_norm or pruning, say) is none.
    """
    return all(
        tensor is None or (type(tensor) is torch.nn.Parameter and not tensor.is_inference())
        for tensor in tensors
    )


def _version(tensor: Tensor) -> tuple[int, int]:
    return tensor._version, tensor.data_ptr()
