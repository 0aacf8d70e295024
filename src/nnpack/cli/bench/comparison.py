"""``nnpack bench``: every layer against every peer, with what is seen meanwhile and kept after."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import typer
from rich.console import Console

from nnpack.cli.bench.contestant import Contestant
from nnpack.cli.bench.isolation import Isolated, Measurer
from nnpack.cli.bench.layers import Layer
from nnpack.cli.bench.peers import peer_versions
from nnpack.cli.bench.progress import progress_bar
from nnpack.cli.bench.report import (
    failure_lines,
    layer_line,
    layer_table,
    slow_lines,
    summary_table,
)
from nnpack.cli.bench.results import Report, from_json, merge, to_json
from nnpack.cli.bench.selection import split_available
from nnpack.cli.bench.session import Setting
from nnpack.cli.info import facts
from nnpack.codegen.target import host_target

INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Run:
    """What is to be measured, and where it goes."""

    layers: tuple[Layer, ...]
    ours: tuple[Contestant, ...]
    peers: tuple[Contestant, ...]
    setting: Setting
    json_file: pathlib.Path | None = None
    plot_file: pathlib.Path | None = None
    resume: bool = False


def make_measurer() -> Measurer:
    """What measures: a process of its own."""
    return Isolated()


def compare(console: Console, run: Run) -> int:
    """Measure, show and write; the exit status.

    Every finished layer is in the file at once. Raises BadParameter when the file that is to be
    completed is of another setting.
    """
    present, absent = split_available(run.peers)
    contestants = (*run.ours, *present)
    report = Report(
        facts(host_target()) | peer_versions(present),
        run.setting.batch,
        run.setting.threads,
        tuple(contestant.name for contestant in contestants),
        absent,
        (),
    )
    if run.resume and run.json_file and run.json_file.exists():
        report = _resumed(report, run.json_file)
    report, finished = _measure(console, run, report, contestants)
    _show(console, report)
    _write_files(console, run, report)
    if not finished:
        return INTERRUPTED
    return 1 if report.faults() else 0


def _resumed(report: Report, path: pathlib.Path) -> Report:
    try:
        return merge(report, from_json(path.read_text(encoding="utf-8")))
    except (ValueError, OSError) as error:
        raise typer.BadParameter(f"--resume: {path}: {error}") from None


def _measure(
    console: Console, run: Run, report: Report, contestants: Sequence[Contestant]
) -> tuple[Report, bool]:
    """The report, and whether it is complete: an interrupt keeps what there is."""
    done = {result.layer for result in report.results}
    layers = [layer for layer in run.layers if layer not in done]
    measurer = make_measurer()
    try:
        with progress_bar(console, layers) as (advancing, show):
            for layer in advancing:

                def on_step(step: str, _contestant: str, name: str = layer.name) -> None:
                    show(f"{name}: {step}")

                result = measurer.measure(layer, contestants, run.setting, on_step)
                report = replace(report, results=(*report.results, result))
                console.print(layer_line(result), markup=False)
                if run.json_file:
                    _write(run.json_file, to_json(report) + "\n")
    except KeyboardInterrupt:
        return report, False
    finally:
        measurer.close()
    return report, True


def _show(console: Console, report: Report) -> None:
    if report.results:
        console.print(layer_table(report))
        console.print(summary_table(report))
    for line in slow_lines(report):
        console.print(line, markup=False)
    for line in failure_lines(report):
        console.print(line, style="dim", markup=False)
    for line in report.faults():
        console.print(f"WRONG  {line}", style="red", markup=False)


def _write_files(console: Console, run: Run, report: Report) -> None:
    if run.json_file:
        _write(run.json_file, to_json(report) + "\n")
        console.print(f"wrote {run.json_file}", markup=False)
    if run.plot_file and report.results:
        from nnpack.cli.bench.plot import save_plot

        save_plot(report, run.plot_file)
        console.print(f"wrote {run.plot_file}", markup=False)


def _write(path: pathlib.Path, text: str) -> None:
    """Replace the file whole: who is interrupted keeps the former one."""
    new = path.with_name(f"{path.name}.{os.getpid()}")
    new.write_text(text, encoding="utf-8")
    new.replace(path)
