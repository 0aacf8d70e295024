"""The native walk over the stages of a frame, shared out to workers that never leave native code.

*Frame*: int64 words ``[stages, (function, tasks, offset) * stages, ...]``. ``function`` is the
address of ``void stage(int64* arguments, int64 first, int64 last, int64 worker)``, which does the
tasks ``first <= t < last``; ``offset`` is where its arguments are, in words from the frame's start;
0 <= tasks < 2**31. A stage begins when the one before is complete.

*Job*: one stage being shared out. It lies in the pool's first line: a ticket and a descriptor.
The ticket is one word, ``generation << 31 | next task``, and tasks are taken by adding to it with
compare-and-exchange. The descriptor is written only while the ticket is CLOSED, under a generation
of its own, so a compare-and-exchange that succeeds proves that the descriptor read before it
belongs to that ticket; what is read while it changes is thrown away. The generation wraps after
2**33 steps, two a stage: to be deceived, a thread would have to stand still between its read and
its exchange for exactly a multiple of 2**32 stages, more than a quarter of an hour of nothing but
empty ones.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from nnpack.codegen.compiler import ENTRY
from nnpack.frozen import dataclass
from nnpack.runtime.layout import (
    ARGUMENTS,
    BUSY,
    DONE,
    FLOAT_STATE,
    FUNCTION,
    MAX_WORKERS,
    SLOT_NUMBER,
    SLOT_POOL,
    STOP,
    TASKS,
    THREADS,
    TICKET,
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

_TASK_BITS = 31
_CLOSED = (1 << _TASK_BITS) - 1  # no task is left, whatever the descriptor says


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
            taken, polls = asm.local(1), asm.local(1)
            asm.store_index(0, polls)
            with asm.repeat() as serving:
                serving.stop_when(asm.atomic_load(pool, STOP) > 0)
                _emit_take_tasks(asm, pool, worker, taken)
                with asm.when(asm.load_index(taken) > 0):
                    emit_report_tasks(asm, pool, asm.load_index(taken))
                    asm.store_index(0, polls)
                with asm.when(asm.load_index(taken).equals(0)):
                    _emit_idle(asm, pool, worker, polls)


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
    expected, taken = asm.local(1), asm.local(1)
    asm.store_index(asm.atomic_load(pool, DONE), expected)
    with asm.loop(asm.load_index(frame)) as number:
        stage = _Stage.load(asm, frame, number)
        with asm.when(stage.tasks <= 1):
            stage.emit_call(asm)
        with asm.when(stage.tasks > 1):
            helpful = asm.minimum(threads, stage.tasks)
            _emit_publish(asm, pool, stage, threads)
            emit_wake(asm, pool, helpful, functools.partial(emit_push, asm, pool))
            _emit_take_tasks(asm, pool, asm.index(0), taken)
            by_workers = stage.tasks - asm.load_index(taken)
            asm.store_index(asm.load_index(expected) + by_workers, expected)
            emit_await_tasks(asm, pool, asm.load_index(expected))
            with asm.when(by_workers.equals(0)):
                emit_push_late_workers(asm, pool, helpful)


def _emit_publish(asm: Assembler, pool: Value, stage: _Stage, threads: Value) -> None:
    """Emit: close the ticket, describe the stage, open the ticket under a new generation.

    Release order suffices within: who sees a part of the descriptor sees the ticket closed.
    The last store must not pass the look for sleepers that follows.
    """
    generation = asm.atomic_load(pool, TICKET) >> _TASK_BITS
    closed = ((generation + 1) << _TASK_BITS) | _CLOSED
    asm.atomic_store(closed, pool, TICKET, order="release")
    asm.atomic_store(stage.function, pool, FUNCTION, order="release")
    asm.atomic_store(stage.arguments, pool, ARGUMENTS, order="release")
    asm.atomic_store(stage.tasks, pool, TASKS, order="release")
    asm.atomic_store(threads, pool, THREADS, order="release")
    asm.atomic_store(asm.float_state(), pool, FLOAT_STATE, order="release")
    asm.atomic_store((generation + 2) << _TASK_BITS, pool, TICKET)


def _emit_idle(asm: Assembler, pool: Value, worker: Value, polls: Value) -> None:
    """Emit what a worker does that has found nothing to do."""

    def has_work() -> Value:
        _, remaining = _emit_look(asm, pool)
        return (remaining > 0) & (worker < asm.atomic_load(pool, THREADS))

    def sleep() -> None:
        emit_sleep(asm, pool, worker, has_work)
        asm.store_index(0, polls)

    emit_back_off(asm, pool, polls, sleep)


def _emit_take_tasks(asm: Assembler, pool: Value, worker: Value, taken: Value) -> None:
    """Emit: do tasks of the open job until none is left; how many they were goes to ``taken``.

    A turn is a share of half of what is left: few exchanges at first, an even end.
    """
    asm.store_index(0, taken)
    with asm.repeat() as tasks_left:
        ticket, remaining = _emit_look(asm, pool)
        threads = asm.atomic_load(pool, THREADS)
        function = asm.atomic_load(pool, FUNCTION)
        arguments = asm.atomic_load(pool, ARGUMENTS)
        state = asm.atomic_load(pool, FLOAT_STATE)
        tasks_left.stop_when((remaining <= 0) | (worker >= threads))
        turn = asm.maximum(remaining // (threads * 2), 1)
        _, won = asm.compare_exchange(pool, TICKET, ticket, ticket + turn)
        with asm.when(won):
            _emit_adopt(asm, state)
            first = ticket & _CLOSED
            asm.call_address(function, arguments, first, first + turn, worker)
            asm.store_index(asm.load_index(taken) + turn, taken)


def _emit_look(asm: Assembler, pool: Value) -> tuple[Value, Value]:
    """Emit a look at the job: (ticket, tasks left, not positive when the job is closed)."""
    ticket = asm.atomic_load(pool, TICKET)
    return ticket, asm.atomic_load(pool, TASKS) - (ticket & _CLOSED)


def _emit_adopt(asm: Assembler, state: Value) -> None:
    """Emit: compute with the caller's rounding and denormals, so that results never differ."""
    ours = asm.float_state()
    with asm.when((ours < state) | (ours > state)):
        asm.set_float_state(state)
