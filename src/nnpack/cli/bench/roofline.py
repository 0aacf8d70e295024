"""``nnpack bench --roofline``: the phases of large layers against what one core can do."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

import nnpack
from nnpack.cli.bench.contestant import random_operands
from nnpack.cli.bench.layers import Layer
from nnpack.cli.bench.networks import ALL_LAYERS
from nnpack.cli.bench.ours import layer_options, layer_problem
from nnpack.cli.bench.progress import progress_bar
from nnpack.cli.bench.report import milliseconds
from nnpack.codegen.target import Rates, Target, host_target
from nnpack.plan import Plan
from nnpack.planner import make_plan
from nnpack.problem import Problem
from nnpack.runtime.calibration import measure_rates

LARGE = (
    "3x3 64->128 @112",
    "3x3 128->256 @56",
    "3x3 256->256 @56",
    "3x3 512->512 @28",
    "3x3 512->512 @14",
    "3x3 1024->1024 @12",
    "5x5 64->64 @56",
    "5x5 256->256 @14",
    "7x7 64->64 @56",
    "7x7 128->128 @28",
    "3x3 d2 256->256 @28",
)
LARGE_LAYERS = tuple(next(x for x in ALL_LAYERS if x.name == name) for name in LARGE)
PROFILES = 15
MULTIPLICATION = "multiplication"
FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class Phase:
    """One phase of one layer: its time on one thread, flops and bytes read and written.

    Flops are those of the products alone, of tiles and channels that exist; transforms have none.
    """

    layer: Layer
    algorithm: str
    name: str
    seconds: float
    flops: float
    nbytes: float


def draw_roofline(
    console: Console, layers: Sequence[Layer], plot_file: pathlib.Path | None = None
) -> tuple[Phase, ...]:
    """Profile ``layers`` at batch 1 on one thread, measure the machine, show and draw."""
    phases: list[Phase] = []
    target = host_target()
    rates = measure_rates(target)
    with progress_bar(console, layers) as (advancing, show):
        for layer in advancing:
            show(layer.name)
            phases += measure_phases(layer, target)
    console.print(_table(phases, rates, target))
    if plot_file:
        from nnpack.cli.bench.roofline_plot import save_roofline

        save_roofline(phases, rates, peak_flops(rates, target), plot_file)
        console.print(f"wrote {plot_file}", markup=False)
    return tuple(phases)


def peak_flops(rates: Rates, target: Target) -> float:
    """Flops a second of one core that does nothing but multiply and add."""
    return 2 * target.lanes * rates.clock * rates.multiply_adds_per_cycle


def measure_phases(layer: Layer, target: Target, profiles: int = PROFILES) -> list[Phase]:
    """The phases of the fastest of ``profiles`` profiled runs."""
    operands = random_operands(layer, 1)
    prepared = nnpack.Conv2d(operands.weight, operands.bias, **layer_options(layer, 1))
    runs = [prepared.profile(operands.x) for _ in range(profiles)]
    fastest = min(runs, key=lambda run: run.seconds)
    problem = layer_problem(layer, 1)
    plan = make_plan(problem, "auto", target, 1)
    work = phase_work(problem, plan, target)
    return [
        Phase(layer, plan.algorithm, name, seconds, *work.get(name, (0.0, 0.0)))
        for name, seconds in fastest.phases.items()
    ]


def phase_work(problem: Problem, plan: Plan, target: Target) -> dict[str, tuple[float, float]]:
    """Flops and bytes of each phase; bytes as if every array were read and written once a block.

    Raises ValueError for strided problems, whose products skip parts of their depth.
    """
    if problem.stride != (1, 1):
        raise ValueError(f"no account of stride {problem.stride}")
    x, y, weight = (
        FLOAT_BYTES * math.prod(shape)
        for shape in (problem.x_shape, problem.y_shape, problem.weight_shape)
    )
    words = plan.stages[-1].arguments
    if "v_block" not in words:
        flops = 2 * math.prod(problem.y_shape) * math.prod(problem.weight_shape[1:])
        return {MULTIPLICATION: (flops, x + y + weight)}
    transformed, v, m, weights = _transform_work(problem, words, target)
    return {
        "input transform": (0.0, x + v),
        MULTIPLICATION: (transformed, v + m + weights),
        "output transform": (0.0, m + y),
    }


def _transform_work(
    problem: Problem, words: Mapping[str, object], target: Target
) -> Iterator[float]:
    """Flops of the products; bytes of V, of M, and of the weights that all blocks read.

    ``planes`` products of ``fold`` rows a tile and ``fold`` steps of depth a channel.
    """
    names = "v_block", "v_f", "channel_blocks", "tiles", "stage_tiles"
    v_block, v_f, channel_blocks, tiles, block_tiles = (int(str(words[name])) for name in names)
    channels, outputs = problem.group_in_channels, problem.group_out_channels
    planes, fold = v_block // v_f, channel_blocks // -(-channels // target.lanes)
    depth, rows = fold * channels, fold * tiles
    yield 2 * problem.groups * planes * rows * depth * outputs
    yield FLOAT_BYTES * problem.groups * planes * rows * depth
    yield FLOAT_BYTES * problem.groups * planes * rows * outputs
    yield FLOAT_BYTES * problem.groups * planes * depth * outputs * -(-tiles // block_tiles)


def _table(phases: Sequence[Phase], rates: Rates, target: Target) -> Table:
    peak = peak_flops(rates, target)
    table = Table(
        title=f"one core: {peak / 1e9:.0f} GFLOP/s of multiply-adds; copies at "
        f"{rates.l2_bandwidth / 1e9:.0f} GB/s (second level), {rates.l3_bandwidth / 1e9:.0f} "
        f"(last level), {rates.memory_bandwidth / 1e9:.0f} (memory)"
    )
    for name in ("layer", "algorithm", "phase"):
        table.add_column(name)
    for name in ("ms", "GFLOP/s", "% of peak", "GB/s"):
        table.add_column(name, justify="right")
    for phase in phases:
        speed = phase.flops / phase.seconds
        table.add_row(
            phase.layer.name,
            phase.algorithm,
            phase.name,
            milliseconds(phase.seconds),
            f"{speed / 1e9:.1f}" if phase.flops else "",
            f"{100 * speed / peak:.1f}" if phase.flops else "",
            f"{phase.nbytes / phase.seconds / 1e9:.1f}" if phase.nbytes else "",
        )
    return table
