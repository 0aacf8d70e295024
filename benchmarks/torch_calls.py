"""What a call of a converted layer costs beside the function that it calls, and PyTorch's layer.

    python benchmarks/torch_calls.py
    python benchmarks/torch_calls.py --size 56 --channels 64 --batch 16 --threads 2

Microseconds, least of 25 rounds in which all take turns: the function on arrays (weights packed at
each call), the converted layer without gradients and recording them, and PyTorch's recording them;
then forward and backward of both. Small images show what Python takes, large ones the kernels.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

import nnpack
from nnpack.integrations.torch.threads import release_openmp_threads

ROUNDS = 25


def least(calls: list[Callable[[], object]]) -> list[float]:
    """Microseconds of each, of rounds in which all take turns."""
    seconds: list[list[float]] = [[] for _ in calls]
    once = 0.0
    for call in calls:
        call()
        start = time.perf_counter()
        call()
        once = max(once, time.perf_counter() - start)
    times = max(1, min(50, int(2e-3 / once)))
    for _ in range(ROUNDS):
        for call, found in zip(calls, seconds, strict=True):
            release_openmp_threads()  # which would spin beside the next one
            call()
            start = time.perf_counter()
            for _ in range(times):
                call()
            found.append((time.perf_counter() - start) / times)
    return [1e6 * min(found) for found in seconds]


def step(layer: Any, x: Any, grad: Any) -> Callable[[], object]:
    """Forward and backward."""
    tensors = [x, *layer.parameters()]
    return lambda: torch.autograd.grad(layer(x), tensors, grad)


def row(layer: Any, function: Callable[[], object], x: Any) -> list[float]:
    """All columns of a layer; ``function`` computes the same of arrays."""
    converted, wanted = nnpack.torch.convert(layer), x.clone().requires_grad_()
    grad = torch.randn_like(layer(x))

    def silent() -> Any:
        with torch.no_grad():
            return converted(x)

    forward = [function, silent, lambda: converted(wanted), lambda: layer(wanted)]
    return least([*forward, step(converted, wanted, grad), step(layer, wanted, grad)])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    for name, default in (("batch", 1), ("channels", 8), ("size", 8), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    channels, threads = options.channels, options.threads
    x = torch.randn(options.batch, channels, options.size, options.size)
    array, plane = x.numpy(), x.flatten(1).shape[1]
    convolution, norm = nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels)
    linear = nn.Linear(plane, 16)
    held = [t.detach().numpy() for layer in (convolution, linear) for t in layer.parameters()]
    moments = [t.detach().numpy().copy() for t in (*norm.parameters(), *norm.buffers())][:4]
    words: Any = {"threads": threads}
    rows: dict[str, tuple[Any, Callable[[], object], Any]] = {
        "Conv2d 3x3": (
            convolution,
            lambda: nnpack.conv2d(array, *held[:2], padding=1, **words),
            x,
        ),
        "BatchNorm2d": (
            norm,
            lambda: nnpack.batch_norm(array, *moments, training=True, **words),
            x,
        ),
        "Linear": (
            linear,
            lambda: nnpack.linear(array.reshape(len(array), -1), *held[2:], **words),
            x.flatten(1),
        ),
        "MaxPool2d 2": (
            nn.MaxPool2d(2),
            lambda: nnpack.max_pool2d(array, 2, return_indices=True, **words),
            x,
        ),
        "AvgPool2d 2": (nn.AvgPool2d(2), lambda: nnpack.avg_pool2d(array, 2, **words), x),
    }
    table = Table(title="microseconds")
    table.add_column("layer", no_wrap=True)
    names = ("function", "converted", "recorded", "PyTorch", "and back", "PyTorch")
    for name in names:
        table.add_column(name, justify="right")
    for name, case in rows.items():
        table.add_row(name, *(f"{value:.1f}" for value in row(*case)))
    Console().print(table)


if __name__ == "__main__":
    main()
