"""One version of a layer's weights, and what was derived from it, in caches that are bounded.

Packed copies are bounded by their bytes, programs by their number. Of either the ones that no call
has used since they were last in turn go first (the clock algorithm: Corbato, 1968): a call marks
its program, which takes neither a lock nor a look at the cache.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np

from nnpack.arrays import Float32Array

if TYPE_CHECKING:
    import numpy.typing as npt

    from nnpack.layers.base import Prepared
    from nnpack.plan import WeightFormat
    from nnpack.runtime.memory import Block

__all__ = ["Weights"]

_MAX_PROGRAMS = 64
_FORMATS_PER_WEIGHT = 16
"""Bytes of packed copies for each of the float32 weights: Winograd's of a 3x3 kernel are 2 to 7."""
_LEAST_BYTES = 4 << 20
"""Copies that are allowed to the smallest layers, too, which have many formats for little."""

CallKey = tuple[tuple[int, ...], tuple[int, ...], int, bool, int | None]
"""Shape and strides of x, threads, whether there is a residual, what `slice_stride` says of out."""


class Weights:
    """One version of a layer's weights with what was derived from it; replaced whole on update.

    The weight is an array of float16 where it is stored so. What is kept is changed under the
    layer's lock alone, and read without.
    """

    def __init__(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        self.arrays = arrays
        self.packed: OrderedDict[WeightFormat, Block] = OrderedDict()
        self.prepared: OrderedDict[CallKey, Prepared] = OrderedDict()

    def as_float32(self) -> dict[str, Float32Array]:
        """The arrays as programs read them, for as long as they are kept."""
        arrays = self.arrays.items()
        return {name: array.astype(np.float32, copy=False) for name, array in arrays}

    @property
    def packed_bytes(self) -> int:
        """What the packed copies take."""
        return sum(block.nbytes for block in self.packed.values())

    def keep_program(self, key: CallKey, prepared: Prepared) -> None:
        """Keep the program of a call, and another one no longer if there are too many."""
        self.prepared[key] = prepared
        while len(self.prepared) > _MAX_PROGRAMS:
            oldest, other = self.prepared.popitem(last=False)
            if other.recent:
                other.recent = False
                self.prepared[oldest] = other

    def keep_format(self, form: WeightFormat, packed: Block) -> None:
        """Keep a packed copy; others go until all fit their share, or two of the largest."""
        self.packed[form] = packed
        largest = max(block.nbytes for block in self.packed.values())
        share = 4 * _FORMATS_PER_WEIGHT * self.arrays["weight"].size
        limit = max(2 * largest, share, _LEAST_BYTES)
        while self.packed_bytes > limit:
            oldest, block = self.packed.popitem(last=False)
            readers = {k: p for k, p in self.prepared.items() if block in p.keep}
            if block is packed or any(p.recent for p in readers.values()):
                self.packed[oldest] = block
                for prepared in readers.values():
                    prepared.recent = False
            else:  # programs that read it would keep it alive
                for key in readers:
                    del self.prepared[key]
