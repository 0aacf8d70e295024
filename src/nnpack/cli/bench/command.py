"""``nnpack bench`` itself: what its options ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import typer

import nnpack
from nnpack.cli.bench import options
from nnpack.cli.bench.batches import TYPICAL_LAYERS, compare_batches
from nnpack.cli.bench.choice import check_choices
from nnpack.cli.bench.comparison import Run, compare
from nnpack.cli.bench.layers import Layer
from nnpack.cli.bench.networks import ALL_LAYERS, LAYERS, NETWORKS
from nnpack.cli.bench.ours import OURS, PACKED
from nnpack.cli.bench.peers import PEERS
from nnpack.cli.bench.progress import make_console
from nnpack.cli.bench.random_layers import random_layers
from nnpack.cli.bench.roofline import LARGE_LAYERS, draw_roofline
from nnpack.cli.bench.selection import check_files, check_modes, choose_layers, choose_peers
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
    choice: options.ChoiceFlag = False,
    random: options.Random = 0,
    seed: options.Seed = 0,
    batches: options.BatchesFlag = False,
    roofline: options.RooflineFlag = False,
    seconds: options.Seconds = 2.0,
    rounds: options.Rounds = None,
    json_file: options.JsonFile = None,
    resume: options.Resume = False,
    plot_file: options.PlotFile = None,
) -> None:
    """Time single layers of well-known networks against every installed peer."""
    check_modes({"--choice": choice, "--batches": batches, "--roofline": roofline})
    check_files(json_file, plot_file)
    wanted = Wanted(every, pattern, network, kind)
    threads = threads or nnpack.get_num_threads()
    console = make_console()
    if choice:
        drawn = random_layers(random, seed) or [(x, batch) for x in wanted.layers(NETWORKS)]
        check_choices(console, drawn, threads, seconds, json_file, plot_file)
        return
    if roofline:
        draw_roofline(console, wanted.layers(LARGE_LAYERS), plot_file)
        return
    # On one thread nobody spins, so nobody has to be waited for.
    pause = PAUSE_SECONDS if threads > 1 else 0.0
    schedule = Schedule(seconds, rounds, pause, PRECISION if every else None)
    if batches:
        compare_batches(console, wanted.layers(TYPICAL_LAYERS), threads, schedule, plot_file)
        return
    layers, ours = wanted.quick(), (PACKED,) if every else OURS
    chosen, setting = choose_peers(PEERS, peers), Setting(batch, threads, schedule)
    status = compare(console, Run(layers, ours, chosen, setting, json_file, plot_file, resume))
    if status:
        raise typer.Exit(status)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The layers that the options ask for."""

    every: bool = False
    pattern: str | None = None
    networks: Sequence[str] | None = None
    kinds: Sequence[str] | None = None

    def quick(self) -> tuple[Layer, ...]:
        """Those of the short list, unless one option asks for more."""
        return self.layers(LAYERS)

    def layers(self, default: Sequence[Layer]) -> tuple[Layer, ...]:
        """Those of ``default``, unless one option asks for more. Raises BadParameter for none."""
        wide = self.every or self.networks or self.kinds
        return choose_layers(
            ALL_LAYERS if wide else default, self.pattern, self.networks, self.kinds
        )
