"""A console that does not cut tables, and a bar that says how long it will take."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

PIPE_WIDTH = 240  # columns where no terminal tells how many it has

Item = TypeVar("Item")


def make_console() -> Console:
    """A console that does not cut tables where no terminal says how wide it is."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PIPE_WIDTH)


@contextmanager
def progress_bar(
    console: Console, items: Sequence[Item]
) -> Iterator[tuple[Iterable[Item], Callable[[str], None]]]:
    """A bar over ``items``: (the items, which advance it; a function that shows a step)."""
    columns = (
        TextColumn("{task.description:<46}"),
        BarColumn(20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        # Layers take very different times: the estimate looks back half an hour.
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, speed_estimate_period=1800
    ) as progress:
        task = progress.add_task("starting", total=len(items))

        def advance() -> Iterator[Item]:
            for item in items:
                yield item
                progress.advance(task)

        yield advance(), lambda step: progress.update(task, description=step)
