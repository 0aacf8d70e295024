"""Bars of effective GFLOP/s by layer, or of many layers ratios by kind, written as PNG."""

from __future__ import annotations

import math
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
# More layers than this are shown by kind.
MOST_LAYERS = 80


def save_plot(report: Report, path: pathlib.Path) -> None:
    """Write the bars of ``report`` to ``path``. Needs matplotlib and no display."""
    from matplotlib.figure import Figure

    if len(report.results) > MOST_LAYERS:
        _save_kinds(report, path)
        return
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


def _save_kinds(report: Report, path: pathlib.Path) -> None:
    """How many times as fast as each family we are, in geometric mean over each kind of layer."""
    from matplotlib.figure import Figure

    kinds = list(dict.fromkeys(result.layer.kind for result in report.results))
    figure = Figure(figsize=(13, 4.5), layout="constrained")
    axis = figure.subplots()
    families = [family for family in present_families(report) if family != "nnpack"]
    width = 0.85 / len(families)
    for j, family in enumerate(families):
        axis.bar(
            [i + (j - (len(families) - 1) / 2) * width for i in range(len(kinds))],
            [times_as_fast(report, kind, family) for kind in kinds],
            width,
            label=family,
            color=COLOURS[list(FAMILIES).index(family)],
        )
    axis.axhline(1, color=COLOURS[0], linewidth=2, label="nnpack")
    counts = [sum(result.layer.kind == kind for result in report.results) for kind in kinds]
    labels = [f"{kind}\n{count} layers" for kind, count in zip(kinds, counts, strict=True)]
    axis.set_xticks(range(len(kinds)), labels, fontsize=9)
    axis.set_ylabel("time of the peer / time of nnpack")
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_title(
        f"{len(report.results)} layers on {report.machine.get('processor', 'this machine')}, "
        f"batch {report.batch}, {threads_text(report.threads)}: geometric means by kind"
    )
    axis.legend(ncols=len(families) + 1, fontsize=9)
    figure.savefig(path, format="png", dpi=110)


def times_as_fast(report: Report, kind: str, family: str) -> float:
    """The geometric mean of the times of ``family`` over ours, where it is exact; 0 if nowhere."""
    logarithms = []
    for result in report.results:
        ours, theirs = fastest(result, "nnpack"), fastest(result, family)
        if result.layer.kind == kind and ours and theirs and theirs.is_exact:
            logarithms.append(math.log((theirs.seconds or 1.0) / (ours.seconds or 1.0)))
    return math.exp(sum(logarithms) / len(logarithms)) if logarithms else 0.0


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
