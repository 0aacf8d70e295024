"""Reader of ncnn weight files (``.bin``), for networks whose layer shapes are known.

The file has no header and no names: layer after layer, a 4-byte tag, the weights, and the biases.
Everything is little-endian and every part begins at a multiple of 4 bytes. The tag says how the
weights are stored (ncnn, ``ModelBinFromDataReader::load``, type 0); biases are always float32.

A weight file is untrusted input: nothing is read beyond its end, nothing is allocated that its own
size does not pay for, and no value that is not finite gets through.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from nnpack.cli.demo.errors import NcnnFormatError

__all__ = ["FLOAT16_TAG", "FLOAT32_TAG", "LayerWeights", "Shape", "read_weights"]

Float32: TypeAlias = NDArray[np.float32]
Shape: TypeAlias = tuple[int, int, int, int]

FLOAT16_TAG = 0x01306B47
FLOAT32_TAG = 0
_STORAGE: dict[int, np.dtype[np.floating]] = {
    FLOAT16_TAG: np.dtype("<f2"),
    FLOAT32_TAG: np.dtype("<f4"),
}
_ALIGNMENT = 4


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """The weights of one layer as ncnn orders them, (out, in, kh, kw), and its (out,) biases."""

    weight: Float32
    bias: Float32


class _Cursor:
    """A position in the file that only moves forward and never past the end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._offset = 0

    @property
    def remaining(self) -> int:
        return len(self._data) - self._offset

    def take(self, size: int, what: str) -> bytes:
        """Return the next ``size`` bytes, then skip to the next multiple of 4."""
        if size > self.remaining:
            raise NcnnFormatError(
                f"the weight file ends within {what}: {size} bytes needed at offset "
                f"{self._offset}, {self.remaining} left; is the file complete?"
            )
        part = self._data[self._offset : self._offset + size]
        self._offset += -(-size // _ALIGNMENT) * _ALIGNMENT
        return part


def read_weights(data: bytes, shapes: Sequence[Shape]) -> tuple[LayerWeights, ...]:
    """Read the layers whose weights have these (out, in, kh, kw) shapes from an ncnn file.

    Half-precision weights are widened to float32.

    Raises NcnnFormatError when the file ends early or late, stores weights in another way (int8,
    quantised), or holds a value that is not finite.
    """
    cursor = _Cursor(data)
    layers = tuple(
        _read_layer(cursor, shape, f"layer {index}") for index, shape in enumerate(shapes, 1)
    )
    if cursor.remaining > 0:
        raise NcnnFormatError(
            f"the weight file has {cursor.remaining} bytes more than its {len(layers)} layers "
            "need: it was made for another network"
        )
    return layers


def _read_layer(cursor: _Cursor, shape: Shape, name: str) -> LayerWeights:
    (tag,) = struct.unpack("<I", cursor.take(4, f"the tag of {name}"))
    storage = _STORAGE.get(tag)
    if storage is None:
        raise NcnnFormatError(
            f"{name} has the tag 0x{tag:08x}; only float16 (0x{FLOAT16_TAG:08x}) and plain "
            "float32 (0) weights can be read: the file is quantised, damaged or not from ncnn"
        )
    weight = _read_array(cursor, storage, shape, f"the weights of {name}")
    bias = _read_array(cursor, np.dtype("<f4"), shape[:1], f"the biases of {name}")
    return LayerWeights(weight, bias)


def _read_array(
    cursor: _Cursor, storage: np.dtype[np.floating], shape: tuple[int, ...], what: str
) -> Float32:
    data = cursor.take(math.prod(shape) * storage.itemsize, what)
    values = np.frombuffer(data, storage).astype(np.float32).reshape(shape)
    if not np.isfinite(values).all():
        raise NcnnFormatError(f"{what} are not all finite numbers: the weight file is damaged")
    return values
