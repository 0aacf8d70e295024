"""Convolution, bias, ReLU and 2x2 max pooling in one call, against the bare convolution.

Run as ``python benchmarks/fused_pooling.py [--threads 1] [--rounds 15]``: the pooled layers of VGG,
batch 1, in interleaved rounds; milliseconds, the first quartile of the rounds. Comments name what
the planner takes for either; "separate" is the convolution with bias and ReLU, then `max_pool2d`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

import nnpack

Run = Callable[[], object]

# Channels in and out, and the extent of the image.
LAYERS = ((64, 64, 224), (128, 128, 112), (256, 256, 56), (512, 512, 28), (512, 512, 14))


def _contestants(c: int, k: int, size: int, options: argparse.Namespace) -> dict[str, Run]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, c, size, size), dtype=np.float32)
    weight = rng.standard_normal((k, c, 3, 3), dtype=np.float32) / np.float32(3 * c**0.5)
    bias = rng.standard_normal(k, dtype=np.float32)
    words = {"padding": 1, "threads": options.threads, "algorithm": options.algorithm}
    bare = nnpack.Conv2d(weight, **words)
    activated = nnpack.Conv2d(weight, bias, activation=nnpack.Relu(), **words)
    words |= {"activation": nnpack.Relu(), "pool": nnpack.MaxPool(2)}
    fused = nnpack.Conv2d(weight, bias, **words)
    y = np.empty((1, k, size, size), np.float32)
    pooled = np.empty((1, k, size // 2, size // 2), np.float32)

    def separate() -> None:
        activated(x, out=y)
        nnpack.max_pool2d(y, 2, threads=options.threads, out=pooled)

    for layer in (bare, fused):
        chosen = layer.explain(x.shape)
        detail = next(a.detail for a in chosen.candidates if a.algorithm == chosen.chosen)
        print(f"<!-- {c}->{k} @{size}: {chosen.chosen}, {detail} -->")
    return {
        "bare": lambda: bare(x, out=y),
        "fused": lambda: fused(x, out=pooled),
        "separate": separate,
    }


def _measure(runs: dict[str, Run], rounds: int) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + 2):
        for name, run in runs.items():
            run()  # what the contestant before drove out of the caches comes back
            start = time.perf_counter()
            run()
            if turn >= 2:
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.quantiles(found, n=4)[0] for name, found in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--algorithm", default="auto")
    options = parser.parse_args()
    print(f"| layer, {options.threads} thread(s), ms | bare | fused | separate | fused / bare |")
    print("|---|---|---|---|---|")
    for c, k, size in LAYERS:
        found = _measure(_contestants(c, k, size, options), options.rounds)
        cells = " | ".join(f"{found[name]:.3f}" for name in ("bare", "fused", "separate"))
        print(f"| {c}->{k} @{size} | {cells} | {found['fused'] / found['bare']:.3f} |")


if __name__ == "__main__":
    main()
