"""``nnpack bench`` itself: what its options ask for."""

from __future__ import annotations

from collections.abc import Sequence

import typer

import nnpack
from nnpack.cli.bench import options
from nnpack.cli.bench.comparison import Run, compare
from nnpack.cli.bench.layers import Layer
from nnpack.cli.bench.networks import ALL_LAYERS, LAYERS
from nnpack.cli.bench.ours import OURS, PACKED
from nnpack.cli.bench.peers import PEERS
from nnpack.cli.bench.progress import make_console
from nnpack.cli.bench.selection import check_files, choose_layers, choose_peers
from nnpack.cli.bench.session import Setting
from nnpack.cli.bench.timing import PAUSE_SECONDS, Schedule

# The standard error of a median at which --all goes on to the next layer.
PRECISION = 0.01


def bench(  # noqa: PLR0917, RUF100 - typer fills the arguments by name
    batch: options.Batch = 1,
    threads: options.Threads = None,
    every: options.All = False,
    pattern: options.Pattern = None,
    network: options.Network = None,
    kind: options.Kind = None,
    peers: options.Peers = None,
    seconds: options.Seconds = 2.0,
    rounds: options.Rounds = None,
    json_file: options.JsonFile = None,
    resume: options.Resume = False,
    plot_file: options.PlotFile = None,
) -> None:
    """Time single layers of well-known networks against every installed peer."""
    layers = select(every, pattern, network, kind)
    chosen = choose_peers(PEERS, peers)
    check_files(json_file, plot_file)
    threads = threads or nnpack.get_num_threads()
    # On one thread nobody spins, so nobody has to be waited for.
    pause = PAUSE_SECONDS if threads > 1 else 0.0
    schedule = Schedule(seconds, rounds, pause, PRECISION if every else None)
    ours = (PACKED,) if every else OURS
    run = Run(layers, ours, chosen, Setting(batch, threads, schedule), json_file, plot_file, resume)
    status = compare(make_console(), run)
    if status:
        raise typer.Exit(status)


def select(
    every: bool, pattern: str | None, networks: Sequence[str] | None, kinds: Sequence[str] | None
) -> tuple[Layer, ...]:
    """The layers that the options ask for: of the quick list, unless one asks for more."""
    return choose_layers(
        ALL_LAYERS if every or networks or kinds else LAYERS, pattern, networks, kinds
    )
