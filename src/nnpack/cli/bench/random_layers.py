"""Random layers of every kind, for a choice that must not fit a few networks only."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from itertools import islice

from nnpack.cli.bench.layers import Layer, Pair

CHANNELS, SIZES = (3, 1024), (5, 224)
BATCHES = (1, 1, 1, 2, 4, 8, 16)
# Large kernels and many channels stand here more often than they come out: what is too much work
# is drawn again.
SQUARES = (1, 1, 1, 2, 3, 3, 3, 3, 4, 5, 5, 5, 6, 7, 7, 7)
FAMILIES = (*["dense"] * 8, "first", "grouped", "depthwise")
# From what is over at once to a tenth of a second; and what fits a small machine.
LEAST_FLOPS, MOST_FLOPS = 2e5, 6e9
MOST_FLOATS = 5e7

Drawn = tuple[Layer, int]


def random_layers(count: int, seed: int) -> list[Drawn]:
    """``count`` layers, each with its batch; the same for the same ``seed``."""
    return list(islice(_layers(random.Random(seed)), count))


def _layers(rng: random.Random) -> Iterator[Drawn]:
    while True:
        batch, layer = rng.choice(BATCHES), _draw(rng)
        if min(layer.out_size) < 1:
            continue
        floats = math.prod(layer.input_shape(batch)) + math.prod(layer.output_shape(batch))
        if LEAST_FLOPS <= layer.flops(batch) <= MOST_FLOPS and floats <= MOST_FLOATS:
            yield layer, batch


def _draw(rng: random.Random) -> Layer:
    kernel = _draw_kernel(rng)
    stride = rng.choice((1, 1, 1, 1, 1, 2, 2, 3, 4))
    dilation = rng.choice((1, 1, 1, 1, 2, 3, 6)) if stride == 1 and max(kernel) > 1 else 1
    margins = rng.choice((0, 1, 1, 1))  # none, or what keeps the size
    padding = (margins * (kernel[0] // 2) * dilation, margins * (kernel[1] // 2) * dilation)
    inputs, outputs, groups = _draw_channels(rng)
    image = _log_uniform(rng, SIZES)
    return Layer("random", inputs, outputs, image, kernel, stride, padding, groups, dilation)


def _draw_kernel(rng: random.Random) -> Pair:
    if rng.random() < 0.12:
        taps = rng.choice((3, 5, 7))
        return rng.choice(((1, taps), (taps, 1)))
    taps = rng.choice(SQUARES)
    return taps, taps


def _draw_channels(rng: random.Random) -> tuple[int, int, int]:
    """Channels in and out, and groups."""
    inputs, outputs = (_log_uniform(rng, CHANNELS) for _ in range(2))
    match rng.choice(FAMILIES):
        case "first":
            return rng.choice((1, 3, 4)), outputs, 1
        case "grouped":
            groups = rng.choice((2, 4, 8, 32))
            inputs, outputs = (max(1, round(n / groups)) * groups for n in (inputs, outputs))
            return inputs, outputs, groups
        case "depthwise":
            return inputs, inputs, inputs
        case _:
            return inputs, outputs, 1


def _log_uniform(rng: random.Random, bounds: Pair) -> int:
    return round(math.exp(rng.uniform(*map(math.log, bounds))))
