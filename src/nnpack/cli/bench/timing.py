"""Interleaved rounds: each round every contestant has one turn, in a random order.

Slow spells of the machine then hit all alike. A turn is one untimed call, which brings caches
and threads back, and several timed ones, back to back; its result is their median.
"""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from nnpack.cli.bench.contestant import describe

MIN_ROUNDS = 3
MIN_CALLS, MAX_CALLS = 2, 50  # timed calls a turn
TURN_SECONDS = 0.02
# Workers of other libraries spin after a call (OpenMP up to 20 ms in ncnn) and would steal a core
# from whoever runs next, so a turn on several threads begins with a rest for them to fall asleep.
PAUSE_SECONDS = 0.04


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long to measure: ``rounds`` exactly, or as many (3 at least) as fit into ``seconds``."""

    seconds: float = 2.0
    rounds: int | None = None
    pause: float = 0.0

    def is_over(self, rounds: int, elapsed: float) -> bool:
        """Whether to stop after ``rounds`` rounds that took ``elapsed`` seconds."""
        if self.rounds is not None:
            return rounds >= self.rounds
        return rounds >= MIN_ROUNDS and elapsed >= self.seconds


@dataclass(frozen=True, slots=True)
class Clock:
    """Where time comes from and how it is let pass; tests bring their own."""

    now: Callable[[], float] = time.perf_counter
    sleep: Callable[[float], None] = time.sleep


@dataclass(slots=True)
class Timings:
    """Seconds a call by contestant, one sample a round, and why contestants broke down."""

    samples: dict[str, list[float]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


def run_rounds(
    runs: Mapping[str, Callable[[], object]],
    schedule: Schedule,
    *,
    clock: Clock | None = None,
    seed: int = 0,
    on_round: Callable[[int], None] = lambda _rounds: None,
) -> Timings:
    """Time ``runs`` against each other. One that raises is left out from then on, with the reason.

    ``on_round`` is called after every round with the number of rounds done.
    """
    clock = clock or Clock()
    rng = random.Random(seed)
    timings = Timings(samples={name: [] for name in runs})
    start, rounds = clock.now(), 0
    with _collector_off():
        while timings.samples and not schedule.is_over(rounds, clock.now() - start):
            order = list(timings.samples)
            rng.shuffle(order)
            for name in order:
                _take_turn(name, runs[name], schedule, clock, timings)
            rounds += 1
            on_round(rounds)
    return timings


def _take_turn(
    name: str, run: Callable[[], object], schedule: Schedule, clock: Clock, timings: Timings
) -> None:
    if schedule.pause:
        clock.sleep(schedule.pause)
    try:
        timings.samples[name].append(turn(run, clock))
    except Exception as error:  # another library may raise anything
        del timings.samples[name]
        timings.failures[name] = describe(error)


def turn(run: Callable[[], object], clock: Clock) -> float:
    """Median seconds of a call, over about ``TURN_SECONDS`` of calls after an untimed one."""
    warm = _seconds(run, clock)
    calls = min(max(round(TURN_SECONDS / max(warm, 1e-9)), MIN_CALLS), MAX_CALLS)
    return statistics.median(_seconds(run, clock) for _ in range(calls))


def _seconds(run: Callable[[], object], clock: Clock) -> float:
    start = clock.now()
    run()
    return clock.now() - start


@contextmanager
def _collector_off() -> Iterator[None]:
    """No garbage collection in the middle of a timed call."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
