"""Every output is checked against float64 before anything is timed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnpack.cli.bench.contestant import Operands
from nnpack.cli.bench.layers import Layer

EXACT = 1e-4  # a peer with a larger error computes something else, and sets no mark
WRONG = 1e-1  # beyond this an output is no approximation, and is not timed
CHECKED_IMAGES = 8


class Reference:
    """The output of ``layer`` in float64, of up to 8 images spread over the batch."""

    def __init__(self, layer: Layer, operands: Operands) -> None:
        batch = len(operands.x)
        self.shape = layer.output_shape(batch)
        self.images = np.unique(np.linspace(0, batch - 1, CHECKED_IMAGES).round().astype(int))
        self.values = np.stack(
            [convolve_image(layer, operands, operands.x[i]) for i in self.images]
        )

    def error(self, output: Any) -> float:
        """max|output - reference| / max|reference|; infinite for NaN or another shape."""
        output = np.asarray(output)
        if output.shape != self.shape:
            return float("inf")
        error = np.abs(output[self.images] - self.values).max() / np.abs(self.values).max()
        return float(error) if np.isfinite(error) else float("inf")


def convolve_image(
    layer: Layer, operands: Operands, image: NDArray[np.float32]
) -> NDArray[np.float64]:
    """y[o, p] = bias[o] + sum_k weight[o, k] * patch[k, p] in float64, group by group."""
    k, s, p = layer.kernel, layer.stride, layer.padding
    padded = np.pad(image.astype(np.float64), ((0, 0), (p, p), (p, p)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (k, k), axis=(1, 2))[:, ::s, ::s]
    pixels = layer.out_image**2
    patches = windows.transpose(0, 3, 4, 1, 2).reshape(layer.groups, -1, pixels)
    weight = operands.weight.astype(np.float64).reshape(layer.groups, -1, patches.shape[1])
    y = (weight @ patches).reshape(layer.out_channels, layer.out_image, layer.out_image)
    return np.asarray(y + operands.bias[:, None, None])
