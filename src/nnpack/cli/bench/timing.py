"""Interleaved rounds: each round every contestant has one turn, in a random order.

Slow spells of the machine then hit all alike. A turn is one untimed call, which brings caches
and threads back, and several timed ones, back to back; its result is their median.
"""

from __future__ import annotations

import gc
import math
import random
import statistics
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from nnpack.cli.bench.contestant import describe

MIN_ROUNDS = 3
MIN_CALLS, MAX_CALLS = 2, 50  # timed calls a turn
TURN_SECONDS = 0.02
# Workers of other libraries spin after a call (OpenMP up to 20 ms in ncnn, ONNX Runtime's 50 ms,
# some for longer) and would steal a core from whoever runs next: a turn on several threads begins
# with a rest until all threads of the process are idle for such a step, no longer than a pause.
PAUSE_SECONDS = 0.5
REST_SECONDS, IDLE_SHARE = 0.005, 0.1

# Rounds until medians stand, where a precision is asked for: at least so many; and who is slower
# than the fastest rival by this factor after the first MIN_ROUNDS has no more turns.
MIN_PRECISE_ROUNDS = 7
HOPELESS = 1.5


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long to measure: ``rounds`` exactly, or as many (3 at least) as fit into ``seconds``.

    With a ``precision``, no longer than until the standard error of every median is within that
    part of it, of those who are not hopelessly slow.
    """

    seconds: float = 2.0
    rounds: int | None = None
    pause: float = 0.0
    precision: float | None = None

    def is_over(self, elapsed: float, samples: Mapping[str, Sequence[float]], rounds: int) -> bool:
        """Whether to stop after ``rounds`` rounds that took ``elapsed`` seconds."""
        if self.rounds is not None:
            return rounds >= self.rounds
        if rounds >= MIN_ROUNDS and elapsed >= self.seconds:
            return True
        if self.precision is None or rounds < MIN_PRECISE_ROUNDS:
            return False
        return all(uncertainty(times) <= self.precision for times in samples.values())


def uncertainty(samples: Sequence[float]) -> float:
    """The standard error of the median, as a part of it.

    1.25 sigma / sqrt(n) for a normal distribution, whose quartiles are 1.35 sigma apart.
    """
    first, median, third = statistics.quantiles(samples, n=4)
    return 1.25 * (third - first) / 1.35 / math.sqrt(len(samples)) / median


@dataclass(frozen=True, slots=True)
class Clock:
    """Where time comes from and how it is let pass; tests bring their own."""

    now: Callable[[], float] = time.perf_counter
    sleep: Callable[[float], None] = time.sleep
    computed: Callable[[], float] = time.process_time

    def rest(self, longest: float) -> None:
        """Sleep until no thread of this process computes, ``longest`` seconds at most."""
        end = self.now() + longest
        while self.now() < end:
            before = self.computed()
            self.sleep(REST_SECONDS)
            if self.computed() - before < IDLE_SHARE * REST_SECONDS:
                return


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
    rivals: Collection[str] = (),
    on_turn: Callable[[str, int], None] = lambda _name, _round: None,
) -> Timings:
    """Time ``runs`` against each other. One that raises is left out from then on, with the reason.

    With a precision, those that are hopeless against the fastest of ``rivals`` have a few turns
    only; the rivals among them too, but for the first. ``on_turn`` is called before every turn with
    the name of who has it and the number of the round.
    """
    clock = clock or Clock()
    rng = random.Random(seed)
    timings = Timings(samples={name: [] for name in runs})
    playing = list(runs)
    start, rounds = clock.now(), 0
    with _collector_off():
        while playing and not schedule.is_over(
            clock.now() - start, {name: timings.samples[name] for name in playing}, rounds
        ):
            rounds += 1
            rng.shuffle(playing)
            for name in playing:
                on_turn(name, rounds)
                _take_turn(name, runs[name], schedule, clock, timings)
            playing = [name for name in playing if name in timings.samples]
            if schedule.precision is not None and rounds >= MIN_ROUNDS:
                playing = _hopeful(playing, timings, rivals)
    return timings


def _hopeful(playing: list[str], timings: Timings, rivals: Collection[str]) -> list[str]:
    """Those within reach of the fastest rival; and the first rival, about whom it all is."""
    marks = [min(timings.samples[name]) for name in playing if name in rivals]
    bound = HOPELESS * min(marks, default=math.inf)
    first = next(iter(rivals), None)
    return [name for name in playing if name == first or min(timings.samples[name]) <= bound]


def _take_turn(
    name: str, run: Callable[[], object], schedule: Schedule, clock: Clock, timings: Timings
) -> None:
    if schedule.pause:
        clock.rest(schedule.pause)
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
