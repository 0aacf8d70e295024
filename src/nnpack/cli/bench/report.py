"""The tables of ``nnpack bench``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.table import Table
from rich.text import Text

from nnpack.cli.bench.networks import NAMED_NETWORKS
from nnpack.cli.bench.results import LayerResult, Measurement, Report, mean_speedup

OURS = "nnpack"  # the contestant with packed weights: the one that ratios are about
NOTHING = "-"
SLOW = 0.95
FRAMEWORKS = ("torch", "torch-cl", "onednn", "onednn-cl", "onnxruntime", "openvino")


def layer_table(report: Report) -> Table:
    """One row a layer: milliseconds of ours, effective GFLOP/s of all, ratio to the best peer."""
    table = Table(
        title=f"effective GFLOP/s, batch {report.batch}, {threads_text(report.threads)}",
        caption="! error above 1e-4   bold: best exact peer   ratio: nnpack to the best exact peer",
    )
    table.add_column("layer", no_wrap=True)
    table.add_column("ms", justify="right")
    for name in report.contestants:
        table.add_column(name, justify="right")
    table.add_column("best ms", justify="right")
    table.add_column("ratio", justify="right")
    for network, results in groupby(report.results, key=lambda result: result.layer.network):
        table.add_row(Text(network, style="italic"))
        for result in results:
            table.add_row(*layer_row(result, report.contestants))
        table.add_section()
    return table


def layer_row(result: LayerResult, contestants: Sequence[str]) -> list[Text]:
    """The cells of one layer, in the order of the columns."""
    best = result.best_peer
    cells = [Text(result.layer.name), Text(milliseconds(result.seconds(OURS)))]
    cells += [_speed(result, name, best) for name in contestants]
    return [
        *cells,
        Text(milliseconds(best.seconds if best else None)),
        ratio_text(result.speedup(OURS)),
    ]


def _speed(result: LayerResult, contestant: str, best: Measurement | None) -> Text:
    measurement = result.find(contestant)
    gflops = result.gflops(contestant)
    if measurement is None or gflops is None:
        return Text(NOTHING, style="dim")
    if not measurement.is_exact:
        return Text(f"{significant(gflops)}!", style="red" if measurement.is_ours else "dim")
    return Text(significant(gflops), style="bold" if measurement is best else "")


def summary_table(report: Report) -> Table:
    """One row a kind of layer: geometric means of the speed-up over every peer."""
    packed, *others = [name for name in report.contestants if name.startswith(OURS)]
    peers = [name for name in report.contestants if not name.startswith(OURS)]
    table = Table(
        title="speed-up in geometric mean",
        caption="packed weights over each peer; the other ways to call over the best exact peer; "
        f"frameworks: the best exact one of {', '.join(FRAMEWORKS)}"
        "    ! the peer was inexact on some of these layers",
    )
    table.add_column("kind")
    table.add_column("layers", justify="right")
    for name in ("best exact peer", "frameworks", *peers, *others):
        table.add_column(name, justify="right")
    for title, results in _groups(report):
        table.add_row(
            Text(title),
            Text(str(len(results))),
            ratio_text(mean_speedup(results, packed)),
            ratio_text(mean_speedup(results, packed, FRAMEWORKS)),
            *(_mean(results, packed, peer) for peer in peers),
            *(ratio_text(mean_speedup(results, other)) for other in others),
        )
    return table


def _groups(report: Report) -> Iterator[tuple[str, list[LayerResult]]]:
    """The rows of the summary: every kind, the networks that go by name, and all."""
    for kind in report.kinds:
        yield kind, [r for r in report.results if r.layer.kind == kind]
    named = [r for r in report.results if r.layer.network in NAMED_NETWORKS]
    if 0 < len(named) < len(report.results):
        yield "seven networks", named
    yield "all", list(report.results)


def slow_lines(report: Report, bound: float = SLOW) -> list[str]:
    """The layers on which ours is slower than ``bound`` times the best exact peer."""
    slow = [r for r in report.results if (ratio := r.speedup(OURS)) is not None and ratio < bound]
    if not slow:
        return []
    head = f"{len(slow)} of {len(report.results)} layers below {bound} of the best exact peer:"
    return [head, *(f"  {layer_line(r)}" for r in sorted(slow, key=_ratio))]


def _ratio(result: LayerResult) -> float:
    return result.speedup(OURS) or 0.0


def _mean(results: Sequence[LayerResult], packed: str, peer: str) -> Text:
    text = ratio_text(mean_speedup(results, packed, peer))
    found = (result.find(peer) for result in results)
    if any(m and m.samples and not m.is_exact for m in found):
        text.append("!")
    return text


def layer_line(result: LayerResult) -> str:
    """One line about a finished layer, for those who watch."""
    parts = [f"{result.layer.network:<14}{result.layer.name:<30}"]
    gflops, best, ratio = result.gflops(OURS), result.best_peer, result.speedup(OURS)
    if gflops is not None:
        time = milliseconds(result.seconds(OURS))
        parts.append(f"{time:>8} ms {significant(gflops):>6} GFLOP/s")
    if best:
        parts.append(f"   best peer {best.contestant} {milliseconds(best.seconds)} ms")
    if ratio is not None:
        parts.append(f"   ratio {ratio:.2f}")
    return "".join(parts)


def failure_lines(report: Report) -> list[str]:
    """Who did not take part, and who failed on which layer, with reasons."""
    absent = [f"{name}: not available: {reason}" for name, reason in report.unavailable.items()]
    failed = [
        f"{m.contestant}: {result.layer.name}: {m.reason}"
        for result in report.results
        for m in result.measurements
        if m.reason is not None
    ]
    return absent + failed


def threads_text(threads: int) -> str:
    """``"1 thread"``, ``"2 threads"``."""
    return f"{threads} thread{'s' if threads > 1 else ''}"


def milliseconds(seconds: float | None) -> str:
    """Milliseconds to three significant digits."""
    return NOTHING if seconds is None else significant(seconds * 1e3)


def significant(value: float) -> str:
    """``value`` to about three digits, never in exponents: 1234, 123, 12.3, 1.23, 0.123."""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:.{digits}f}"


def ratio_text(ratio: float | None) -> Text:
    """A ratio to two digits, green from 1 on."""
    if ratio is None:
        return Text(NOTHING, style="dim")
    return Text(f"{ratio:.2f}", style="green" if ratio >= 1 else "yellow")
