"""What epilogues cost beside the bare convolution, and beside a pass of their own: a table.

Run as ``python benchmarks/epilogues.py [--threads 1] [--batch 1] [--rounds 15] [--only 1x1]``. A
layer of each kind, in interleaved rounds. Of every epilogue: how much longer the layer takes than
without it, in percent, and, in brackets, what share that is of the function in a pass of its own
over the layer's output, in place. Of the residual the second figure is in percent of the layer as
well: without the time of reading as much, which is measured. "mul-adds" counts those executed for
an output, by the algorithm chosen. Medians of the rounds' differences.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import nnpack
from nnpack.epilogue import Activation

Run = Callable[[], object]

# Channels in and out, image, kernel, stride, groups.
LAYERS = {
    "3x3 64 @56": (64, 64, 56, 3, 1, 1),
    "3x3 256 @28": (256, 256, 28, 3, 1, 1),
    "3x3 512 @14": (512, 512, 14, 3, 1, 1),
    "1x1 256->64 @56": (256, 64, 56, 1, 1, 1),
    "1x1 64->256 @56": (64, 256, 56, 1, 1, 1),
    "1x1 512 @14": (512, 512, 14, 1, 1, 1),
    "3x3/2 128 @56": (128, 128, 56, 3, 2, 1),
    "7x7/2 3->64 @224": (3, 64, 224, 7, 2, 1),
    "depthwise 3x3 128 @56": (128, 128, 56, 3, 1, 128),
}

ACTIVATIONS: dict[str, tuple[Activation, Callable[..., object]]] = {
    "bias, ReLU": (nnpack.Relu(), nnpack.relu),
    "Elu": (nnpack.Elu(), nnpack.elu),
    "Sigmoid": (nnpack.Sigmoid(), nnpack.sigmoid),
    "Tanh": (nnpack.Tanh(), nnpack.tanh),
    "Silu": (nnpack.Silu(), nnpack.silu),
    "Mish": (nnpack.Mish(), nnpack.mish),
    "Gelu": (nnpack.Gelu(), nnpack.gelu),
    "Gelu tanh": (nnpack.Gelu("tanh"), lambda x, **words: nnpack.gelu(x, "tanh", **words)),
}


class Contest:
    """One layer with every epilogue, and every epilogue as a pass of its own."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        c, k, size, kernel, stride, groups = LAYERS[name]
        rng = np.random.default_rng(0)
        self.x = rng.standard_normal((options.batch, c, size, size), dtype=np.float32)
        self.weight = rng.standard_normal((k, c // groups, kernel, kernel), dtype=np.float32)
        self.weight /= np.float32(math.sqrt(c // groups) * kernel)
        self.bias = rng.standard_normal(k, dtype=np.float32)
        self.kernel, self.stride, self.threads = kernel, stride, int(options.threads)
        self.words: dict[str, Any] = {
            "padding": kernel // 2,
            "stride": stride,
            "groups": groups,
            "threads": self.threads,
        }
        bare = nnpack.Conv2d(self.weight, **self.words)
        self.y = bare(self.x)
        self.explained = bare.explain(self.x.shape)
        self.bare: Run = lambda: bare(self.x, out=self.y)
        self.residual = rng.standard_normal(self.y.shape, dtype=np.float32)

    def fused(self, activation: Activation) -> Run:
        """The layer with bias and activation."""
        layer = nnpack.Conv2d(self.weight, self.bias, activation=activation, **self.words)
        return lambda: layer(self.x, out=self.y)

    def added(self) -> Run:
        """The layer with bias, residual and ReLU."""
        layer = nnpack.Conv2d(self.weight, self.bias, activation=nnpack.Relu(), **self.words)
        return lambda: layer(self.x, residual=self.residual, out=self.y)

    def separate(self, function: Callable[..., object]) -> Run:
        """A pass of its own, behind the bare layer."""
        return lambda: function(self.y, out=self.y, threads=self.threads)

    def read(self) -> Run:
        """A loop that reads the residual."""
        return lambda: nnpack.global_max_pool2d(self.residual, threads=self.threads)

    def multiply_adds(self) -> float:
        """Those executed for one output, tiles taken for whole."""
        channels, kernel, stride = self.weight.shape[1], self.kernel, self.stride
        name, _, number = self.explained.chosen.partition("_")
        if name == "winograd":
            m, taps = int(number), -(-kernel // stride)
            return float(channels * ((m + taps - 1) / m * stride) ** 2)
        if name == "fourier":
            # Half the frequencies of a real tile, a complex product being three real ones.
            return float(channels * 1.5 * (int(number) / (int(number) - kernel + 1)) ** 2)
        return float(channels * kernel**2)


def _seconds(run: Run, repeats: int) -> float:
    run()  # what others drove out of the caches comes back
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - start) / repeats


def _measure(contest: Contest, rounds: int) -> tuple[float, list[str]]:
    """Milliseconds of the bare layer, and the cells of the epilogues."""
    start = time.perf_counter()
    contest.bare()
    repeats = max(1, int(1e-3 / (time.perf_counter() - start)))
    fused = {name: contest.fused(activation) for name, (activation, _) in ACTIVATIONS.items()}
    fused["residual"] = contest.added()
    alone = {name: contest.separate(function) for name, (_, function) in ACTIVATIONS.items()}
    alone["residual"] = contest.read()
    bare, merged, passes = ({name: list[float]() for name in fused} for _ in range(3))
    for _ in range(rounds):
        for name, run in fused.items():
            bare[name].append(_seconds(contest.bare, repeats))
            merged[name].append(_seconds(run, repeats))
            contest.bare()
            passes[name].append(_seconds(alone[name], 1))
    whole = statistics.median(seconds for times in bare.values() for seconds in times)
    cells = []
    for name in fused:
        pairs = zip(merged[name], bare[name], strict=True)
        extra = statistics.median(with_it - without for with_it, without in pairs)
        alone_for = statistics.median(passes[name])
        second = f"{extra / alone_for:.2f}"
        if name == "residual":
            second = f"{100 * (extra - alone_for) / whole:.1f} %"
        cells.append(f"{100 * extra / whole:.1f} % ({second})")
    return whole * 1e3, cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="", help="layers whose names begin so")
    options = parser.parse_args()
    head = f"batch {options.batch}, {options.threads} thread(s)"
    names = " | ".join([*ACTIVATIONS, "residual, ReLU"])
    print(f"| {head} | algorithm | mul-adds | bare, ms | {names} |")
    print("|---" * (5 + len(ACTIVATIONS)) + "|")
    for name in LAYERS:
        if not name.startswith(options.only):
            continue
        contest = Contest(name, options)
        whole, cells = _measure(contest, options.rounds)
        count = contest.multiply_adds()
        columns = [name, contest.explained.chosen, f"{count:.0f}", f"{whole:.3f}", *cells]
        print(f"| {' | '.join(columns)} |", flush=True)


if __name__ == "__main__":
    main()
