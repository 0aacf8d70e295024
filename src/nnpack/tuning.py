"""Tuning: everything that can do a problem, measured in interleaved rounds; the fastest is kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

import numpy as np

from nnpack import wisdom
from nnpack.arrays import Float32Array
from nnpack.codegen.target import Target
from nnpack.execution import Program
from nnpack.explanation import AnyProblem
from nnpack.plan import Plan
from nnpack.planner import Choice, list_choices, plan_choice
from nnpack.runtime.memory import Block, address, empty_output
from nnpack.verbose import is_verbose, report

__all__ = ["TUNING_SECONDS", "interleave", "tune_problem"]

# What a problem is measured for, unless told otherwise, beyond what compilation takes.
TUNING_SECONDS = 0.5

# Candidates beyond these are hopeless: the model errs by less; each holds packed weights.
MOST_TIMES_PREDICTED = 4.0
MOST_CANDIDATES = 10
# Who is slower than the best by this after a round falls out.
MOST_TIMES_MEASURED = 1.5

LEAST_ROUNDS, MOST_ROUNDS = 5, 60
# A turn: one call untimed, for it finds the others' data in the caches, then some timed.
TURN_SECONDS = 2e-3
MOST_CALLS = 20

# Two tunings at once would measure each other.
_lock = threading.Lock()


def tune_problem(
    problem: AnyProblem,
    algorithm: str,
    target: Target,
    threads: int,
    arrays: Mapping[str, Float32Array],
    *,
    seconds: float = TUNING_SECONDS,
    again: bool = True,
) -> None:
    """Measure what ``algorithm`` allows on ``problem`` for ``seconds``; keep the outcome as wisdom.

    ``arrays`` are weight, bias and scale; x is random. Unless ``again``, what was ever measured
    stays as it is. A problem without outputs is left alone.

    Raises AlgorithmError when nothing can do the problem.
    """
    with _lock:
        if problem.is_empty:
            return
        if not again and wisdom.recall(problem, algorithm, target, threads) is not None:
            return
        choices = {choice.name: choice for choice in _promising(problem, algorithm, target)}
        plans = {name: plan_choice(problem, c, target, threads) for name, c in choices.items()}
        x = np.random.default_rng(0).standard_normal(problem.x_shape, np.float32)
        y = empty_output(problem.y_shape)
        arrays = {**arrays, "x": x, "y": y}
        runs = {name: _make_run(plan, target, arrays) for name, plan in plans.items()}
        measured = interleave(runs, seconds)
        best = min(measured, key=lambda name: measured[name])
        outcome = wisdom.Outcome(choices[best].names, measured)
        wisdom.keep(problem, algorithm, target, threads, outcome)
    if is_verbose():
        for name, value in measured.items():
            report("tune", problem, name, plans[name].detail, threads, value)


def _promising(problem: AnyProblem, algorithm: str, target: Target) -> list[Choice]:
    choices = list_choices(problem, algorithm, target)
    bound = MOST_TIMES_PREDICTED * choices[0].seconds
    return [choice for choice in choices if choice.seconds <= bound][:MOST_CANDIDATES]


def _make_run(
    plan: Plan, target: Target, arrays: Mapping[str, Float32Array]
) -> Callable[[], object]:
    """A function that runs ``plan`` once; the arrays and weights it reads live as long as it."""
    packed = Block(plan.weight_format.nbytes)
    places = {name: address(array) for name, array in arrays.items()}
    places["packed"] = packed.address
    Program(plan.weight_format.stages, target, plan.threads, 0).run(places)
    program = Program(plan.stages, target, plan.threads, plan.workspace_bytes)

    def run(_keep: tuple[object, ...] = (packed, arrays)) -> None:
        program.run(places)

    return run


def interleave(
    runs: Mapping[str, Callable[[], object]],
    seconds: float,
    now: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Seconds a call of each of ``runs``: the median over rounds of the least time in a turn.

    In a round each has one turn, in an order that shifts, so that slow spells of the machine hit
    all alike; those that are clearly slower fall out. ``now`` is the clock.
    """
    samples: dict[str, list[float]] = {name: [] for name in runs}
    alive, start, rounds = list(runs), now(), 0
    while rounds < LEAST_ROUNDS or (now() - start < seconds and rounds < MOST_ROUNDS):
        for name in alive:
            samples[name].append(_turn(runs[name], now))
        rounds += 1
        best = min(min(samples[name]) for name in alive)
        alive = [name for name in alive if min(samples[name]) <= MOST_TIMES_MEASURED * best]
        alive = [*alive[1:], alive[0]]
    return {name: float(np.median(times)) for name, times in samples.items()}


def _turn(run: Callable[[], object], now: Callable[[], float]) -> float:
    warm = _seconds(run, now)
    calls = min(max(1, round(TURN_SECONDS / max(warm, 1e-9))), MOST_CALLS)
    return min(_seconds(run, now) for _ in range(calls))


def _seconds(run: Callable[[], object], now: Callable[[], float]) -> float:
    start = now()
    run()
    return max(now() - start, 1e-9)
