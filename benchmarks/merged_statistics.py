"""Mean and variance of each channel with the convolution, against the bare convolution.

Run as ``python benchmarks/merged_statistics.py [--threads 1] [--batch 1 16] [--rounds 15]``: layers
of VGG, ResNet and MobileNet in interleaved rounds; milliseconds, the least of all rounds. "pass" is
a pass over y that finds the same, by itself; "costs" is what ``statistics=True`` adds, in
hundredths of the bare convolution and of the pass.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

import nnpack
from nnpack.algorithms.channel_sums import Counts, Workspace, moment_stages
from nnpack.codegen.target import host_target
from nnpack.execution import Program
from nnpack.kernels.normalization import CombineMoments
from nnpack.plan import Slot
from nnpack.runtime.memory import address


class Layer(NamedTuple):
    """Channels in and out, extent of the image, of the kernel, stride and groups."""

    c: int
    k: int
    size: int
    kernel: int = 3
    stride: int = 1
    groups: int = 1

    def __str__(self) -> str:
        name = "depthwise " if self.groups > 1 else ""
        stride = f"/{self.stride}" if self.stride > 1 else ""
        return f"{name}{self.kernel}x{self.kernel}{stride} {self.c}->{self.k} @{self.size}"


LAYERS = (
    Layer(64, 64, 56),
    Layer(128, 128, 28),
    Layer(256, 256, 14),
    Layer(512, 512, 7),
    Layer(64, 128, 112),
    Layer(256, 64, 56, 1),
    Layer(64, 256, 56, 1),
    Layer(256, 1024, 14, 1),
    Layer(512, 2048, 7, 1),
    Layer(256, 512, 56, 1, 2),
    Layer(128, 128, 56, 3, 2),
    Layer(3, 64, 224, 7, 2),
    Layer(32, 32, 112, 3, 1, 32),
    Layer(512, 512, 14, 3, 1, 512),
)


def _contestants(
    layer: Layer, batch: int, options: argparse.Namespace
) -> dict[str, Callable[[], object]]:
    rng = np.random.default_rng(0)
    c, k, size, kernel, stride, groups = layer
    x = rng.standard_normal((batch, c, size, size), dtype=np.float32)
    weight = rng.standard_normal((k, c // groups, kernel, kernel), dtype=np.float32)
    words = {"stride": stride, "padding": kernel // 2, "groups": groups, "threads": options.threads}
    algorithm = nnpack.Conv2d(weight, **words).explain(x.shape).chosen
    bare = nnpack.Conv2d(weight, algorithm=algorithm, **words)
    merged = nnpack.Conv2d(weight, algorithm=algorithm, statistics=True, **words)
    explained = merged.explain(x.shape)
    detail = next(a.detail for a in explained.candidates if a.algorithm == explained.chosen)
    print(f"<!-- {layer}, batch {batch}: {algorithm}, {detail} -->")
    y = bare(x)
    moments = np.empty((2, k), np.float32)
    space = Workspace()
    stages = moment_stages(
        Counts(batch, k, y.shape[2] * y.shape[3]),
        host_target(),
        space,
        Slot("y"),
        CombineMoments(),
        {},
    )
    program = Program(stages, host_target(), options.threads, space.nbytes)
    places = {"y": address(y), "mean": address(moments[0]), "variance": address(moments[1])}

    def following() -> np.ndarray:
        program.run(places)
        return moments  # which the program writes: an address keeps nothing alive

    return {
        "bare": lambda: bare(x, out=y),
        "merged": lambda: merged(x, out=y),
        "pass": following,
    }


def _measure(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, np.ndarray]:
    """Milliseconds of every round; a round of a short contestant is several runs."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    start = time.perf_counter()
    runs["merged"]()
    repeats = max(1, int(0.004 / (time.perf_counter() - start + 1e-9)))
    for turn in range(rounds + 2):
        for name, run in runs.items():
            if name == "pass":
                runs["bare"]()  # which leaves y as the pass would find it
                count = 1
            else:
                run()
                count = repeats
            start = time.perf_counter()
            for _ in range(count):
                run()
            if turn >= 2:
                times[name].append(1e3 * (time.perf_counter() - start) / count)
    return {name: np.array(found) for name, found in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--layers", type=int, nargs="+", default=range(len(LAYERS)))
    options = parser.parse_args()
    print(f"| layer, {options.threads} thread(s), ms | batch | bare | with them | pass | costs |")
    print("|---|---|---|---|---|---|")
    for layer in (LAYERS[n] for n in options.layers):
        for batch in options.batch:
            times = _measure(_contestants(layer, batch, options), options.rounds)
            bare, merged, following = (float(np.min(t)) for t in times.values())
            share = merged / bare - 1
            costs = f"{100 * share:+.1f} %, {100 * share * bare / following:.0f} % of the pass"
            print(f"| {layer} | {batch} | {bare:.3f} | {merged:.3f} | {following:.3f} | {costs} |")


if __name__ == "__main__":
    main()
