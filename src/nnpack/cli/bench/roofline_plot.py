"""The roofline of one core with the phases of large layers under it, written as PNG."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nnpack.cli.bench.plot import COLOURS
from nnpack.cli.bench.roofline import Phase
from nnpack.codegen.target import Rates

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def save_roofline(phases: Sequence[Phase], rates: Rates, peak: float, path: pathlib.Path) -> None:
    """Products: GFLOP/s over flops a byte (Williams et al., 2009). Transforms: GB/s."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    _draw_products(left, [p for p in phases if p.flops and p.nbytes], rates, peak)
    _draw_transforms(right, [p for p in phases if p.nbytes and not p.flops], rates)
    figure.savefig(path, format="png", dpi=110)


def _bandwidths(rates: Rates) -> dict[str, float]:
    return {
        "second-level cache": rates.l2_bandwidth,
        "last-level cache": rates.l3_bandwidth,
        "memory": rates.memory_bandwidth,
    }


def _draw_products(axis: Axes, phases: Sequence[Phase], rates: Rates, peak: float) -> None:
    ends = 0.5, 4 * max((p.flops / p.nbytes for p in phases), default=64.0)
    for name, bandwidth in _bandwidths(rates).items():
        knee = peak / bandwidth
        axis.plot(
            (ends[0], knee), (ends[0] * bandwidth / 1e9, peak / 1e9), color="0.6", linewidth=0.9
        )
        axis.annotate(
            name, (1.1 * ends[0], 1.2 * ends[0] * bandwidth / 1e9), color="0.4", fontsize=7
        )
    axis.axhline(peak / 1e9, color="black", linewidth=1)
    axis.axhline(0.92 * peak / 1e9, color="black", linewidth=0.6, linestyle=":")
    for n, phase in enumerate(phases):
        share = 100 * phase.flops / phase.seconds / peak
        axis.scatter(
            phase.flops / phase.nbytes,
            phase.flops / phase.seconds / 1e9,
            marker="os^"[n // len(COLOURS) % 3],
            color=COLOURS[n % len(COLOURS)],
            label=f"{phase.layer.name} {phase.algorithm}: {share:.0f} %",
            zorder=3,
        )
    axis.set(xscale="log", yscale="log", xlim=ends, ylim=(20, 1.3 * peak / 1e9))
    axis.set(xlabel="flops a byte (V, M and weights)", ylabel="GFLOP/s")
    axis.set_title("multiplication", fontsize=10)
    axis.legend(fontsize=7, loc="lower right")
    axis.spines[["top", "right"]].set_visible(False)


def _draw_transforms(axis: Axes, phases: Sequence[Phase], rates: Rates) -> None:
    names = list(dict.fromkeys(phase.layer.name for phase in phases))
    for colour, title in zip(COLOURS[1:], ("input transform", "output transform"), strict=False):
        found = [phase for phase in phases if phase.name == title]
        shift = -0.2 if title == "input transform" else 0.2
        axis.barh(
            [names.index(phase.layer.name) + shift for phase in found],
            [phase.nbytes / phase.seconds / 1e9 for phase in found],
            0.4,
            color=colour,
            label=title,
        )
    for name, bandwidth in _bandwidths(rates).items():
        axis.axvline(bandwidth / 1e9, color="0.6", linewidth=0.9)
        axis.annotate(
            name,
            (bandwidth / 1e9, 0.02),
            xycoords=("data", "axes fraction"),
            color="0.4",
            fontsize=7,
            rotation=90,
            ha="right",
        )
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.invert_yaxis()
    axis.set(xlabel="GB/s read and written")
    axis.set_title("transforms", fontsize=10)
    axis.legend(fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
