"""The native walk over the stages of a frame, shared out to workers that never leave native code.

*Frame*: int64 words ``[stages, (function, tasks, offset) * stages, ...]``. ``function`` is the
address of ``void stage(int64* arguments, int64 first, int64 last, int64 worker)``, which does the
tasks ``first <= t < last``; ``offset`` is where its arguments are, in words from the frame's start;
0 <= tasks < 2**31. A stage begins when the one before is complete.

A stage of more than one task is a *job* that the workers of the pool share in (see `job`).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from nnpack.codegen.compiler import ENTRY
from nnpack.frozen import dataclass
from nnpack.runtime.job import Job, emit_publish, emit_take_tasks, is_open_to
from nnpack.runtime.layout import (
    BUSY,
    DONE,
    MAX_WORKERS,
    SLOT_NUMBER,
    SLOT_POOL,
    STOP,
)
from nnpack.runtime.system import (
    emit_introduce,
    emit_push,
    emit_push_function,
    emit_push_late_workers,
)
from nnpack.runtime.waiting import (
    emit_await_tasks,
    emit_back_off,
    emit_report_tasks,
    emit_sleep,
    emit_wake,
)

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Value


@dataclass(frozen=True)
class RunFrame:
    """``void run(int64* pool, int64* frame, int64 threads)``: every stage of the frame, in order.

    With ``threads`` > 1 up to ``threads - 1`` workers of the pool help, unless the pool is busy;
    with ``threads`` <= 1 the pool is not touched and may be null. The calling thread is worker 0.
    """

    def emit(self, asm: Assembler) -> None:
        """Emit the function."""
        emit_push_function(asm)
        with asm.function(
            ENTRY, exported=True, pool="pointer", frame="pointer", threads="index"
        ) as (pool, frame, asked):
            threads = asm.minimum(asked, MAX_WORKERS + 1)
            owned = asm.local(1)
            asm.store_index(0, owned)
            with asm.when(threads > 1):
                _, won = asm.compare_exchange(pool, BUSY, 0, 1)
                asm.store_index(asm.select(won, 1, 0), owned)
            with asm.when(asm.load_index(owned).equals(0)):
                _emit_run_alone(asm, frame)
            with asm.when(asm.load_index(owned) > 0):
                _emit_run_shared(asm, pool, frame, threads)
                asm.atomic_store(0, pool, BUSY)


@dataclass(frozen=True)
class WorkerMain:
    """``void worker(int64* slot)``: take tasks of one job after another, until told to stop."""

    def emit(self, asm: Assembler) -> None:
        """Emit the function."""
        with asm.function(ENTRY, exported=True, slot="pointer") as (slot,):
            pool, worker = asm.load_pointer(slot, SLOT_POOL), asm.load_index(slot, SLOT_NUMBER)
            emit_introduce(asm, pool, slot)
            taken, seen, polls = asm.local(1), asm.local(1), asm.local(1)
            asm.store_index(0, seen)
            asm.store_index(0, polls)
            with asm.repeat() as serving:
                serving.stop_when(asm.atomic_load(pool, STOP) > 0)
                emit_take_tasks(asm, pool, worker, taken, seen)
                with asm.when(asm.load_index(taken) > 0):
                    emit_report_tasks(asm, pool, asm.load_index(taken))
                    asm.store_index(0, polls)
                with asm.when(asm.load_index(taken).equals(0)):
                    _emit_idle(asm, pool, worker, polls, seen)


@dataclass(frozen=True)
class StopWorkers:
    """``void stop(int64* pool)``: end all workers, unless a job is running.

    STOP tells whether it was done. If so the pool stays busy: later frames run alone.
    """

    def emit(self, asm: Assembler) -> None:
        """Emit the function."""
        with asm.function(ENTRY, exported=True, pool="pointer") as (pool,):
            _, won = asm.compare_exchange(pool, BUSY, 0, 1)
            with asm.when(won):
                asm.atomic_store(1, pool, STOP)
                emit_wake(asm, pool, asm.index(MAX_WORKERS + 1))


@dataclass(frozen=True)
class _Stage:
    """A stage as the frame has it."""

    function: Value
    arguments: Value
    tasks: Value

    @staticmethod
    def load(asm: Assembler, frame: Value, number: Value) -> _Stage:
        entry = asm.index_pointer(frame, number * 3 + 1)
        arguments = asm.index_pointer(frame, asm.load_index(entry, 2))
        return _Stage(asm.load_index(entry, 0), arguments, asm.load_index(entry, 1))

    def emit_call(self, asm: Assembler) -> None:
        """Emit all tasks, on the calling thread."""
        with asm.when(self.tasks > 0):
            asm.call_address(self.function, self.arguments, 0, self.tasks, 0)


def _emit_run_alone(asm: Assembler, frame: Value) -> None:
    with asm.loop(asm.load_index(frame)) as number:
        _Stage.load(asm, frame, number).emit_call(asm)


def _emit_run_shared(asm: Assembler, pool: Value, frame: Value, threads: Value) -> None:
    expected, taken, seen = asm.local(1), asm.local(1), asm.local(1)
    asm.store_index(0, seen)
    asm.store_index(asm.atomic_load(pool, DONE), expected)
    with asm.loop(asm.load_index(frame)) as number:
        stage = _Stage.load(asm, frame, number)
        with asm.when(stage.tasks <= 1):
            stage.emit_call(asm)
        with asm.when(stage.tasks > 1):
            helpful = asm.minimum(threads, stage.tasks)
            emit_publish(asm, pool, Job(stage.function, stage.arguments, stage.tasks, threads))
            emit_wake(asm, pool, helpful, functools.partial(emit_push, asm, pool))
            emit_take_tasks(asm, pool, asm.index(0), taken, seen)
            by_workers = stage.tasks - asm.load_index(taken)
            asm.store_index(asm.load_index(expected) + by_workers, expected)
            emit_await_tasks(asm, pool, asm.load_index(expected))
            with asm.when(by_workers.equals(0)):
                emit_push_late_workers(asm, pool, helpful)


def _emit_idle(asm: Assembler, pool: Value, worker: Value, polls: Value, seen: Value) -> None:
    """Emit what a worker does that has found nothing to do."""

    def has_work() -> Value:
        return is_open_to(asm, pool, worker, asm.load_index(seen))

    def sleep() -> None:
        emit_sleep(asm, pool, worker, has_work)
        asm.store_index(0, polls)

    emit_back_off(asm, pool, polls, sleep)
