"""Checkpoints as torch.save wrote them before PyTorch 1.6, made without PyTorch."""

from __future__ import annotations

import math
import pickle
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from nnpack.cli.demo.efficientnet import LITE0, Float32, Stage

HEAD = b"".join(
    pickle.dumps(value, 2)
    for value in (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True})
)
GLOBALS = {"float32": b"ctorch\nFloatStorage\n", "int64": b"ctorch\nLongStorage\n"}


def _value(value: object) -> bytes:
    """The opcodes of a plain value, without frame or memory."""
    if isinstance(value, tuple):
        return b"(" + b"".join(_value(item) for item in value) + b"t"
    if isinstance(value, str):
        return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
    if value is None or isinstance(value, bool):
        return {None: b"N", True: b"\x88", False: b"\x89"}[value]
    assert isinstance(value, int)
    return b"J" + struct.pack("<i", value)


def tensor(key: str, array: np.ndarray[Any, Any], offset: int = 0) -> bytes:
    """The opcodes of a tensor, which may be a transposed view of its storage."""
    storage = b"(" + _value("storage") + GLOBALS[array.dtype.name] + _value(key) + _value("cpu")
    storage += _value(array.size + offset) + b"NtQ"
    strides = tuple(stride // array.itemsize for stride in array.strides)
    arguments = _value(offset) + _value(array.shape) + _value(strides) + b"\x89"
    arguments += b"ccollections\nOrderedDict\n)R"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + arguments + b"tR"


def checkpoint(arrays: Mapping[str, np.ndarray[Any, Any]]) -> bytes:
    """A file of these arrays, each the transposed view of its storage where it is one."""
    items = b"".join(
        _value(name) + tensor(str(n), array) for n, (name, array) in enumerate(arrays.items())
    )
    metadata = b"}" + _value("_metadata") + b"}s"
    state = b"\x80\x02ccollections\nOrderedDict\n)R(" + items + b"u" + metadata + b"b."
    keys = pickle.dumps([str(n) for n in range(len(arrays))], 2)
    # The memory of an array in the order of its strides.
    storages = (array.ravel(order="K") for array in arrays.values())
    numbers = b"".join(struct.pack("<q", row.size) + row.tobytes() for row in storages)
    return HEAD + state + keys + numbers


def random_weights(
    stages: tuple[Stage, ...] = LITE0, features: int = 1280, classes: int = 1000
) -> dict[str, Float32]:
    """Weights of a network of ``stages`` under their names, of a size that keeps values near 1."""
    rng = np.random.default_rng(0)
    weights: dict[str, Float32] = {}

    def convolution(name: str, norm: str, *shape: int) -> None:
        deviation = 1 / math.sqrt(math.prod(shape[1:]))
        weights[f"{name}.weight"] = rng.normal(0, deviation, shape).astype(np.float32)
        for part in ("weight", "bias", "running_mean", "running_var"):
            low = 0.5 if part in ("weight", "running_var") else -0.5
            weights[f"{norm}.{part}"] = rng.uniform(low, low + 1, shape[0]).astype(np.float32)

    convolution("_conv_stem", "_bn0", stages[0].inputs, 3, 3, 3)
    number = 0
    for stage in stages:
        for repeat in range(stage.repeats):
            inputs = stage.outputs if repeat else stage.inputs
            wide, name = inputs * stage.expansion, f"_blocks.{number}."
            if stage.expansion > 1:
                convolution(f"{name}_expand_conv", f"{name}_bn0", wide, inputs, 1, 1)
            kernel = stage.kernel, stage.kernel
            convolution(f"{name}_depthwise_conv", f"{name}_bn1", wide, 1, *kernel)
            convolution(f"{name}_project_conv", f"{name}_bn2", stage.outputs, wide, 1, 1)
            number += 1
    convolution("_conv_head", "_bn1", features, stages[-1].outputs, 1, 1)
    weights["_fc.weight"] = rng.normal(0, 0.1, (classes, features)).astype(np.float32)
    weights["_fc.bias"] = rng.normal(0, 0.1, classes).astype(np.float32)
    return weights
