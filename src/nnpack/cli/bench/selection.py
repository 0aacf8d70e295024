"""What the options ask for: layers, peers, files; and what is wrong with them."""

from __future__ import annotations

import importlib
import pathlib
import re
from collections.abc import Mapping, Sequence

import typer

from nnpack.cli.bench.contestant import Contestant
from nnpack.cli.bench.layers import Layer, select_layers, unique_layers


def choose_layers(
    layers: Sequence[Layer],
    pattern: str | None,
    networks: Sequence[str] | None = None,
    kinds: Sequence[str] | None = None,
) -> tuple[Layer, ...]:
    """Those of ``layers`` that the options ask for. Raises BadParameter for none."""
    try:
        found = select_layers(layers, pattern, networks or (), kinds or ())
    except re.error as error:
        raise typer.BadParameter(
            f"--filter {pattern!r} is no regular expression: {error}"
        ) from None
    if not found:
        known = ", ".join(dict.fromkeys(layer.kind for layer in unique_layers(layers)))
        raise typer.BadParameter(f"no layer matches; kinds are {known}")
    return found


def choose_peers(peers: Sequence[Contestant], names: str | None) -> tuple[Contestant, ...]:
    """Those of ``peers`` that ``--peers`` names, or all. Raises BadParameter for others."""
    if names is None:
        return tuple(peers)
    known = {peer.name: peer for peer in peers}
    wanted = [name for name in names.split(",") if name and name != "none"]
    for name in wanted:
        if name not in known:
            raise typer.BadParameter(f"no peer {name!r}; choose among {', '.join(known)}")
    return tuple(known[name] for name in dict.fromkeys(wanted))


def split_available(peers: Sequence[Contestant]) -> tuple[list[Contestant], dict[str, str]]:
    """Those that can run here, and for the others the reason why not."""
    reasons = {peer.name: peer.why_unavailable() for peer in peers}
    absent = {name: reason for name, reason in reasons.items() if reason is not None}
    return [peer for peer in peers if peer.name not in absent], absent


def check_modes(flags: Mapping[str, bool]) -> None:
    """At most one of them. Raises BadParameter."""
    given = [name for name, on in flags.items() if on]
    if len(given) > 1:
        raise typer.BadParameter(f"{' and '.join(given)} are separate runs; give one of them")


def check_files(json_file: pathlib.Path | None, plot_file: pathlib.Path | None) -> None:
    """What would fail after minutes of measuring fails now. Raises BadParameter."""
    for path in (json_file, plot_file):
        if path and (path.is_dir() or not path.absolute().parent.is_dir()):
            raise typer.BadParameter(f"cannot write {path}: not a file in an existing folder")
    if plot_file:
        importlib.import_module("matplotlib")
