"""A network of convolutions run by layers of this library, and timed layer by layer."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

import nnpack
from nnpack.cli.demo.efficientnet import Convolution, Float32, Network
from nnpack.cli.demo.tiles import Pixels

__all__ = ["Classifier", "LayerTime", "classifier_input"]

_MEAN, _SCALE = 127.0, 128.0


def classifier_input(pixels: Pixels) -> Float32:
    """(224, 224, 3) of 0..255 to (1, 3, 224, 224): ``(pixels - 127) / 128``."""
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1)[np.newaxis], np.float32)
    planes -= _MEAN
    planes /= _SCALE
    return planes


@dataclass(frozen=True, slots=True)
class LayerTime:
    """What one layer takes: its name, algorithm, output, seconds, and flops by direct summation."""

    name: str
    algorithm: str
    shape: tuple[int, ...]
    seconds: float
    flops: int


class Classifier:
    """``network`` as fused layers: (N, 3, H, W) float32 to (N, classes) probabilities."""

    def __init__(self, network: Network, threads: int | None = None) -> None:
        self.threads = threads or nnpack.get_num_threads()
        self._made: list[tuple[Convolution, nnpack.Conv2d]] = []
        residuals = {}
        for block in network.blocks:
            first = len(self._made)
            self._made += [(layer, _fused(layer, self.threads)) for layer in block.layers]
            if block.residual:
                residuals[len(self._made) - 1] = first
        layers = [layer for _, layer in self._made]
        self._convolutions = nnpack.Network(layers, residuals, threads=self.threads)
        self._last = nnpack.Linear(network.weight, network.bias, threads=self.threads)
        self._last_flops = 2 * network.weight[0].size

    def __call__(self, x: Float32) -> Float32:
        """The probabilities of all classes."""
        return self._head(self._convolutions(x), lambda _, run: run())

    def profile(self, x: Float32, rounds: int) -> list[LayerTime]:
        """Run ``rounds`` times and take the median of every layer."""
        found: dict[str, list[float]] = {}
        shapes: dict[str, tuple[int, ...]] = {}

        def timed(name: str, run: Callable[[], Float32]) -> Float32:
            start = time.perf_counter()
            y = run()
            found.setdefault(name, []).append(time.perf_counter() - start)
            shapes[name] = y.shape
            return y

        y = self._convolutions(x)
        seconds = self._convolutions.profile(x, rounds)
        for _ in range(rounds):
            self._head(y, timed)
        flops = {"fc": self._last_flops * math.prod(shapes["fc"])}
        return [
            *self._convolution_times(x, seconds),
            *(
                LayerTime(name, "-", shapes[name], median(each), flops.get(name, 0))
                for name, each in found.items()
            ),
        ]

    def _head(self, x: Float32, call: Callable[[str, Callable[[], Float32]], Float32]) -> Float32:
        """What follows the convolutions, each layer through ``call(name, run)``."""
        mean = call("mean", lambda: nnpack.global_avg_pool2d(x, threads=self.threads))
        logits = call("fc", lambda: self._last(mean[:, :, 0, 0]))
        return call("softmax", lambda: nnpack.softmax(logits, threads=self.threads))

    def _convolution_times(self, x: Float32, seconds: Sequence[float]) -> Iterator[LayerTime]:
        shape: tuple[int, ...] = x.shape
        for (convolution, layer), each in zip(self._made, seconds, strict=True):
            algorithm = layer.explain(shape).chosen
            weight = convolution.weight
            extents = (-(-extent // convolution.stride) for extent in shape[2:])
            shape = (len(x), len(weight), *extents)
            flops = 2 * weight[0].size * math.prod(shape)
            yield LayerTime(convolution.name, algorithm, shape, each, flops)


def _fused(layer: Convolution, threads: int | None) -> nnpack.Conv2d:
    return nnpack.Conv2d(
        layer.weight,
        layer.bias,
        stride=layer.stride,
        padding="same",
        groups=layer.groups,
        activation=nnpack.Clip(0.0, 6.0) if layer.clipped else None,
        threads=threads,
    )
