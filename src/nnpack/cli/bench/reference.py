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
CHECKED_FLOPS = 2e10  # fewer images of large layers: a second or so a layer


class Reference:
    """The output of ``layer`` in float64, of up to 8 images spread over the batch, two at least."""

    def __init__(self, layer: Layer, operands: Operands) -> None:
        batch = len(operands.x)
        self.shape = layer.output_shape(batch)
        count = min(CHECKED_IMAGES, max(2, int(CHECKED_FLOPS / layer.flops(1))))
        self.images = np.unique(np.linspace(0, batch - 1, count).round().astype(int))
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
    """y[o, p] = bias[o] + sum_t weight[o, :, t] @ x[:, p + t] in float64, tap t by tap."""
    (top, left), (rows, columns) = layer.margins, layer.out_size
    padded = np.pad(image.astype(np.float64), ((0, 0), (top, top), (left, left)))
    weight = operands.weight.astype(np.float64)
    weight = weight.reshape(layer.groups, -1, *weight.shape[1:])
    y = np.zeros((layer.groups, weight.shape[1], rows * columns))
    for i, j in np.ndindex(*layer.window):
        shifted = padded[:, i * layer.dilation :, j * layer.dilation :]
        pixels = shifted[:, :: layer.stride, :: layer.stride][:, :rows, :columns]
        y += weight[..., i, j] @ pixels.reshape(layer.groups, -1, rows * columns)
    return np.asarray(y.reshape(-1, rows, columns) + operands.bias[:, None, None])
