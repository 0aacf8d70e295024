"""The options of ``nnpack bench``, as types that typer reads."""

from __future__ import annotations

import pathlib
from typing import Annotated

import typer

from nnpack.cli.bench.peers import PEERS

_LAYERS, _WHAT, _FILES = "Layers", "Instead of comparing", "Files"

Batch = Annotated[int, typer.Option(min=1, help="Images in a batch.")]
Threads = Annotated[
    int | None, typer.Option(min=1, help="Threads for everybody; all cores by default.")
]
Peers = Annotated[
    str | None, typer.Option(help=f"Peers, or 'none': {','.join(peer.name for peer in PEERS)}.")
]
Seconds = Annotated[float, typer.Option(min=0.0, help="Time to spend on a layer, at most.")]
Rounds = Annotated[int | None, typer.Option(min=1, help="Rounds a layer, instead of a time.")]

All = Annotated[
    bool,
    typer.Option(
        "--all",
        help="Every layer of seven networks, and kinds they lack; each until its medians stand.",
        rich_help_panel=_LAYERS,
    ),
]
Pattern = Annotated[
    str | None,
    typer.Option(
        "--filter",
        help="Regular expression to find in a layer's name or kind: '^3x3$', '@56'.",
        rich_help_panel=_LAYERS,
    ),
]
Network = Annotated[
    list[str] | None,
    typer.Option(
        help="Part of a network's name: vgg, googlenet, deeplab.", rich_help_panel=_LAYERS
    ),
]
Kind = Annotated[
    list[str] | None,
    typer.Option(help="A kind of layer: 3x3, 1x1/2, depthwise.", rich_help_panel=_LAYERS),
]
Random = Annotated[
    int,
    typer.Option(
        min=0, help="With --choice: as many random problems instead.", rich_help_panel=_LAYERS
    ),
]
Seed = Annotated[int, typer.Option(help="Of --random.", rich_help_panel=_LAYERS)]

ChoiceFlag = Annotated[
    bool,
    typer.Option(
        "--choice",
        help="Measure all algorithms of each layer: is the predicted choice the fastest?",
        rich_help_panel=_WHAT,
    ),
]
BatchesFlag = Annotated[
    bool,
    typer.Option(
        "--batches", help="Time an image of typical layers by batch.", rich_help_panel=_WHAT
    ),
]
RooflineFlag = Annotated[
    bool,
    typer.Option(
        "--roofline",
        help="Phases of large layers against what this machine can do.",
        rich_help_panel=_WHAT,
    ),
]

JsonFile = Annotated[
    pathlib.Path | None,
    typer.Option(
        "--json", help="Write everything measured here, layer by layer.", rich_help_panel=_FILES
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume", help="Keep what the --json file has; measure the rest.", rich_help_panel=_FILES
    ),
]
PlotFile = Annotated[
    pathlib.Path | None,
    typer.Option("--plot", help="Write a plot here, as PNG.", rich_help_panel=_FILES),
]
