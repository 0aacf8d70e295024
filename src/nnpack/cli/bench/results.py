"""What a benchmark found, as values that survive a trip through JSON."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from nnpack.cli.bench.layers import Layer
from nnpack.cli.bench.reference import EXACT

FORMAT = 2


@dataclass(frozen=True, slots=True)
class Measurement:
    """One contestant on one layer: seconds a call by round, or the reason why there are none.

    ``error`` is max|output - reference| / max|reference|, None when there was no output.
    """

    contestant: str
    is_ours: bool
    samples: tuple[float, ...] = ()
    error: float | None = None
    reason: str | None = None

    @property
    def seconds(self) -> float | None:
        """Median seconds a call."""
        return statistics.median(self.samples) if self.samples else None

    @property
    def is_exact(self) -> bool:
        """The output was within 1e-4 of the reference."""
        return self.error is not None and self.error <= EXACT


@dataclass(frozen=True, slots=True)
class LayerResult:
    """All contestants on one layer."""

    layer: Layer
    batch: int
    measurements: tuple[Measurement, ...]

    def find(self, contestant: str) -> Measurement | None:
        """The measurement of ``contestant``, None when it did not take part."""
        return next((m for m in self.measurements if m.contestant == contestant), None)

    def seconds(self, contestant: str) -> float | None:
        """Median seconds a call of ``contestant``, None when it was not timed."""
        measurement = self.find(contestant)
        return measurement.seconds if measurement else None

    def gflops(self, contestant: str) -> float | None:
        """Effective GFLOP/s: the operations of direct convolution by the time taken."""
        seconds = self.seconds(contestant)
        return self.layer.flops(self.batch) / seconds / 1e9 if seconds else None

    @property
    def best_peer(self) -> Measurement | None:
        """The fastest peer whose output was exact."""
        return self.best_of(None)

    def best_of(self, names: Collection[str] | None) -> Measurement | None:
        """The fastest peer of ``names`` (of all when None) whose output was exact."""
        timed = [
            m
            for m in self.measurements
            if not m.is_ours
            and m.is_exact
            and m.samples
            and (names is None or m.contestant in names)
        ]
        return min(timed, key=lambda m: statistics.median(m.samples), default=None)

    def speedup(self, contestant: str, over: str | Collection[str] | None = None) -> float | None:
        """How many times faster ``contestant`` is than ``over``.

        That is a name, or several, of whom the best exact one counts, or None for all peers.
        """
        if isinstance(over, str):
            theirs = self.seconds(over)
        else:
            best = self.best_of(over)
            theirs = best.seconds if best else None
        ours = self.seconds(contestant)
        return theirs / ours if theirs and ours else None


@dataclass(frozen=True, slots=True)
class Report:
    """A whole run: the setting, who took part, who could not and why, and the results."""

    machine: dict[str, str]
    batch: int
    threads: int
    contestants: tuple[str, ...]
    unavailable: dict[str, str]
    results: tuple[LayerResult, ...]

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of layer in the order of their first appearance."""
        return tuple(dict.fromkeys(result.layer.kind for result in self.results))

    def mean_speedup(
        self, contestant: str, over: str | None = None, kind: str | None = None
    ) -> float | None:
        """Geometric mean of the speed-up over the layers of ``kind`` (all of them when None)."""
        results = [result for result in self.results if kind in (None, result.layer.kind)]
        return mean_speedup(results, contestant, over)

    def faults(self) -> list[str]:
        """Where our own output was missing or not exact: ``"layer: contestant: reason"``."""
        return [
            f"{result.layer.name}: {m.contestant}: {m.reason or f'error {m.error:.1e}'}"
            for result in self.results
            for m in result.measurements
            if m.is_ours and (m.reason is not None or not m.is_exact)
        ]


def mean_speedup(
    results: Iterable[LayerResult], contestant: str, over: str | Collection[str] | None = None
) -> float | None:
    """Geometric mean of `LayerResult.speedup`, of the results that have one."""
    ratios = (result.speedup(contestant, over) for result in results)
    return geometric_mean(ratio for ratio in ratios if ratio is not None)


def merge(report: Report, former: Report) -> Report:
    """``report`` with the results of ``former`` ahead of its own, and all its contestants.

    Raises ValueError when they were measured on other machines, batches or numbers of threads.
    """
    for name in ("batch", "threads"):
        ours, theirs = getattr(report, name), getattr(former, name)
        if ours != theirs:
            raise ValueError(f"was measured with {name}={theirs}, not {ours}")
    processors = report.machine.get("processor"), former.machine.get("processor")
    if processors[0] != processors[1]:
        raise ValueError(f"was measured on another machine, {processors[1]}")
    return replace(
        report,
        contestants=tuple(dict.fromkeys((*report.contestants, *former.contestants))),
        results=(*former.results, *report.results),
    )


def geometric_mean(values: Iterable[float]) -> float | None:
    """exp(mean(log(v))), None for no values."""
    logarithms = [math.log(value) for value in values]
    return math.exp(statistics.fmean(logarithms)) if logarithms else None


def to_json(report: Report) -> str:
    """``report`` as JSON, with the derived figures that readers of the file want."""
    document = asdict(report)
    document["format"] = FORMAT
    for entry, result in zip(document["results"], report.results, strict=True):
        entry["layer"] |= {"name": result.layer.name, "kind": result.layer.kind}
        entry["flops"] = result.layer.flops(result.batch)
        for values, measurement in zip(entry["measurements"], result.measurements, strict=True):
            values["seconds"] = measurement.seconds
            values["gflops"] = result.gflops(measurement.contestant)
    # An infinite error (NaN in an output) is no number of JSON's.
    return json.dumps(_finite(document), indent=1, allow_nan=False)


def from_json(text: str) -> Report:
    """The report that ``to_json`` wrote. Raises ValueError for another format, or none."""
    document = json.loads(text)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError(f"not a report of nnpack bench, format {FORMAT}")
    try:
        return _read_report(document)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"a damaged report of nnpack bench: {error!r}") from error


def _read_report(document: dict[str, Any]) -> Report:
    results = tuple(_read_result(entry) for entry in document["results"])
    return Report(
        machine=document["machine"],
        batch=document["batch"],
        threads=document["threads"],
        contestants=tuple(document["contestants"]),
        unavailable=document["unavailable"],
        results=results,
    )


def _read_result(entry: dict[str, Any]) -> LayerResult:
    words = {k: v for k, v in entry["layer"].items() if k in Layer.__dataclass_fields__}
    layer: dict[str, Any]
    layer = {k: tuple(v) if isinstance(v, list) else v for k, v in words.items()}
    measurements = (
        Measurement(
            contestant=values["contestant"],
            is_ours=values["is_ours"],
            samples=tuple(values["samples"]),
            error=float("inf") if values["error"] == "inf" else values["error"],
            reason=values["reason"],
        )
        for values in entry["measurements"]
    )
    return LayerResult(Layer(**layer), entry["batch"], tuple(measurements))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return "inf" if value == math.inf else value
