"""Least times of contestants that take turns: what the benchmarks of small operations share."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

Run = Callable[[], object]

LEAST_SECONDS = 2e-3
"""What a turn takes at least; half as much before it does not count, and fills caches again."""

PAUSE_SECONDS = 0.08
"""Threads of other libraries spin after a call, PyTorch's for 10 ms and ONNX Runtime's for 50, and
would take half a core from whoever comes next: on several threads a turn begins with a rest."""


def least_times(runs: Mapping[str, Run], rounds: int, threads: int) -> dict[str, float]:
    """Least microseconds a call: others on the machine can only slow a contestant down."""
    times = {name: float("inf") for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            if threads > 1:
                time.sleep(PAUSE_SECONDS)
            run()
            _, repeats = _repeated(run, 1, LEAST_SECONDS / 2)
            seconds, calls = _repeated(run, repeats, LEAST_SECONDS)
            times[name] = min(times[name], seconds / calls * 1e6)
    return times


def _repeated(run: Run, repeats: int, least: float) -> tuple[float, int]:
    """Seconds and number of calls, ``repeats`` at a time until they take ``least`` seconds."""
    calls, start = 0, time.perf_counter()
    while True:
        for _ in range(repeats):
            run()
        calls += repeats
        seconds = time.perf_counter() - start
        if seconds >= least:
            return seconds, calls
