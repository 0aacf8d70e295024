"""Bars of effective GFLOP/s by layer, written as PNG."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Any

from nnpack.cli.bench.report import threads_text
from nnpack.cli.bench.results import LayerResult, Measurement, Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# What is shown as one bar each: the fastest of a family that is exact, else of all of it.
FAMILIES = {
    "nnpack": ("nnpack",),
    "torch": ("torch", "torch-cl", "onednn", "onednn-cl"),
    "onnxruntime": ("onnxruntime",),
    "openvino": ("openvino",),
    "ncnn": ("ncnn",),
    "mnn": ("mnn",),
}
# Okabe & Ito's colours, told apart by everybody; ours is the one that stands out.
COLOURS = ("#D55E00", "#56B4E9", "#0072B2", "#009E73", "#F0E442", "#999999")
LAYERS_A_ROW = 10
ROW_INCHES = 2.6


def save_plot(report: Report, path: pathlib.Path) -> None:
    """Write the bars of ``report`` to ``path``. Needs matplotlib and no display."""
    from matplotlib.figure import Figure

    rows = panels(report)
    figure = Figure(figsize=(14, 1 + ROW_INCHES * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), 1, squeeze=False)[:, 0]
    families = present_families(report)
    for axis, (title, results) in zip(axes, rows, strict=True):
        axis.set_title(title, loc="left", fontsize=10)
        _draw_row(axis, results, families)
    figure.suptitle(
        f"effective GFLOP/s on {report.machine.get('processor', 'this machine')}, "
        f"batch {report.batch}, {threads_text(report.threads)} (hatched: error above 1e-4)"
    )
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    figure.savefig(path, format="png", dpi=110)


def panels(report: Report) -> list[tuple[str, list[LayerResult]]]:
    """The results by what is drawn to one scale, at most ten a panel."""
    found = []
    for title in dict.fromkeys(_title(result) for result in report.results):
        results = [result for result in report.results if _title(result) == title]
        for start in range(0, len(results), LAYERS_A_ROW):
            found.append((title, results[start : start + LAYERS_A_ROW]))
    return found


def _title(result: LayerResult) -> str:
    """Kinds of few layers share a panel."""
    if result.layer.is_depthwise:
        return "depthwise"
    kind = result.layer.kind
    return kind if kind in ("first", "3x3", "1x1") else "5x5 and strided"


def present_families(report: Report) -> list[str]:
    """The families with a contestant that was timed."""
    timed = {m.contestant for r in report.results for m in r.measurements if m.samples}
    return [family for family, members in FAMILIES.items() if timed.intersection(members)]


def fastest(result: LayerResult, family: str) -> Measurement | None:
    """The fastest member of ``family``; inexact ones only where none is exact."""
    found = [m for name in FAMILIES[family] if (m := result.find(name)) and m.samples]
    return min(found, key=lambda m: (not m.is_exact, m.seconds or 0.0), default=None)


def _draw_row(axis: Axes, results: list[LayerResult], families: list[str]) -> None:
    width = 0.85 / len(families)
    for j, family in enumerate(families):
        bars: Any = axis.bar(
            [i + (j - (len(families) - 1) / 2) * width for i in range(len(results))],
            [_height(result, family) for result in results],
            width,
            label=family,
            color=COLOURS[list(FAMILIES).index(family)],
        )
        for bar, result in zip(bars, results, strict=True):
            measurement = fastest(result, family)
            if measurement and not measurement.is_exact:
                bar.set(hatch="///", edgecolor="white")
    axis.set_xticks(range(len(results)), [_label(result) for result in results], fontsize=8)
    axis.set_xlim(-0.6, max(len(results), LAYERS_A_ROW // 2) - 0.4)
    axis.set_ylabel("GFLOP/s")
    axis.spines[["top", "right"]].set_visible(False)


def _height(result: LayerResult, family: str) -> float:
    measurement = fastest(result, family)
    return (result.gflops(measurement.contestant) or 0.0) if measurement else 0.0


def _label(result: LayerResult) -> str:
    name = result.layer.name.removeprefix("depthwise ")
    head, _, image = name.rpartition(" ")
    prefix = "depthwise " if result.layer.is_depthwise else ""
    return f"{prefix}{head}\n{image} {result.layer.network}"
