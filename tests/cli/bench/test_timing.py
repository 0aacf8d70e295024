"""Interleaved rounds, on a clock that only moves when told."""

from __future__ import annotations

import gc
import itertools

import pytest

from nnpack.cli.bench.timing import (
    MAX_CALLS,
    MIN_CALLS,
    MIN_PRECISE_ROUNDS,
    MIN_ROUNDS,
    REST_SECONDS,
    Schedule,
    run_rounds,
    turn,
    uncertainty,
)
from tests.cli.bench.fakes import FakeTime


def test_a_turn_is_the_median_of_calls_after_an_untimed_one() -> None:
    time = FakeTime()
    durations = iter([0.004, 0.001, 0.009, 0.002, 0.003, 0.008])

    def run() -> None:
        time.seconds += next(durations)

    assert turn(run, time.clock) == pytest.approx(0.003)
    assert next(durations, None) is None


@pytest.mark.parametrize(("seconds", "calls"), [(1.0, MIN_CALLS), (0.002, 10), (1e-6, MAX_CALLS)])
def test_short_calls_are_repeated_more_often(seconds: float, calls: int) -> None:
    time = FakeTime()
    turn(time.work(seconds), time.clock)
    assert time.seconds == pytest.approx((1 + calls) * seconds)


def test_every_contestant_has_one_turn_a_round() -> None:
    time = FakeTime()
    runs = {"swift": time.work(0.001), "slow": time.work(0.1)}
    timings = run_rounds(runs, Schedule(rounds=4), clock=time.clock)
    assert timings.samples["swift"] == pytest.approx([0.001] * 4)
    assert timings.samples["slow"] == pytest.approx([0.1] * 4)


def test_the_order_changes_from_round_to_round() -> None:
    time, order = FakeTime(), []
    runs = {name: lambda name=name: order.append(name) for name in "abcd"}
    run_rounds(runs, Schedule(rounds=6), clock=time.clock)
    per_round = len(order) // 6
    firsts = [tuple(dict.fromkeys(order[i * per_round :])) for i in range(6)]
    assert all(set(first) == set("abcd") for first in firsts)
    assert len(set(firsts)) > 1


def test_time_bounds_the_rounds_but_three_there_are() -> None:
    time = FakeTime()
    turns: list[tuple[str, int]] = []
    timings = run_rounds(
        {"swift": time.work(0.01)},
        Schedule(seconds=1.0),
        clock=time.clock,
        on_turn=lambda *turn: turns.append(turn),
    )
    # Three calls a turn: the untimed one and two others.
    assert turns == [("swift", number) for number in range(1, 35)]
    assert len(timings.samples["swift"]) == 34
    slow = run_rounds({"slow": time.work(10.0)}, Schedule(seconds=1.0), clock=time.clock)
    assert len(slow.samples["slow"]) == 3


def test_a_precision_ends_it_once_medians_stand() -> None:
    time = FakeTime()
    schedule = Schedule(seconds=60.0, precision=0.01)
    steady = run_rounds({"steady": time.work(0.01)}, schedule, clock=time.clock)
    assert len(steady.samples["steady"]) == MIN_PRECISE_ROUNDS
    restless = itertools.cycle([0.01] * 3 + [0.012] * 3 + [0.009] * 3)  # three calls a turn

    def run() -> None:
        time.seconds += next(restless)

    timings = run_rounds({"restless": run}, schedule, clock=time.clock)
    assert len(timings.samples["restless"]) > MIN_PRECISE_ROUNDS


def test_the_uncertainty_of_a_median_falls_with_the_root_of_the_rounds() -> None:
    assert uncertainty([2.0] * 9) == 0.0
    few, many = uncertainty([1.0, 2.0, 3.0] * 3), uncertainty([1.0, 2.0, 3.0] * 12)
    assert few == pytest.approx(0.31, abs=0.01)
    assert many == pytest.approx(few / 2)


def test_the_hopeless_are_measured_a_little_and_the_first_of_the_rivals_always() -> None:
    time = FakeTime()
    runs = {
        "ours": time.work(0.1),
        "swift": time.work(0.01),
        "slow": time.work(0.02),
        "near": time.work(0.014),
        "inexact": time.work(0.001),
    }
    schedule = Schedule(seconds=60.0, precision=0.01)
    rivals = ["ours", "swift", "slow", "near"]
    timings = run_rounds(runs, schedule, clock=time.clock, rivals=rivals)
    assert {name: len(times) for name, times in timings.samples.items()} == {
        "ours": MIN_PRECISE_ROUNDS,
        "swift": MIN_PRECISE_ROUNDS,
        "slow": MIN_ROUNDS,
        "near": MIN_PRECISE_ROUNDS,
        "inexact": MIN_PRECISE_ROUNDS,
    }


def test_turns_on_several_threads_begin_with_a_rest() -> None:
    """As long as threads of the turn before still spin, and no longer than the pause."""
    for spin, naps in ((0.0, 2), (0.012, 5), (9.0, 9)):
        time = FakeTime(spin)
        run_rounds({"a": time.work(0.01)}, Schedule(rounds=2, pause=0.039), clock=time.clock)
        assert time.naps == [REST_SECONDS] * naps


def test_one_that_breaks_down_is_left_out_and_the_others_go_on() -> None:
    time, calls = FakeTime(), []

    def failing() -> None:
        calls.append(1)
        raise OSError("out of order")

    runs = {"fragile": failing, "solid": time.work(0.01)}
    timings = run_rounds(runs, Schedule(rounds=3), clock=time.clock)
    assert timings.failures == {"fragile": "OSError: out of order"}
    assert list(timings.samples) == ["solid"]
    assert len(calls) == 1


def test_nobody_left_is_the_end() -> None:
    time = FakeTime()
    assert run_rounds({}, Schedule(), clock=time.clock).samples == {}


def test_garbage_is_collected_again_afterwards() -> None:
    time, seen = FakeTime(), []
    run_rounds({"a": lambda: seen.append(gc.isenabled())}, Schedule(rounds=1), clock=time.clock)
    assert not any(seen)
    assert gc.isenabled()
