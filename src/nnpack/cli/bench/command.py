"""``nnpack bench`` itself: options, live progress, tables, files."""

from __future__ import annotations

import importlib
import pathlib
import re
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import nnpack
from nnpack.cli.bench.contestant import Contestant
from nnpack.cli.bench.layers import LAYERS, Layer, select_layers
from nnpack.cli.bench.ours import OURS
from nnpack.cli.bench.peers import PEERS, peer_versions
from nnpack.cli.bench.report import failure_lines, layer_line, layer_table, summary_table
from nnpack.cli.bench.results import LayerResult, Report, to_json
from nnpack.cli.bench.session import Setting, measure_layer
from nnpack.cli.bench.timing import PAUSE_SECONDS, Schedule
from nnpack.cli.info import facts
from nnpack.codegen.target import host_target

PIPE_WIDTH = 200  # columns where no terminal tells how many it has
INTERRUPTED = 130


def bench(
    batch: Annotated[int, typer.Option(min=1, help="Images in a batch.")] = 1,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads for everybody; all cores by default.")
    ] = None,
    pattern: Annotated[
        str | None,
        typer.Option(
            "--filter", help="Regular expression to find in a layer's name or kind: '^3x3$', '@56'."
        ),
    ] = None,
    network: Annotated[
        list[str] | None,
        typer.Option(help="Part of a network's name: alexnet, overfeat, vgg, resnet, mobilenet."),
    ] = None,
    peers: Annotated[
        str | None,
        typer.Option(help=f"Peers, or 'none': {','.join(peer.name for peer in PEERS)}."),
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.0, help="Time to spend on a layer.")] = 2.0,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Rounds a layer, instead of a time.")
    ] = None,
    json_file: Annotated[
        pathlib.Path | None, typer.Option("--json", help="Write everything measured here.")
    ] = None,
    plot_file: Annotated[
        pathlib.Path | None, typer.Option("--plot", help="Write a bar plot here, as PNG.")
    ] = None,
) -> None:
    """Time single layers of well-known networks against every installed peer."""
    layers = choose_layers(pattern, network or [])
    present, absent = _split(_choose_peers(peers))
    _check_files(json_file, plot_file)
    threads = threads or nnpack.get_num_threads()
    # On one thread nobody spins, so nobody has to be waited for.
    schedule = Schedule(seconds, rounds, pause=PAUSE_SECONDS if threads > 1 else 0.0)
    console = make_console()
    contestants = (*OURS, *present)
    results, finished = _run(console, layers, contestants, Setting(batch, threads, schedule))
    report = Report(
        facts(host_target()) | peer_versions(present),
        batch,
        threads,
        tuple(contestant.name for contestant in contestants),
        absent,
        tuple(results),
    )
    _show(console, report)
    _write(console, report, json_file, plot_file)
    if not finished:
        raise typer.Exit(INTERRUPTED)
    if report.faults():
        raise typer.Exit(1)


def make_console() -> Console:
    """A console that does not cut tables where no terminal says how wide it is."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PIPE_WIDTH)


def choose_layers(pattern: str | None, networks: Sequence[str]) -> tuple[Layer, ...]:
    """The layers that ``--filter`` and ``--network`` ask for. Raises BadParameter for none."""
    try:
        layers = select_layers(LAYERS, pattern, networks)
    except re.error as error:
        raise typer.BadParameter(
            f"--filter {pattern!r} is no regular expression: {error}"
        ) from None
    if not layers:
        kinds = ", ".join(dict.fromkeys(layer.kind for layer in LAYERS))
        raise typer.BadParameter(f"no layer matches; kinds are {kinds}")
    return layers


def _choose_peers(names: str | None) -> tuple[Contestant, ...]:
    if names is None:
        return PEERS
    known = {peer.name: peer for peer in PEERS}
    wanted = [name for name in names.split(",") if name and name != "none"]
    for name in wanted:
        if name not in known:
            raise typer.BadParameter(f"no peer {name!r}; choose among {', '.join(known)}")
    return tuple(known[name] for name in dict.fromkeys(wanted))


def _split(peers: Sequence[Contestant]) -> tuple[list[Contestant], dict[str, str]]:
    """Those that can run here, and for the others the reason why not."""
    reasons = {peer.name: peer.why_unavailable() for peer in peers}
    absent = {name: reason for name, reason in reasons.items() if reason is not None}
    return [peer for peer in peers if peer.name not in absent], absent


def _check_files(json_file: pathlib.Path | None, plot_file: pathlib.Path | None) -> None:
    """What would fail after minutes of measuring fails now."""
    for path in (json_file, plot_file):
        if path and (path.is_dir() or not path.absolute().parent.is_dir()):
            raise typer.BadParameter(f"cannot write {path}: not a file in an existing folder")
    if plot_file:
        importlib.import_module("matplotlib")


def _run(
    console: Console, layers: Sequence[Layer], contestants: Sequence[Contestant], setting: Setting
) -> tuple[list[LayerResult], bool]:
    """The results, and whether they are complete: an interrupt keeps those so far."""
    results: list[LayerResult] = []
    columns = (
        TextColumn("{task.description:<46}"),
        BarColumn(20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("starting", total=len(layers))
        for layer in layers:

            def on_step(step: str, name: str = layer.name) -> None:
                progress.update(task, description=f"{name}: {step}")

            try:
                results.append(measure_layer(layer, contestants, setting, on_step))
            except KeyboardInterrupt:
                return results, False
            progress.advance(task)
            progress.console.print(layer_line(results[-1]))
    return results, True


def _show(console: Console, report: Report) -> None:
    if report.results:
        console.print(layer_table(report))
        console.print(summary_table(report))
    for line in failure_lines(report):
        console.print(line, style="dim", markup=False)
    for line in report.faults():
        console.print(f"WRONG  {line}", style="red", markup=False)


def _write(
    console: Console,
    report: Report,
    json_file: pathlib.Path | None,
    plot_file: pathlib.Path | None,
) -> None:
    if json_file:
        json_file.write_text(to_json(report) + "\n")
        console.print(f"wrote {json_file}", markup=False)
    if plot_file and report.results:
        from nnpack.cli.bench.plot import save_plot

        save_plot(report, plot_file)
        console.print(f"wrote {plot_file}", markup=False)
