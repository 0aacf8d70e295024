"""``nnpack bench --choice``: what the cost model chooses, against the fastest there is."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from rich.console import Console
from rich.table import Table

from nnpack.algorithms.base import VARIANT_MARK
from nnpack.cli.bench.contestant import random_operands
from nnpack.cli.bench.layers import Layer
from nnpack.cli.bench.ours import layer_problem
from nnpack.cli.bench.progress import progress_bar
from nnpack.cli.bench.report import milliseconds, threads_text
from nnpack.cli.bench.results import geometric_mean
from nnpack.codegen.target import host_target
from nnpack.planner import list_choices
from nnpack.tuning import measure_choices

SHOWN = 12
NOTABLE = 1.1


@dataclass(frozen=True, slots=True)
class ChoiceResult:
    """All algorithms on one layer: seconds predicted (for one thread) and measured, by name.

    ``measured`` lacks those that come to the plan of another. ``chosen`` is the model's choice.
    """

    layer: Layer
    batch: int
    chosen: str
    predicted: Mapping[str, float]
    measured: Mapping[str, float]

    @property
    def best(self) -> str:
        """The fastest."""
        return min(self.measured, key=lambda name: self.measured[name])

    @property
    def ratio(self) -> float:
        """The time of the choice to that of the fastest, 1 at best."""
        return self.measured[self.chosen] / self.measured[self.best]


def check_choices(
    console: Console,
    layers: Sequence[tuple[Layer, int]],
    threads: int,
    seconds: float,
    json_file: pathlib.Path | None = None,
    plot_file: pathlib.Path | None = None,
) -> tuple[ChoiceResult, ...]:
    """Measure ``layers``, each with its batch, for ``seconds`` each; show and write the outcome."""
    results: list[ChoiceResult] = []
    with progress_bar(console, layers) as (advancing, show):
        for layer, batch in advancing:
            show(f"{layer.name} x{batch}")
            results.append(measure_choice(layer, batch, threads, seconds))
            if results[-1].ratio > NOTABLE:
                console.print(choice_line(results[-1]), markup=False)
    _show(console, results, threads)
    if json_file:
        document = [asdict(r) | {"name": r.layer.name, "ratio": r.ratio} for r in results]
        json_file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        console.print(f"wrote {json_file}", markup=False)
    if plot_file:
        from nnpack.cli.bench.choice_plot import save_choice_plot

        save_choice_plot(results, plot_file)
        console.print(f"wrote {plot_file}", markup=False)
    return tuple(results)


def measure_choice(layer: Layer, batch: int, threads: int, seconds: float) -> ChoiceResult:
    """Every algorithm that can do ``layer``, but not their variants, on random data."""
    problem = layer_problem(layer, batch)
    target = host_target()
    choices = [c for c in list_choices(problem, "auto", target) if VARIANT_MARK not in c.name]
    operands = random_operands(layer, batch)
    y = np.empty(layer.output_shape(batch), np.float32)
    arrays = {"x": operands.x, "weight": operands.weight, "bias": operands.bias, "y": y}
    measured = measure_choices(problem, choices, target, threads, arrays, seconds=seconds)
    predicted = {choice.name: choice.seconds for choice in choices}
    result = ChoiceResult(layer, batch, choices[0].name, predicted, measured)
    if result.ratio <= NOTABLE:
        return result
    # One slow moment may have thrown the choice out: the two again, by themselves.
    pair = [choice for choice in choices if choice.name in (result.chosen, result.best)]
    again = measure_choices(problem, pair, target, threads, arrays, seconds=seconds)
    least = {name: min(measured[name], again[name]) for name in again}
    return replace(result, measured={**measured, **least})


def choice_line(result: ChoiceResult) -> str:
    """What was chosen, what would have been better, and by how much."""
    chosen, best = (milliseconds(result.measured[n]) for n in (result.chosen, result.best))
    return (
        f"{result.layer.name + f' x{result.batch}':<36}{result.chosen} {chosen} ms, "
        f"{result.best} {best} ms: {result.ratio:.2f}"
    )


def _show(console: Console, results: Sequence[ChoiceResult], threads: int) -> None:
    mean = geometric_mean(result.ratio for result in results) or 1.0
    table = Table(
        title=f"the choice against the fastest, {threads_text(threads)}: "
        f"{mean:.3f} in geometric mean over {len(results)} layers, "
        f"{max((r.ratio for r in results), default=1.0):.2f} at worst"
    )
    for name in ("layer", "batch", "chosen", "ms", "fastest", "its ms", "ratio"):
        table.add_column(
            name, justify="left" if name in ("layer", "chosen", "fastest") else "right"
        )
    for r in sorted(results, key=lambda result: -result.ratio)[:SHOWN]:
        times = [milliseconds(r.measured[name]) for name in (r.chosen, r.best)]
        row = r.layer.name, str(r.batch), r.chosen, times[0], r.best, times[1], f"{r.ratio:.2f}"
        table.add_row(*row)
    console.print(table)
