"""Tuning: everything that can do a problem, measured in interleaved rounds; the fastest is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from nnpack import wisdom
from nnpack.algorithms.base import VARIANT_MARK
from nnpack.arrays import Float32Array, undefined_moments
from nnpack.codegen.lock import llvm_lock
from nnpack.codegen.target import Target
from nnpack.execution import Program
from nnpack.explanation import AnyProblem
from nnpack.plan import Plan
from nnpack.planner import Choice, list_choices, plan_choice
from nnpack.runtime.memory import Block, address, empty_output
from nnpack.verbose import is_verbose, report

__all__ = ["TUNING_SECONDS", "interleave", "measure_choices", "tune_problem"]

# What a problem is measured for, unless told otherwise, beyond what compilation takes.
TUNING_SECONDS = 0.5

# Candidates beyond these are hopeless: the model errs by less; each holds packed weights.
MOST_TIMES_PREDICTED = 4.0
MOST_CANDIDATES = 10
# Who is slower than the best by this after a round falls out.
MOST_TIMES_MEASURED = 1.5

# Who was slower than the best by less is measured again beside its variants.
NEARLY = 1.15

LEAST_ROUNDS, MOST_ROUNDS = 5, 60
# A turn: one call untimed, for it finds the others' data in the caches, then some timed.
TURN_SECONDS = 2e-3
MOST_CALLS = 20


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
    with llvm_lock:  # two tunings at once would measure each other
        if problem.is_empty:
            return
        if not again and wisdom.recall(problem, algorithm, target, threads) is not None:
            return
        problem = wisdom.laid_densely(problem)  # as the arrays measured on lie
        choices = list_choices(problem, algorithm, target)
        x = np.random.default_rng(0).standard_normal(problem.x_shape, np.float32)
        # What is added to the result does not change which way is the fastest.
        arrays = {**arrays, "x": x, "y": empty_output(problem.y_shape)}
        if problem.epilogue.residual:
            arrays["residual"] = np.zeros(problem.conv_shape, np.float32)
        if problem.epilogue.statistics:
            arrays |= undefined_moments(problem.out_channels)
        measuring = _Measuring(problem, target, threads, arrays)
        best = measuring.fastest(_promising(choices), seconds / 2)
        # As FFTW does: the decisions within an algorithm are measured for the best one only.
        variants = [choice for choice in choices if choice.is_variant_of(best)]
        if variants:
            rivals = [choice for choice in choices if measuring.is_near(choice, best)]
            best = measuring.fastest([best, *rivals, *variants], seconds / 2)
        outcome = wisdom.Outcome(best.names, measuring.times)
        wisdom.keep(problem, algorithm, target, threads, outcome)


def measure_choices(
    problem: AnyProblem,
    choices: Sequence[Choice],
    target: Target,
    threads: int,
    arrays: Mapping[str, Float32Array],
    *,
    seconds: float = TUNING_SECONDS,
) -> dict[str, float]:
    """Seconds a run of ``choices`` by name, measured for ``seconds``; nothing is kept.

    ``arrays`` has every array that runs read or write: x, weight, y, and bias and scale where the
    problem has them. Of choices that come to the same plan only the first has a time.
    """
    with llvm_lock:
        measuring = _Measuring(problem, target, threads, arrays)
        measuring.fastest(choices, seconds)
        return measuring.times


class _Measuring:
    """Candidates for one problem on the same arrays; ``times`` are seconds a run by name."""

    def __init__(
        self,
        problem: AnyProblem,
        target: Target,
        threads: int,
        arrays: Mapping[str, Float32Array],
    ) -> None:
        self._problem = problem
        self._target = target
        self._threads = threads
        self._arrays = arrays
        self.times: dict[str, float] = {}
        self._choices: dict[str, Choice] = {}

    def fastest(self, choices: Sequence[Choice], seconds: float) -> Choice:
        """Measure ``choices``, but one of those that come to the same plan; the fastest of all.

        What is measured again keeps the lesser time.
        """
        plans: dict[str, Plan] = {}
        for choice in choices:
            plan = plan_choice(self._problem, choice, self._target, self._threads)
            if not any(_is_same(plan, other) for other in plans.values()):
                plans[choice.name] = plan
        runs = {name: _make_run(p, self._target, self._arrays) for name, p in plans.items()}
        times = interleave(runs, seconds)
        for name, value in times.items():
            self.times[name] = min(value, self.times.get(name, value))
            self._choices[name] = next(choice for choice in choices if choice.name == name)
        if is_verbose():
            for name, value in times.items():
                report("tune", self._problem, name, plans[name].detail, self._threads, value)
        return self._choices[min(self.times, key=lambda name: self.times[name])]

    def is_near(self, choice: Choice, best: Choice) -> bool:
        """Whether ``choice`` was nearly as fast as ``best``, which is another."""
        seconds = self.times.get(choice.name)
        near = NEARLY * self.times[best.name]
        return choice.name != best.name and seconds is not None and seconds <= near


def _is_same(plan: Plan, other: Plan) -> bool:
    return (plan.stages, plan.weight_format) == (other.stages, other.weight_format)


def _promising(choices: Sequence[Choice]) -> list[Choice]:
    """Those that are not hopeless, without variants."""
    bound = MOST_TIMES_PREDICTED * choices[0].seconds
    found = [c for c in choices if c.seconds <= bound and VARIANT_MARK not in c.name]
    return found[:MOST_CANDIDATES]


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
