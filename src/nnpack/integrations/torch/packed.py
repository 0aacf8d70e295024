"""Layers of the library on the parameters of modules, packed once for each of their versions."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from nnpack.errors import NnpackError
from nnpack.integrations.torch.eligibility import is_usable, records_gradients
from nnpack.integrations.torch.exchange import as_array, as_optional_array, as_tensor
from nnpack.integrations.torch.threads import take_threads

__all__ = ["Packing", "can_pack", "forget", "run_kept"]

Make = Callable[[object, object, tuple[Any, ...], int], Any]
"""Makes a layer of weight, bias, its other arguments and a number of threads."""

_SAMPLES = 64


class _Packed:
    """A layer of the library, with copies of ``weight`` and ``bias`` as they were.

    Their memory is kept, so that no other passes for it, but not the tensors.
    """

    __slots__ = ("_bias", "_samples", "_state", "_weight", "layer")

    def __init__(self, layer: Any, weight: Tensor, bias: Tensor | None, state: Any) -> None:
        self.layer, self._state = layer, state
        self._weight, self._bias = weakref.ref(weight), None if bias is None else weakref.ref(bias)
        self._samples = [
            (view, view.tobytes())
            for view in (as_array(t).reshape(-1) for t in (weight, bias) if t is not None)
            for view in (view[:: max(1, view.size // _SAMPLES)],)
        ]

    def is_of(self, weight: Tensor, bias: Tensor | None, state: Any) -> bool:
        """Whether these are the tensors, with what they held.

        Writes through ``parameter.data`` and steps of fused optimizers leave no trace in versions.
        They change tensors as a whole, so that it shows in a few of the numbers.
        """
        return (
            state == self._state
            and self._weight() is weight
            and (bias is None if self._bias is None else self._bias() is bias)
            and all(view.tobytes() == sample for view, sample in self._samples)
        )


def _state(
    x: Tensor, weight: Tensor, bias: Tensor | None, words: tuple[Any, ...]
) -> tuple[Any, ...]:
    threads = take_threads(x.numel() * weight.numel() // max(1, weight.shape[1]))
    return words, threads, _version(weight), None if bias is None else _version(bias)


def _version(tensor: Tensor) -> tuple[int, int]:
    return tensor._version, tensor.data_ptr()


def _pack(make: Make, weight: Tensor, bias: Tensor | None, state: tuple[Any, ...]) -> _Packed:
    layer = make(as_array(weight), as_optional_array(bias), state[0], state[1])
    return _Packed(layer, weight, bias, state)


def can_pack(*tensors: Tensor | None) -> bool:
    """Whether these are parameters, which last, and count what is written into them.

    A weight that is computed anew for each call (by weight_norm or pruning, say) is none.
    """
    return all(
        tensor is None or (type(tensor) is torch.nn.Parameter and not tensor.is_inference())
        for tensor in tensors
    )


class Packing(torch.nn.Module):
    """A module that keeps packed parameters for inference: in eval mode and without gradients.

    A write through ``parameter.data`` leaves no trace in the version; as such writes belong to
    training, every call of ``train`` or ``eval`` forgets what was packed.
    """

    _packed: _Packed | None = None

    def train(self, mode: bool = True) -> Any:
        """Set the mode, as for every module."""
        self.__dict__.pop("_packed", None)
        for parameter in self._parameters.values():
            forget(parameter)
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
        if not can_pack(weight, bias):
            return None
        state, packed = _state(x, weight, bias, words), self._packed
        try:
            if packed is None or not packed.is_of(weight, bias, state):
                packed = self._packed = _pack(self._make_layer, weight, bias, state)
            return as_tensor(packed.layer(as_array(x)))
        except NnpackError:  # what we refuse, PyTorch may allow, or else reports
            return None


_kept: Any = WeakTensorKeyDictionary()
"""Of each weight what compiled graphs packed, by words and threads: a graph has no other place."""


def run_kept(
    x: Tensor, weight: Tensor, bias: Tensor | None, words: tuple[Any, ...], make: Make
) -> Tensor | None:
    """The layer that ``make`` makes on ``x``, kept as long as ``weight``; None where it may not be.

    All tensors are such as the library takes, and no gradients are recorded.
    """
    if not can_pack(weight, bias):
        return None
    state = _state(x, weight, bias, words)
    try:
        of_weight = _kept.setdefault(weight, {})
        packed = of_weight.get(state[:2])
        if packed is None or not packed.is_of(weight, bias, state):
            packed = of_weight[state[:2]] = _pack(make, weight, bias, state)
        return as_tensor(packed.layer(as_array(x)))
    except NnpackError:  # what we refuse, PyTorch may allow, or else reports
        return None


def forget(weight: Tensor | None) -> None:
    """Drop what compiled graphs packed of ``weight``: an optimizer may follow."""
    if len(_kept.data) and weight is not None:
        _kept.pop(weight, None)
