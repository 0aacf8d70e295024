"""ncnn: one layer, float32 storage, its own choice of algorithm (Winograd for most 3x3)."""

from __future__ import annotations

import importlib
import pathlib
import tempfile
from typing import Any

import numpy as np

from nnpack.cli.bench.contestant import Operands, Prepared
from nnpack.cli.bench.layers import Layer

MAGIC = 7767517
FLOAT32_WEIGHTS = bytes(4)
INEXACT = (
    "use_fp16_packed",
    "use_fp16_storage",
    "use_fp16_arithmetic",
    "use_bf16_packed",
    "use_bf16_storage",
    "use_int8_inference",
)


def parameters(layer: Layer) -> str:
    """The text of ncnn's ``.param`` file for ``layer``."""
    keys = {
        0: layer.out_channels,
        1: layer.window[1],
        2: layer.dilation,
        3: layer.stride,
        4: layer.margins[1],
        5: 1,  # has a bias
        6: int(np.prod(layer.weight_shape)),
    }
    if layer.window[0] != layer.window[1] or layer.margins[0] != layer.margins[1]:
        keys |= {11: layer.window[0], 14: layer.margins[0]}
    kind = "Convolution"
    if layer.groups > 1:
        kind, keys[7] = "ConvolutionDepthWise", layer.groups
    values = " ".join(f"{key}={value}" for key, value in keys.items())
    return f"{MAGIC}\n2 2\nInput in 0 1 x\n{kind} conv 1 1 x y {values}\n"


def prepare(layer: Layer, operands: Operands, threads: int) -> Prepared:
    """A net of one layer. ncnn knows no batch, so a run takes the images one after another."""
    ncnn = importlib.import_module("ncnn")
    net = _load(ncnn, layer, operands, threads)
    images = [ncnn.Mat(image).clone() for image in operands.x]

    def run() -> list[Any]:
        return [_infer(net, image) for image in images]

    return Prepared(run, lambda outputs: np.stack([np.array(y) for y in outputs]))


def _load(ncnn: Any, layer: Layer, operands: Operands, threads: int) -> Any:
    net = ncnn.Net()
    net.opt.num_threads = threads
    for option in INEXACT:
        setattr(net.opt, option, False)
    with tempfile.TemporaryDirectory() as folder:
        param, weights = pathlib.Path(folder, "layer.param"), pathlib.Path(folder, "layer.bin")
        param.write_text(parameters(layer))
        weights.write_bytes(FLOAT32_WEIGHTS + operands.weight.tobytes() + operands.bias.tobytes())
        if net.load_param(str(param)) or net.load_model(str(weights)):
            raise RuntimeError("ncnn cannot load the layer")
    return net


def _infer(net: Any, image: Any) -> Any:
    with net.create_extractor() as extractor:
        extractor.input("x", image)
        status, y = extractor.extract("y")
        if status:
            raise RuntimeError(f"ncnn answers {status}")
        return y
