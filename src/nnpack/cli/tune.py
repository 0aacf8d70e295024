"""``nnpack tune``: measure the choices of layers, or the rates of the machine, and keep them."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Sequence
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

import nnpack
from nnpack.cli.bench import command
from nnpack.cli.bench.layers import Layer
from nnpack.cli.bench.ours import layer_options
from nnpack.cli.bench.progress import make_console, progress_bar
from nnpack.cli.info import facts
from nnpack.codegen.rates import keep_rates
from nnpack.codegen.target import host_target
from nnpack.errors import ProblemError
from nnpack.explanation import Candidate, Explanation
from nnpack.runtime.calibration import measure_rates

File = pathlib.Path | None


def tune(  # noqa: PLR0917, RUF100 - typer fills the arguments by name
    batch: Annotated[int, typer.Option(min=1, help="Images in a batch.")] = 1,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads to tune for; all cores by default.")
    ] = None,
    pattern: Annotated[
        str | None,
        typer.Option("--filter", help="Regular expression to find in a layer's name or kind."),
    ] = None,
    network: Annotated[
        list[str] | None, typer.Option(help="Part of a network's name: resnet, mobilenet.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.0, help="Time to measure a layer.")] = 0.5,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Measure the machine instead of layers.")
    ] = False,
    forget: Annotated[
        bool, typer.Option("--forget", help="Forget everything measured so far.")
    ] = False,
    import_file: Annotated[
        File, typer.Option("--import", help="Keep what is in this file.")
    ] = None,
    export_file: Annotated[
        File, typer.Option("--export", help="Write everything known to this file.")
    ] = None,
) -> None:
    """Measure which algorithm is fastest on layers of well-known networks, and keep the outcome.

    With --calibrate, --forget, --import or --export nothing but that is done, in this order:
    forget, import, calibrate, export.
    """
    console = make_console()
    if not (calibrate or forget or import_file or export_file):
        layers = command.Wanted(False, pattern, network).quick()
        _tune(console, layers, batch, threads or nnpack.get_num_threads(), seconds)
        return
    if forget:
        nnpack.forget_wisdom()
        console.print("forgot everything measured")
    if import_file:
        console.print(f"kept {_import(import_file)} outcomes of {import_file}", markup=False)
    if calibrate:
        _calibrate(console)
    if export_file:
        _export(export_file)
        console.print(f"wrote {export_file}", markup=False)


def _tune(
    console: Console, layers: Sequence[Layer], batch: int, threads: int, seconds: float
) -> None:
    table = Table(title=f"batch {batch}, {threads} threads; predictions are for one thread")
    for name in ("layer", "fastest", "predicted ms", "measured ms", "predicted choice", "its ms"):
        table.add_column(name, justify="right" if name.endswith("ms") else "left")
    try:
        for layer, explanation in _tuned(console, layers, batch, threads, seconds):
            table.add_row(layer.name, *_cells(explanation))
    finally:  # an interrupt keeps what is measured, and shows it
        console.print(table)


def _tuned(
    console: Console, layers: Sequence[Layer], batch: int, threads: int, seconds: float
) -> Iterator[tuple[Layer, Explanation]]:
    rng = np.random.default_rng(0)
    with progress_bar(console, layers) as (advancing, show):
        for layer in advancing:
            show(layer.name)
            weight = rng.standard_normal(layer.weight_shape, np.float32)
            bias = rng.standard_normal(layer.out_channels, np.float32)
            tuned = nnpack.Conv2d(weight, bias, **layer_options(layer, threads))
            yield layer, tuned.tune(layer.input_shape(batch), seconds=seconds)


def _cells(explanation: Explanation) -> tuple[str, ...]:
    """What is fastest, its times, and what the model would have chosen."""
    usable = [c for c in explanation.candidates if c.refusal is None and c.seconds is not None]
    (chosen,) = (c for c in usable if c.algorithm == explanation.chosen)
    model = min((c for c in usable if "@" not in c.algorithm), key=_prediction)
    return (
        chosen.algorithm,
        f"{1e3 * _prediction(chosen):.3f}",
        _measurement(chosen),
        model.algorithm,
        _measurement(model),
    )


def _prediction(candidate: Candidate) -> float:
    return candidate.seconds or 0.0


def _measurement(candidate: Candidate) -> str:
    return "" if candidate.measured is None else f"{1e3 * candidate.measured:.3f}"


def _calibrate(console: Console) -> None:
    target = host_target()
    keep_rates(target, measure_rates(target))
    console.print(facts(host_target())["rates"], markup=False)


def _import(path: pathlib.Path) -> int:
    try:
        return nnpack.import_wisdom(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ProblemError(f"--import {path}: {error}") from None


def _export(path: pathlib.Path) -> None:
    try:
        path.write_text(nnpack.export_wisdom() + "\n", encoding="utf-8")
    except OSError as error:
        raise ProblemError(f"--export {path}: {error}") from None
