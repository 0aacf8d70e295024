"""Convolution gradients against PyTorch: milliseconds and ratios, layer by layer.

    python benchmarks/gradients.py --batch 16 --threads 1 --rounds 5 --only "3x3 "

PyTorch computes the same gradient with contiguous and with channels-last tensors
(``aten.convolution_backward``), and the faster of the two counts. All contestants take turns in
every round, and the median of the rounds is shown. ``--random N --seed S`` takes N layers of any
channels, sizes, kernels, strides, dilations and groups instead of the table's, and names the worst.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import nnpack


@dataclass(frozen=True)
class Layer:
    """A convolution of square images and kernels; ``kind`` is what the summary groups by."""

    kind: str
    channels: int
    outputs: int
    size: int
    kernel: int
    stride: int = 1
    dilation: int = 1
    groups: int = 1

    @property
    def padding(self) -> int:
        """Half of the kernel."""
        return self.kernel // 2 * self.dilation

    def __str__(self) -> str:
        extras = (("/", self.stride), (" d", self.dilation), (" g", self.groups))
        suffix = "".join(f"{mark}{value}" for mark, value in extras if value > 1)
        return f"{self.kernel}x{self.kernel}{suffix} {self.channels}->{self.outputs} @{self.size}"


LAYERS = (
    Layer("3x3", 64, 64, 112, 3),
    Layer("3x3", 64, 128, 112, 3),
    Layer("3x3", 64, 64, 56, 3),
    Layer("3x3", 256, 256, 56, 3),
    Layer("3x3", 128, 128, 28, 3),
    Layer("3x3", 512, 512, 28, 3),
    Layer("3x3", 256, 256, 14, 3),
    Layer("3x3", 512, 512, 14, 3),
    Layer("3x3", 512, 512, 7, 3),
    Layer("5x5", 64, 192, 27, 5),
    Layer("5x5", 32, 64, 28, 5),
    Layer("7x7", 64, 64, 56, 7),
    Layer("7x7", 128, 128, 28, 7),
    Layer("7x7", 128, 128, 14, 7),
    Layer("9x9", 32, 32, 56, 9),
    Layer("strided", 3, 64, 224, 7, 2),
    Layer("strided", 64, 128, 56, 3, 2),
    Layer("strided", 128, 256, 28, 3, 2),
    Layer("strided", 256, 512, 56, 1, 2),
    Layer("first", 3, 64, 112, 3),
    Layer("1x1", 256, 64, 56, 1),
    Layer("1x1", 64, 256, 56, 1),
    Layer("1x1", 256, 1024, 14, 1),
    Layer("1x1", 512, 512, 14, 1),
    Layer("1x1", 512, 2048, 7, 1),
    Layer("dilated", 128, 128, 28, 3, dilation=2),
    Layer("grouped", 128, 128, 28, 3, groups=4),
    Layer("grouped", 128, 128, 56, 3, groups=32),
    Layer("depthwise", 32, 32, 112, 3, groups=32),
    Layer("depthwise", 128, 128, 56, 3, 2, groups=128),
    Layer("depthwise", 512, 512, 14, 3, groups=512),
    Layer("depthwise", 144, 144, 28, 5, groups=144),
)

# A random layer has between these multiply-adds an image, so that none is all overhead or takes all
# the time.
RANDOM_WORK = (1 << 18, 1 << 26)


def random_layers(count: int, seed: int) -> list[Layer]:
    """Layers of every kind, as a network's channels and sizes and between them."""
    rng = random.Random(seed)
    layers: list[Layer] = []
    while len(layers) < count:
        kernel = rng.choice((1, 1, 2, 3, 3, 3, 4, 5, 7))
        stride = rng.choice((1, 1, 1, 2, 2, 3))
        dilation = rng.choice((1, 1, 1, 1, 2, 3)) if kernel > 1 and stride == 1 else 1
        groups = rng.choice((1, 1, 1, 1, 1, 2, 4, 8))
        channels, outputs = (groups * round(2 ** rng.uniform(1.5, 9) / groups) for _ in range(2))
        if channels == 0 or outputs == 0:
            continue
        size = round(2 ** rng.uniform(2.8, 7.2))
        work = channels * outputs * (kernel * size // stride) ** 2 // groups
        if RANDOM_WORK[0] <= work <= RANDOM_WORK[1] and size >= dilation * kernel:
            layers.append(
                Layer("random", channels, outputs, size, kernel, stride, dilation, groups)
            )
    return layers


Run = Callable[[], object]


def contestants(layer: Layer, direction: str, batch: int, threads: int) -> dict[str, Run]:
    """Every way to compute one gradient of ``layer``, on the same numbers."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, layer.channels, layer.size, layer.size), dtype=np.float32)
    shape = (layer.outputs, layer.channels // layer.groups, layer.kernel, layer.kernel)
    weight = rng.standard_normal(shape, dtype=np.float32)
    words: dict[str, Any] = {
        "stride": layer.stride,
        "padding": layer.padding,
        "dilation": layer.dilation,
        "groups": layer.groups,
    }
    y_size = layer.size + 2 * layer.padding - layer.dilation * (layer.kernel - 1) - 1
    y_size = y_size // layer.stride + 1
    grad = rng.standard_normal((batch, layer.outputs, y_size, y_size), dtype=np.float32)

    def ours() -> object:
        if direction == "input":
            return nnpack.conv2d_input_gradient(grad, weight, x.shape, **words, threads=threads)
        return nnpack.conv2d_weight_gradient(x, grad, shape, **words, threads=threads)

    runs: dict[str, Run] = {"nnpack": ours}
    formats = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
    for name, memory_format in formats.items():
        tensors = [torch.from_numpy(a).contiguous(memory_format=memory_format) for a in (grad, x)]
        kernel = torch.from_numpy(weight).contiguous(memory_format=memory_format)
        runs[name] = _torch(layer, direction, tensors, kernel)
    return runs


def _torch(layer: Layer, direction: str, tensors: list[Any], kernel: Any) -> Run:
    mask = [direction == "input", direction == "weight", False]
    pairs = ([value] * 2 for value in (layer.stride, layer.padding, layer.dilation))
    arguments = (*pairs, False, [0, 0], layer.groups, mask)
    return lambda: torch.ops.aten.convolution_backward(*tensors, kernel, None, *arguments)


# OpenMP's threads spin for some milliseconds after a run, on the cores of whoever comes next.
REST = 0.02


def measure(runs: dict[str, Run], rounds: int, rest: float = 0.0) -> dict[str, float]:
    """The median seconds of each contestant, one run of each a round, each after a ``rest``."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(rounds):
        for name, run in runs.items():
            time.sleep(rest)
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def _geomean(values: Iterable[float]) -> float:
    return math.exp(statistics.fmean(math.log(value) for value in values))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--direction", choices=("input", "weight", "both"), default="both")
    parser.add_argument("--only", default="", help="layers whose kind and name contain this")
    parser.add_argument("--random", type=int, default=0, help="so many random layers instead")
    parser.add_argument("--seed", type=int, default=0, help="which random layers")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    ratios: dict[tuple[str, str], list[float]] = {}
    worst: list[tuple[float, str]] = []
    both = ("input", "weight")
    layers = random_layers(options.random, options.seed) if options.random else LAYERS
    for direction in both if options.direction == "both" else (options.direction,):
        for layer in layers:
            if options.only not in f"{layer.kind} {layer}":
                continue
            runs = contestants(layer, direction, options.batch, options.threads)
            times = measure(runs, options.rounds, REST if options.threads > 1 else 0.0)
            peer = min(times["contiguous"], times["channels_last"])
            ratios.setdefault((direction, layer.kind), []).append(peer / times["nnpack"])
            cells = "  ".join(f"{name} {1e3 * value:8.2f}" for name, value in times.items())
            print(f"{direction:6}  {layer!s:28}  {cells}  {peer / times['nnpack']:5.2f}x")
            worst.append((peer / times["nnpack"], f"{direction} {layer}"))
    for (direction, kind), values in ratios.items():
        print(
            f"{direction:6}  {kind:10}  geomean {_geomean(values):.2f}x  least {min(values):.2f}x"
        )
    for ratio, name in sorted(worst)[:5]:
        print(f"{name}: {ratio:.2f}x")


if __name__ == "__main__":
    main()
