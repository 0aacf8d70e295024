"""The workers: threads of the C library that live in native code and know no Python.

They are made when first wanted, sleep when there is nothing to do, and are told to stop when the
interpreter exits. A forked child has none and makes its own. Where there are no futexes (anything
but Linux on x86-64 and AArch64) there are no workers, and frames run on the calling thread.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import itertools
import os
import platform
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nnpack.codegen.compiler import compile_kernel
from nnpack.codegen.target import host_target
from nnpack.runtime import executor, layout
from nnpack.runtime.calls import Caller, kernels_of_calls
from nnpack.runtime.memory import Block

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from nnpack.codegen.compiler import Specification

_STOP_SECONDS = 1.0

# Signals that a thread gets for what it did itself; blocked, they would kill without a report.
_OWN_SIGNALS = frozenset(
    getattr(signal, name)
    for name in ("SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSEGV", "SIGSYS", "SIGTRAP")
    if hasattr(signal, name)
)


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class Pool:
    """The native pool and its threads, of one process. Its memory and code are never freed."""

    def __init__(self) -> None:
        words = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
        run = compile_kernel(executor.RunFrame(), host_target())
        self.run: Callable[[int, int, int], None] = ctypes.CFUNCTYPE(None, *words)(run)
        self.process = os.getpid()
        self.threads = 1
        """How many threads can work on a frame, the calling one among them."""
        self._numbers = itertools.count(1)
        self._workers: list[ctypes.c_ulong] = []
        memory = Block(8 * layout.POOL_WORDS)
        # A worker that outlives the interpreter must find it.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(memory))
        self.address = memory.address
        self._words = (ctypes.c_int64 * layout.POOL_WORDS).from_address(memory.address)
        self._caller = Caller(run, memory.address)
        self.call = self._caller.call
        """Runs a program, see `calls`, on as many of its threads as there are."""

    def grow(self, threads: int) -> int:
        """Make the workers that ``threads`` threads take; return how many threads there are."""
        threads = min(threads, layout.MAX_WORKERS + 1)
        if threads > self.threads and _has_futex():
            with _process.lock:
                if self.threads == 1:
                    self._prepare()
                while self.threads < threads and not self._words[layout.STOP]:
                    number = next(self._numbers)
                    self._start_worker(number)
                    self.threads = number + 1
                    self._caller.allow(self.threads)
        return min(threads, self.threads)

    def _prepare(self) -> None:
        libc = ctypes.CDLL(None)
        for word, function in (
            (layout.SYSCALL, libc.syscall),
            (layout.SCHED_YIELD, libc.sched_yield),
            (layout.SCHED_GETCPU, libc.sched_getcpu),
            (layout.CLOCK_GETTIME, libc.clock_gettime),
        ):
            self._words[word] = _address_of(function)
        self._main = compile_kernel(executor.WorkerMain(), host_target())
        stop = compile_kernel(executor.StopWorkers(), host_target())
        self._stop = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(stop)

    def _start_worker(self, number: int) -> None:
        """Start a thread. When the system has none left, the worker is for ever late: no harm."""
        slot = layout.SLOTS + layout.SLOT_WORDS * number
        self._words[slot + layout.SLOT_POOL] = self.address
        self._words[slot + layout.SLOT_NUMBER] = number
        thread = ctypes.c_ulong()
        main, argument = ctypes.c_void_p(self._main), ctypes.c_void_p(self.address + 8 * slot)
        with _signals_blocked():
            failure = ctypes.CDLL(None).pthread_create(ctypes.byref(thread), None, main, argument)
            if not failure:
                self._workers.append(thread)

    def stop(self) -> None:
        """End the workers, unless one of them may still be at work for a daemon thread."""
        if not self._workers or self.process != os.getpid():
            return
        self._stop(self.address)
        join = getattr(ctypes.CDLL(None), "pthread_timedjoin_np", None)
        if join is None or not self._words[layout.STOP]:
            return
        deadline = _Timespec(int(time.time() + _STOP_SECONDS), 0)
        while self._workers and join(self._workers[-1], None, ctypes.byref(deadline)) == 0:
            self._workers.pop()


@dataclass
class _Process:
    """What this process has; a forked child begins anew."""

    pool: Pool | None = None
    lock: threading.RLock = field(default_factory=threading.RLock)


_process = _Process()


def kernels_of_runs(threads: int) -> tuple[Specification, ...]:
    """What `run_frame` calls; compiled when it does, at the latest."""
    alone: tuple[Specification, ...] = (executor.RunFrame(), *kernels_of_calls())
    return alone if threads == 1 else (*alone, executor.WorkerMain(), executor.StopWorkers())


def run_frame(frame_address: int, threads: int) -> None:
    """Run all stages of the frame (see `executor`) on up to ``threads`` threads, without the GIL.

    Returns when every task is done. The stages get worker numbers below ``threads``. An interrupt
    is raised after the return.
    """
    pool = _process.pool or _make_pool()
    if threads > pool.threads:
        threads = pool.grow(threads)
    pool.run(pool.address, frame_address, threads)


def caller_of(program: NDArray[np.int64], threads: int) -> Callable[..., None]:
    """A function that runs a program of `calls`, made for so many threads, on its arrays."""

    def call(*arrays: NDArray[Any]) -> None:
        pool = _process.pool or _make_pool()
        if threads > pool.threads:
            pool.grow(threads)
        pool.call(program, *arrays)

    return call


def _make_pool() -> Pool:
    with _process.lock:
        if _process.pool is None:
            _process.pool = Pool()
        return _process.pool


def _begin_anew() -> None:
    # The threads are the parent's, and so may be the owner of the lock.
    _process.pool, _process.lock = None, threading.RLock()


def _stop_workers() -> None:
    if _process.pool is not None:
        _process.pool.stop()


atexit.register(_stop_workers)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)


def _has_futex() -> bool:
    return sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64")


def _address_of(function: object) -> int:
    pointer = ctypes.cast(function, ctypes.c_void_p).value  # type: ignore[arg-type]
    if pointer is None:
        raise OSError("a function of the C library has no address")
    return pointer


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Block signals, so that a thread made here never takes one that Python waits for.

    The old mask is read first: the call that blocks may itself raise a pending interrupt.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - _OWN_SIGNALS)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
