"""A library and peers that compute what they are told to, and a clock that nobody waits for."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from nnpack.cli.bench.contestant import Contestant, Operands, Prepared
from nnpack.cli.bench.layers import Layer
from nnpack.cli.bench.reference import convolve_image
from nnpack.cli.bench.results import LayerResult, Measurement, Report
from nnpack.cli.bench.timing import Clock

SMALL = Layer("TinyNet", 8, 6, 7, 3, padding=1)
STRIDED = Layer("TinyNet", 3, 6, 9, 5, stride=2, padding=2)
DEPTHWISE = Layer("OtherNet", 4, 4, 6, 3, stride=2, padding=1, groups=4)
OBLONG = Layer("OtherNet", 5, 3, 8, (1, 3), padding=(0, 2), dilation=2)
LAYERS = (SMALL, STRIDED, DEPTHWISE)


class FakeTime:
    """Seconds that pass only when told: in ``sleep`` and ``work``.

    For ``spin`` seconds after its work a thread computes that nobody waits for.
    """

    def __init__(self, spin: float = 0.0) -> None:
        self.seconds = 0.0
        self.naps: list[float] = []
        self.spin, self.spun, self.worked = spin, 0.0, -math.inf

    @property
    def clock(self) -> Clock:
        return Clock(lambda: self.seconds, self.sleep, lambda: self.spun)

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.spun += max(0.0, min(seconds, self.worked + self.spin - self.seconds))
        self.seconds += seconds

    def work(self, seconds: float) -> Callable[[], None]:
        def run() -> None:
            self.seconds += seconds
            self.worked = self.seconds

        return run


def convolve(layer: Layer, operands: Operands) -> Any:
    """The layer in float32, rounded from float64."""
    images = [convolve_image(layer, operands, image) for image in operands.x]
    return np.stack(images).astype(np.float32)


def fake_peer(name: str, error: float = 0.0, packages: tuple[str, ...] = ()) -> Contestant:
    """A peer whose every output is too large by ``error``."""

    def prepare(layer: Layer, operands: Operands, _threads: int) -> Prepared:
        y = convolve(layer, operands) * np.float32(1 + error)
        return Prepared(lambda: y, lambda output: output)

    return Contestant(name, packages, prepare)


def broken_peer(name: str) -> Contestant:
    """A peer that refuses every layer, at length."""

    def prepare(layer: Layer, operands: Operands, threads: int) -> Prepared:
        raise NotImplementedError(f"no {layer.kind} today\nregistered at: a page of nothing")

    return Contestant(name, (), prepare)


class FakeConv2d:
    """Stands in for ``nnpack.Conv2d``."""

    def __init__(self, weight: Any, bias: Any, **options: Any) -> None:
        self.weight, self.bias, self.options = weight, bias, options

    def __call__(self, x: Any, *, out: Any = None) -> Any:
        names = ("stride", "padding", "groups", "dilation")
        stride, padding, groups, dilation = (self.options[name] for name in names)
        outputs, depth, *kernel = self.weight.shape
        shape = (depth * groups, outputs, x.shape[2], tuple(kernel))
        layer = Layer("", *shape, stride, padding, groups, dilation)
        y = convolve(layer, Operands(x, self.weight, self.bias))
        if out is None:
            return y
        out[...] = y
        return out


def fake_conv2d(x: Any, weight: Any, bias: Any, **options: Any) -> Any:
    """Stands in for ``nnpack.conv2d``."""
    return FakeConv2d(weight, bias, **options)(x)


def timed(contestant: str, *seconds: float, error: float = 1e-6) -> Measurement:
    """A measurement as if ``contestant`` had taken ``seconds`` in its rounds."""
    return Measurement(contestant, contestant.startswith("nnpack"), seconds, error)


def report_of(*results: LayerResult, **changes: Any) -> Report:
    """A report on ``results``, by the contestants of the first of them."""
    names = tuple(m.contestant for m in results[0].measurements)
    make = partial(Report, machine={"processor": "Abacus"}, batch=1, threads=2, results=results)
    return make(**({"contestants": names, "unavailable": {}} | changes))
