"""A network of convolutions run by layers of this library, and timed layer by layer."""

from __future__ import annotations

import time
from collections.abc import Callable
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


@dataclass(frozen=True, slots=True)
class _Step:
    """One layer; ``begins``: its input is what a later step that is ``residual`` adds."""

    name: str
    layer: nnpack.Conv2d
    flops_per_output: int
    begins: bool
    residual: bool


class Classifier:
    """``network`` as fused layers: (N, 3, H, W) float32 to (N, classes) probabilities."""

    def __init__(self, network: Network, threads: int | None = None) -> None:
        self.threads = threads or nnpack.get_num_threads()
        self._steps = tuple(
            _Step(
                layer.name,
                _fused(layer, self.threads),
                2 * layer.weight[0].size,
                begins=layer is block.layers[0],
                residual=block.residual and layer is block.layers[-1],
            )
            for block in network.blocks
            for layer in block.layers
        )
        self._last = nnpack.Linear(network.weight, network.bias, threads=self.threads)
        self._last_flops = 2 * network.weight[0].size

    def __call__(self, x: Float32) -> Float32:
        """The probabilities of all classes."""
        return self._run(x, lambda _, run: run())

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

        for _ in range(rounds):
            self._run(x, timed)
        algorithms = self._algorithms(x)
        flops = {step.name: step.flops_per_output for step in self._steps}
        flops["fc"] = self._last_flops
        return [
            LayerTime(
                name,
                algorithms.get(name, "-"),
                shapes[name],
                median(seconds),
                flops.get(name, 0) * int(np.prod(shapes[name])),
            )
            for name, seconds in found.items()
        ]

    def _run(self, x: Float32, call: Callable[[str, Callable[[], Float32]], Float32]) -> Float32:
        """All layers, each through ``call(name, run)``."""
        block_input = x
        for step in self._steps:
            if step.begins:
                block_input = x
            x = call(step.name, lambda step=step, x=x, add=block_input: _apply(step, x, add))  # type: ignore[misc]
        x = call("mean", lambda: nnpack.global_avg_pool2d(x, threads=self.threads))
        logits = call("fc", lambda: self._last(x[:, :, 0, 0]))
        return call("softmax", lambda: nnpack.softmax(logits, threads=self.threads))

    def _algorithms(self, x: Float32) -> dict[str, str]:
        """The algorithm of every convolution."""
        chosen = {}
        shape: tuple[int, ...] = x.shape
        for step in self._steps:
            chosen[step.name] = str(step.layer.explain(shape).chosen)
            shape = step.layer(np.zeros(shape, np.float32)).shape
        return chosen


def _apply(step: _Step, x: Float32, add: Float32) -> Float32:
    y: Float32 = step.layer(x, residual=add) if step.residual else step.layer(x)
    return y


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
