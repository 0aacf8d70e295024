"""Rates of one core of this machine, measured: what cost models start from. Never run by itself.

Each figure is the best of several short runs: whoever else uses the machine can only slow it down.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable

from nnpack.codegen.assembler import Assembler
from nnpack.codegen.compiler import ENTRY, compile_kernel
from nnpack.codegen.target import Rates, Target
from nnpack.frozen import dataclass
from nnpack.runtime.memory import Block

__all__ = ["measure_rates"]

# Accumulators enough to hide 5 cycles of latency at 2 a cycle, on targets of 16 registers too.
ACCUMULATORS = 12
UNROLLED_ADDS = 64
UNROLLED_COPIES = 8
# How much is asked of each loop a run: a few milliseconds.
CHAIN_PASSES = 200_000
PEAK_PASSES = 1_000_000
COPIED_BYTES = 1 << 27
# More than any last-level cache serves one core with; twice that is allocated.
LEAST_MEMORY_BYTES = 1 << 27
RUNS = 15


@dataclass(frozen=True)
class AddChain:
    """``passes`` times 64 integer additions, each waiting for the last: a cycle each."""

    def emit(self, asm: Assembler) -> None:
        """Emit the function; every sum is of the two before, so that none can be left out."""
        with asm.function(ENTRY, exported=True, out="pointer", passes="index") as (out, passes):
            last = {0: asm.load_index(out), 1: asm.load_index(out)}
            with asm.loop(passes, carry=last):
                for _ in range(UNROLLED_ADDS):
                    last[0], last[1] = last[1], asm.add(last[0], last[1])
            asm.store_index(last[1], out)


@dataclass(frozen=True)
class MultiplyAddPeak:
    """``passes`` times as many multiply-adds as there are accumulators, of full vectors."""

    def emit(self, asm: Assembler) -> None:
        """Emit the function; ``out`` holds a factor that keeps all sums finite, then a sum."""
        with asm.function(ENTRY, exported=True, out="pointer", passes="index") as (out, passes):
            factor = asm.broadcast(out)
            sums = {n: asm.splat(float(n + 1)) for n in range(ACCUMULATORS)}
            with asm.loop(passes, carry=sums):
                for n in range(ACCUMULATORS):
                    sums[n] = asm.fma(sums[n], factor, factor)
            total = sums[0]
            for n in range(1, ACCUMULATORS):
                total = asm.add(total, sums[n])
            asm.store(total, out)


@dataclass(frozen=True)
class CopyFloats:
    """``passes`` times ``y[:floats] = x[:floats]``, 8 vectors at once."""

    def emit(self, asm: Assembler) -> None:
        """Emit the function."""
        step = UNROLLED_COPIES * asm.lanes
        with asm.function(
            ENTRY, exported=True, x="pointer", y="pointer", floats="index", passes="index"
        ) as (x, y, floats, passes):
            with asm.loop(passes):
                with asm.loop(floats, step=step) as start:
                    values = [asm.load(x + start, n * asm.lanes) for n in range(UNROLLED_COPIES)]
                    for n, value in enumerate(values):
                        asm.store(value, y + start, n * asm.lanes)


def measure_rates(target: Target, runs: int = RUNS) -> Rates:
    """The rates of the core this thread runs on, the best of ``runs`` runs each: 1 to 3 seconds."""
    clock = _measure_clock(target, runs)
    caches = target.caches
    beyond = max(4 * caches.l3, LEAST_MEMORY_BYTES)
    # Half a level for both arrays together: the other half is for everybody else.
    return Rates(
        clock=clock,
        multiply_adds_per_cycle=_measure_peak(target, runs) / clock,
        l2_bandwidth=_measure_copy(target, runs, caches.l2 // 2),
        l3_bandwidth=_measure_copy(target, runs, max(caches.l3 // 4, 2 * caches.l2)),
        memory_bandwidth=_measure_copy(target, max(2, runs // 3), beyond),
    )


def _measure_clock(target: Target, runs: int) -> float:
    chain = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(
        compile_kernel(AddChain(), target)
    )
    word = ctypes.c_int64(1)
    seconds = _least_seconds(lambda: chain(ctypes.addressof(word), CHAIN_PASSES), runs)
    return UNROLLED_ADDS * CHAIN_PASSES / seconds


def _measure_peak(target: Target, runs: int) -> float:
    """Vector multiply-adds a second."""
    peak = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(
        compile_kernel(MultiplyAddPeak(), target)
    )
    out = (ctypes.c_float * target.lanes)()

    def run() -> None:
        out[0] = 0.5
        peak(ctypes.addressof(out), PEAK_PASSES)

    return ACCUMULATORS * PEAK_PASSES / _least_seconds(run, runs)


def _measure_copy(target: Target, runs: int, nbytes: int) -> float:
    """Bytes read and written a second by a copy whose two arrays have ``nbytes`` together."""
    copy = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(
        compile_kernel(CopyFloats(), target)
    )
    step = 4 * UNROLLED_COPIES * target.lanes
    half = max(1, nbytes // 2 // step) * step
    x, y = Block(half), Block(half)
    ctypes.memset(x.address, 1, half)  # pages never written are all one page of zeros
    passes = max(1, COPIED_BYTES // (2 * half))
    seconds = _least_seconds(lambda: copy(x.address, y.address, half // 4, passes), runs)
    return 2 * half * passes / seconds


def _least_seconds(run: Callable[[], object], runs: int) -> float:
    run()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)
