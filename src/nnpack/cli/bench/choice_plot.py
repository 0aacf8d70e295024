"""Predictions against measurements, and what the choices cost, written as PNG."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nnpack.cli.bench.choice import ChoiceResult
from nnpack.cli.bench.plot import COLOURS
from nnpack.cli.bench.results import geometric_mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GOAL = 1.3  # what no layer of the well-known networks should cost more than


def save_choice_plot(results: Sequence[ChoiceResult], path: pathlib.Path) -> None:
    """Left: every candidate's time over its prediction. Right: the choices' cost, sorted."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_predictions(left, results)
    _draw_ratios(right, results)
    figure.savefig(path, format="png", dpi=110)


def _draw_predictions(axis: Axes, results: Sequence[ChoiceResult]) -> None:
    for title, colour, size, chosen in (
        ("other candidates", COLOURS[1], 6, False),
        ("chosen", COLOURS[0], 12, True),
    ):
        points = [
            (1e3 * result.predicted[name], 1e3 * seconds)
            for result in results
            for name, seconds in result.measured.items()
            if (name == result.chosen) is chosen
        ]
        predicted, measured = [p for p, _ in points], [m for _, m in points]
        axis.scatter(predicted, measured, s=size, c=colour, label=title, linewidths=0)
    ends = [1e3 * s for r in results for s in r.measured.values()]
    span = min(ends), max(ends)
    axis.plot(span, span, color="black", linewidth=0.8)
    axis.set(xscale="log", yscale="log", xlabel="predicted ms, one thread", ylabel="measured ms")
    axis.legend(loc="upper left")
    axis.spines[["top", "right"]].set_visible(False)


def _draw_ratios(axis: Axes, results: Sequence[ChoiceResult]) -> None:
    ratios = sorted(result.ratio for result in results)
    shares = [100 * (n + 1) / len(ratios) for n in range(len(ratios))]
    axis.step(shares, ratios, where="pre", color=COLOURS[0])
    axis.axhline(GOAL, color="black", linewidth=0.8, linestyle=":")
    axis.set(xlabel="% of layers", ylabel="time of the choice / time of the fastest")
    axis.set_title(f"geometric mean {geometric_mean(ratios) or 1.0:.3f}", fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)
