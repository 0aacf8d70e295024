"""EfficientNet-Lite0 as data: its convolutions in order, batch normalisation folded into them.

A stem, sixteen inverted bottlenecks (1x1 to more channels, depthwise, 1x1 to fewer, and the input
added where shapes agree), a head of 1x1, the mean of each channel, and one fully connected layer
(Tan & Le, 2019; the Lite form, Liu, 2020, has ReLU6 everywhere and no squeeze-and-excitation).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

import nnpack
from nnpack.cli.demo.errors import CheckpointError

__all__ = ["CLASSES", "LITE0", "SIDE", "Block", "Convolution", "Network", "Stage", "read_network"]

Float32: TypeAlias = NDArray[np.float32]

SIDE = 224
"""Pixels of the pictures that the network was trained on, each way."""
CLASSES = 1000
_EPS = 1e-3


@dataclass(frozen=True, slots=True)
class Stage:
    """``repeats`` blocks of one kind; the first has the stride and changes the channels."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    inputs: int
    outputs: int


LITE0 = (
    Stage(1, 3, 1, 1, 32, 16),
    Stage(2, 3, 2, 6, 16, 24),
    Stage(2, 5, 2, 6, 24, 40),
    Stage(3, 3, 2, 6, 40, 80),
    Stage(3, 5, 1, 6, 80, 112),
    Stage(4, 5, 2, 6, 112, 192),
    Stage(1, 3, 1, 6, 192, 320),
)


@dataclass(frozen=True, slots=True)
class Convolution:
    """One convolution with "same" padding, its bias, and ReLU6 where it is ``clipped``."""

    name: str
    weight: Float32
    bias: Float32
    stride: int = 1
    groups: int = 1
    clipped: bool = True


@dataclass(frozen=True, slots=True)
class Block:
    """Convolutions one after the other; with ``residual`` the input is added to what they give."""

    layers: tuple[Convolution, ...]
    residual: bool = False


@dataclass(frozen=True, slots=True)
class Network:
    """The blocks, and the fully connected layer behind the mean of each channel."""

    blocks: tuple[Block, ...]
    weight: Float32
    bias: Float32


def read_network(weights: Mapping[str, Float32], stages: tuple[Stage, ...] = LITE0) -> Network:
    """The network of ``stages`` with the ``weights`` of a checkpoint, every one of which is used.

    Raises CheckpointError when one is missing, left over, or of another shape.
    """
    reader = _Reader(dict(weights))
    stem = reader.convolution("_conv_stem", "_bn0", (stages[0].inputs, 3, 3, 3), stride=2)
    blocks = [Block((stem,))]
    for stage in stages:
        for inputs, stride in _repeats(stage):
            blocks.append(_block(reader, stage, len(blocks) - 1, inputs, stride))
    features = reader.width("_conv_head.weight")
    head = reader.convolution("_conv_head", "_bn1", (features, stages[-1].outputs, 1, 1))
    bias = reader.take("_fc.bias", (reader.width("_fc.bias"),))
    weight = reader.take("_fc.weight", (len(bias), features))
    reader.check_empty()
    return Network((*blocks, Block((head,))), weight, bias)


def _repeats(stage: Stage) -> Iterator[tuple[int, int]]:
    """Input channels and stride of each block."""
    yield stage.inputs, stage.stride
    for _ in range(stage.repeats - 1):
        yield stage.outputs, 1


def _block(reader: _Reader, stage: Stage, number: int, inputs: int, stride: int) -> Block:
    name, wide = f"_blocks.{number}.", inputs * stage.expansion
    layers = []
    if stage.expansion > 1:
        shape = wide, inputs, 1, 1
        layers.append(reader.convolution(f"{name}_expand_conv", f"{name}_bn0", shape))
    shape = wide, 1, stage.kernel, stage.kernel
    names = f"{name}_depthwise_conv", f"{name}_bn1"
    layers.append(reader.convolution(*names, shape, stride=stride, groups=wide))
    names = f"{name}_project_conv", f"{name}_bn2"
    layers.append(reader.convolution(*names, (stage.outputs, wide, 1, 1), clipped=False))
    return Block(tuple(layers), residual=stride == 1 and inputs == stage.outputs)


class _Reader:
    """Takes weights by name, each once."""

    def __init__(self, weights: dict[str, Float32]) -> None:
        self._left = weights

    def width(self, name: str) -> int:
        """The first extent of a weight."""
        array = self._left.get(name)
        return 0 if array is None or not array.ndim else array.shape[0]

    def take(self, name: str, shape: tuple[int, ...]) -> Float32:
        """The weight ``name`` of the given shape. Raises CheckpointError."""
        array = self._left.pop(name, None)
        if array is None:
            raise CheckpointError(f"the checkpoint has no {name}: it is of another network")
        if array.shape != shape:
            raise CheckpointError(
                f"{name} in the checkpoint has the shape {array.shape}, not {shape}: it is of "
                "another network"
            )
        return array

    def convolution(
        self,
        name: str,
        norm: str,
        shape: tuple[int, int, int, int],
        *,
        stride: int = 1,
        groups: int = 1,
        clipped: bool = True,
    ) -> Convolution:
        """A convolution with the batch normalisation behind it folded in."""
        parts = ("weight", "bias", "running_mean", "running_var")
        gamma, beta, mean, variance = (self.take(f"{norm}.{part}", shape[:1]) for part in parts)
        weight = self.take(f"{name}.weight", shape)
        terms = gamma, beta, mean, variance, _EPS
        folded, bias = nnpack.fold_batch_norm(weight, None, *terms)
        label = name.removeprefix("_").replace("._", ".")
        return Convolution(label, folded, bias, stride, groups, clipped)

    def check_empty(self) -> None:
        """Raise CheckpointError when anything is left."""
        if self._left:
            raise CheckpointError(
                f"the checkpoint has {len(self._left)} weights too many, {next(iter(self._left))} "
                "among them: it is of another network"
            )
