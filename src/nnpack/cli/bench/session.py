"""A layer's way through the benchmark: prepare, verify against float64, time in turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from nnpack.cli.bench.contestant import (
    Contestant,
    Operands,
    Prepared,
    describe,
    random_operands,
)
from nnpack.cli.bench.layers import Layer
from nnpack.cli.bench.reference import WRONG, Reference
from nnpack.cli.bench.results import LayerResult, Measurement
from nnpack.cli.bench.timing import Clock, Schedule, Timings, run_rounds

OnStep = Callable[[str, str], None]
"""Told what happens at the moment, and the name of the contestant it happens to, or nothing."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What all layers of a run have in common."""

    batch: int
    threads: int
    schedule: Schedule
    clock: Clock = field(default_factory=Clock)


def measure_layer(
    layer: Layer,
    contestants: Sequence[Contestant],
    setting: Setting,
    on_step: OnStep = lambda _step, _contestant: None,
) -> LayerResult:
    """Run ``contestants`` on ``layer``; ``on_step`` is told what happens, and to whom.

    A contestant that raises, or whose output is no approximation of the reference, is not timed,
    and its measurement gives the reason.
    """
    operands = random_operands(layer, setting.batch)
    on_step("reference in float64", "")
    reference = Reference(layer, operands)
    ready: dict[str, Prepared] = {}
    measurements: list[Measurement] = []
    for contestant in contestants:
        on_step(f"verifying {contestant.name}", contestant.name)
        prepared, measurement = _verify(contestant, layer, operands, reference, setting.threads)
        measurements.append(measurement)
        if prepared and measurement.reason is None:
            ready[contestant.name] = prepared
    timings = run_rounds(
        {name: prepared.run for name, prepared in ready.items()},
        setting.schedule,
        clock=setting.clock,
        # Inexact peers set no mark.
        rivals=[m.contestant for m in measurements if m.is_exact],
        on_turn=lambda name, number: on_step(f"timing, round {number}", name),
    )
    timed = (_with_times(measurement, timings) for measurement in measurements)
    return LayerResult(layer, setting.batch, tuple(timed))


def _verify(
    contestant: Contestant, layer: Layer, operands: Operands, reference: Reference, threads: int
) -> tuple[Prepared | None, Measurement]:
    """Run ``contestant`` twice; its second output counts, when weights and memory are reused."""
    found = Measurement(contestant.name, contestant.is_ours)
    try:
        prepared = contestant.prepare(layer, operands, threads)
        prepared.run()
        error = reference.error(prepared.to_array(prepared.run()))
    except Exception as failure:  # another library may raise anything
        return None, replace(found, reason=describe(failure))
    reason = f"wrong output, error {error:.1e}" if error > WRONG else None
    return prepared, replace(found, error=error, reason=reason)


def _with_times(measurement: Measurement, timings: Timings) -> Measurement:
    name = measurement.contestant
    return replace(
        measurement,
        samples=tuple(timings.samples.get(name, ())),
        reason=timings.failures.get(name, measurement.reason),
    )
