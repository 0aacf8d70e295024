"""The network ``upconv_7``: a picture to twice its size, as layers of this library.

Six unpadded 3x3 convolutions with leaky ReLU, 3-16-32-64-128-128-256 channels, and a transposed
4x4 convolution of stride 2 back to 3 channels (nagadomi, *waifu2x*, ``srcnn.lua``, 2016-2018).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from nnpack.cli.demo.ncnn import LayerWeights, Shape
from nnpack.cli.demo.tiles import Float32

__all__ = ["BORDER", "SCALE", "SHAPES", "Upconv7", "flops"]

_CHANNELS = (3, 16, 32, 64, 128, 128, 256)
_SLOPE = 0.1
_UP_KERNEL = 4
_UP_PADDING = 3

SCALE = 2
# Each 3x3 takes one pixel a side; the transposed layer crops 3 of its output pixels a side where
# a 4x4 kernel of stride 2 would need to crop only 1 to give exactly twice the size: one input
# pixel more.
BORDER = len(_CHANNELS) - 1 + (_UP_PADDING - (_UP_KERNEL - SCALE) // 2) // SCALE

SHAPES: tuple[Shape, ...] = (
    *((k, c, 3, 3) for c, k in pairwise(_CHANNELS)),
    (_CHANNELS[0], _CHANNELS[-1], _UP_KERNEL, _UP_KERNEL),
)
"""Shapes of the weights as the file holds them, (out, in, kh, kw), the transposed layer last."""


@dataclass(frozen=True, slots=True)
class Upconv7:
    """(3, h, w) float32 to (3, 2h - 28, 2w - 28), by layers that map (1, c, h, w) arrays."""

    layers: tuple[Callable[[Float32], Float32], ...]

    @classmethod
    def from_weights(
        cls, weights: Sequence[LayerWeights], *, algorithm: str = "auto", threads: int | None = None
    ) -> Upconv7:
        """Build the network of nnpack layers; ``algorithm`` is what the 3x3 convolutions use."""
        from nnpack import Conv2d, ConvTranspose2d, Relu  # imports llvmlite, which takes a while

        convolutions = (
            Conv2d(
                layer.weight,
                layer.bias,
                activation=Relu(slope=_SLOPE),
                algorithm=algorithm,
                threads=threads,
            )
            for layer in weights[:-1]
        )
        up = ConvTranspose2d(
            # ncnn keeps the kernels of a transposed convolution by output channel.
            np.ascontiguousarray(weights[-1].weight.transpose(1, 0, 2, 3)),
            weights[-1].bias,
            stride=SCALE,
            padding=_UP_PADDING,
            threads=threads,
        )
        return cls((*convolutions, up))

    def __call__(self, planes: Float32) -> Float32:
        """Enlarge the middle of ``planes``: all but ``BORDER`` pixels on each side."""
        values = planes[np.newaxis]
        for layer in self.layers:
            values = layer(values)
        result: Float32 = values[0]
        return result


def flops(height: int, width: int) -> int:
    """Multiplications and additions, by direct convolution, to enlarge (h, w) pixels.

    The border is included. A transposed convolution of stride 2 has a quarter of its taps at each
    output pixel.
    """
    h, w = height + 2 * BORDER, width + 2 * BORDER
    total = 0
    for k, c, kh, kw in SHAPES[:-1]:
        h, w = h - kh + 1, w - kw + 1
        total += 2 * k * c * kh * kw * h * w
    k, c, kh, kw = SHAPES[-1]
    return total + 2 * k * c * (kh // SCALE) * (kw // SCALE) * SCALE * height * SCALE * width
