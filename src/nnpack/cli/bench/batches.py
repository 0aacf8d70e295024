"""``nnpack bench --batches``: the time an image takes, by the batch it comes in."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table

import nnpack
from nnpack.cli.bench.contestant import random_operands
from nnpack.cli.bench.layers import Layer
from nnpack.cli.bench.networks import CLASSICS
from nnpack.cli.bench.ours import layer_options
from nnpack.cli.bench.plot import COLOURS
from nnpack.cli.bench.progress import progress_bar
from nnpack.cli.bench.report import milliseconds, threads_text
from nnpack.cli.bench.timing import Clock, Schedule, run_rounds

BATCHES = (1, 2, 4, 16, 64, 256)
TYPICAL = (
    "3x3 64->64 @56",
    "3x3 256->256 @14",
    "3x3 512->512 @7",
    "3x3/2 128->128 @56",
    "1x1 256->64 @56",
    "1x1 512->2048 @7",
    "depthwise 3x3 512 @14",
    "5x5 64->192 @27",
    "7x7/2 3->64 @224",
)
TYPICAL_LAYERS = tuple(next(layer for layer in CLASSICS if layer.name == name) for name in TYPICAL)
CLIFF = 1.1


@dataclass(frozen=True, slots=True)
class BatchResult:
    """Median seconds an image by batch."""

    layer: Layer
    seconds: dict[int, float]

    @property
    def growth(self) -> float:
        """The most that an image takes longer in a larger batch than in a smaller one: a ratio."""
        times = list(self.seconds.values())
        pairs = [(small, large) for n, small in enumerate(times) for large in times[n + 1 :]]
        return max((large / small for small, large in pairs), default=1.0)


def compare_batches(
    console: Console,
    layers: Sequence[Layer],
    threads: int,
    schedule: Schedule,
    plot_file: pathlib.Path | None = None,
) -> tuple[BatchResult, ...]:
    """Measure, show, draw."""
    results = []
    with progress_bar(console, layers) as (advancing, show):
        for layer in advancing:
            show(layer.name)
            results.append(measure_batches(layer, threads, schedule))
    console.print(_table(results, threads))
    if plot_file:
        save_batch_plot(results, threads, plot_file)
        console.print(f"wrote {plot_file}", markup=False)
    return tuple(results)


def measure_batches(
    layer: Layer,
    threads: int,
    schedule: Schedule,
    batches: Sequence[int] = BATCHES,
    clock: Clock | None = None,
) -> BatchResult:
    """The same images, as many as the largest batch has, in batches of each size.

    So all find as much in the caches: what the image before has left there.
    """
    images = max(batches)
    operands = random_operands(layer, images)
    prepared = nnpack.Conv2d(operands.weight, operands.bias, **layer_options(layer, threads))
    y = np.empty(layer.output_shape(images), np.float32)

    def passing(batch: int) -> Callable[[], None]:
        starts = range(0, images, batch)
        parts = [(operands.x[n : n + batch], y[n : n + batch]) for n in starts]

        def run() -> None:
            for x, out in parts:
                prepared(x, out=out)

        return run

    runs = {str(batch): passing(batch) for batch in batches}
    samples = run_rounds(runs, schedule, clock=clock).samples
    seconds = {batch: float(np.median(samples[str(batch)])) / images for batch in batches}
    return BatchResult(layer, seconds)


def _table(results: Sequence[BatchResult], threads: int) -> Table:
    table = Table(title=f"milliseconds an image by batch, {threads_text(threads)}")
    table.add_column("layer")
    batches = list(results[0].seconds) if results else []
    for name in (*map(str, batches), "growth"):
        table.add_column(name, justify="right")
    for result in results:
        cells = [milliseconds(result.seconds[batch]) for batch in batches]
        style = "" if result.growth <= CLIFF else "yellow"
        table.add_row(result.layer.name, *cells, f"{result.growth:.2f}", style=style)
    return table


def save_batch_plot(results: Sequence[BatchResult], threads: int, path: pathlib.Path) -> None:
    """A line a layer: the time an image takes, relative to batch 1."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), layout="constrained")
    axis = figure.subplots()
    for n, result in enumerate(results):
        relative = [seconds / result.seconds[1] for seconds in result.seconds.values()]
        colour = COLOURS[n % len(COLOURS)]
        style = "-" if n < len(COLOURS) else "--"
        axis.plot(
            list(result.seconds), relative, style, marker="o", color=colour, label=result.layer.name
        )
    axis.axhline(CLIFF, color="black", linewidth=0.8, linestyle=":")
    axis.set_xscale("log", base=2)
    axis.set_xticks(BATCHES, [str(batch) for batch in BATCHES])
    axis.set(xlabel="batch", ylabel="time an image, batch 1 = 1")
    axis.set_ylim(0, 1.05 * max(CLIFF, *(max(r.seconds.values()) / r.seconds[1] for r in results)))
    axis.set_title(threads_text(threads), fontsize=10)
    axis.legend(fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, format="png", dpi=110)
