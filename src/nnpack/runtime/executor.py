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

*Waiting*: everybody polls for a while, then gives way at each poll, then sleeps on a futex. Each
sleeper first announces itself and then looks once more; whoever changes something changes it first
and then looks for sleepers. Both are sequentially consistent, so one of the two sees the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nnpack.codegen.compiler import ENTRY

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Index, Value
    from nnpack.codegen.target import Target

LINE = 16
"""Words of the two cache lines that processors fetch together: what is apart lies so far apart."""

MAX_WORKERS = 255
GROUP = 32
"""Workers of one futex: as many as its wake-up mask has bits."""

GROUPS = (MAX_WORKERS + GROUP) // GROUP

# Words of the pool. The first line is read by every poll, and written by whoever takes tasks.
TICKET, FUNCTION, ARGUMENTS, TASKS, THREADS, FLOAT_STATE, STOP = range(7)
# Tasks that workers have done since the pool was made; whether the caller sleeps until there are
# more. The low half of DONE is the caller's futex.
DONE, CALLER_SLEEPS = LINE, LINE + 1
BUSY = 2 * LINE
SYSCALL, SCHED_YIELD = 3 * LINE, 3 * LINE + 1  # addresses in the C library
# A line for each group of workers: who sleeps (a bit each), and their futex.
SLEEPERS, WAKE = 4 * LINE, 4 * LINE + 1
# Two words for each worker, which are the argument of its thread: the pool and the index.
SLOTS = (4 + GROUPS) * LINE
POOL_WORDS = SLOTS + 2 * (MAX_WORKERS + 1)

_TASK_BITS = 31
_CLOSED = (1 << _TASK_BITS) - 1  # no task is left, whatever the descriptor says

# A poll takes 20 to 50 ns, a poll that gives way about 0.4 us; in all some 60 us, which outlasts
# the Python between two layers. Sleeping and being woken costs 5 to 50 us.
_POLLS = 400
_YIELDS = 100

_FUTEX_WAIT, _FUTEX_WAKE, _FUTEX_WAIT_BITSET, _FUTEX_WAKE_BITSET = (128 | n for n in (0, 1, 9, 10))
_EVERYONE = (1 << 31) - 1
_LOW_HALF = (1 << 32) - 1


@dataclass(frozen=True)
class RunFrame:
    """``void run(int64* pool, int64* frame, int64 threads)``: every stage of the frame, in order.

    With ``threads`` > 1 up to ``threads - 1`` workers of the pool help, unless the pool is busy;
    with ``threads`` <= 1 the pool is not touched and may be null. The calling thread is worker 0.
    """

    def emit(self, asm: Assembler) -> None:
        """Emit the function."""
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
            pool, worker = asm.load_pointer(slot), asm.load_index(slot, 1)
            taken, polls = asm.local(1), asm.local(1)
            asm.store_index(0, polls)
            with asm.repeat() as serving:
                serving.stop_when(asm.atomic_load(pool, STOP) > 0)
                _emit_take_tasks(asm, pool, worker, taken)
                with asm.when(asm.load_index(taken) > 0):
                    _emit_report(asm, pool, taken)
                    asm.store_index(0, polls)
                with asm.when(asm.load_index(taken).equals(0)):
                    _emit_back_off(asm, pool, polls)
                    with asm.when(asm.load_index(polls) > _POLLS + _YIELDS):
                        _emit_sleep(asm, pool, worker)
                        asm.store_index(0, polls)


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
                _emit_wake(asm, pool, asm.index(MAX_WORKERS + 1))


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
            _emit_publish(asm, pool, stage, threads)
            _emit_wake(asm, pool, asm.minimum(threads, stage.tasks))
            _emit_take_tasks(asm, pool, asm.index(0), taken)
            by_workers = stage.tasks - asm.load_index(taken)
            asm.store_index(asm.load_index(expected) + by_workers, expected)
            _emit_await_workers(asm, pool, asm.load_index(expected))


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


def _emit_report(asm: Assembler, pool: Value, taken: Value) -> None:
    """Emit: add to the tasks done, and wake the caller if it sleeps until they are."""
    asm.atomic_add(asm.load_index(taken), pool, DONE)
    with asm.when(asm.atomic_load(pool, CALLER_SLEEPS) > 0):
        _emit_futex(asm, pool, asm.index_pointer(pool, DONE), _FUTEX_WAKE, 1)


def _emit_await_workers(asm: Assembler, pool: Value, expected: Value) -> None:
    """Emit: wait until the workers that took tasks have done them."""
    polls = asm.local(1)
    asm.store_index(0, polls)
    with asm.repeat() as waiting:
        waiting.stop_when(asm.atomic_load(pool, DONE).equals(expected))
        _emit_back_off(asm, pool, polls)
        with asm.when(asm.load_index(polls) > _POLLS + _YIELDS):
            asm.atomic_store(1, pool, CALLER_SLEEPS)
            done = asm.atomic_load(pool, DONE)
            with asm.when(done < expected):
                futex = asm.index_pointer(pool, DONE)
                _emit_futex(asm, pool, futex, _FUTEX_WAIT, done & _LOW_HALF)
            asm.atomic_store(0, pool, CALLER_SLEEPS)


def _emit_back_off(asm: Assembler, pool: Value, polls: Value) -> None:
    """Emit the pause between two polls, and their count; the later ones give way to others."""
    asm.pause()
    count = asm.load_index(polls) + 1
    asm.store_index(count, polls)
    with asm.when(count > _POLLS):
        asm.call_address(asm.load_index(pool, SCHED_YIELD), returns=True)


def _emit_group(asm: Assembler, pool: Value, group: Value) -> Value:
    """Emit the address of a group's line, from which SLEEPERS and WAKE count."""
    return asm.index_pointer(pool, group * LINE)


def _emit_sleep(asm: Assembler, pool: Value, worker: Value) -> None:
    """Emit: sleep until woken for a job, unless there is one already.

    The futex is read before the worker's bit is set: who clears the bit counts the futex up
    afterwards, so a cleared bit and a futex that still waits exclude each other.
    """
    group = _emit_group(asm, pool, worker // GROUP)
    bit = asm.index(1) << (worker % GROUP)
    before = asm.atomic_load(group, WAKE)
    asm.atomic_or(bit, group, SLEEPERS)
    _, remaining = _emit_look(asm, pool)
    idle = (remaining <= 0) | (worker >= asm.atomic_load(pool, THREADS))
    with asm.when(idle & asm.atomic_load(pool, STOP).equals(0)):
        futex = asm.index_pointer(group, WAKE)
        _emit_futex(asm, pool, futex, _FUTEX_WAIT_BITSET, before & _LOW_HALF, bits=bit)
    asm.atomic_and(_complement(asm, bit), group, SLEEPERS)


def _emit_wake(asm: Assembler, pool: Value, threads: Value) -> None:
    """Emit: wake the sleepers among the workers below ``threads``, with a call for each group."""
    with asm.loop(asm.ceil_div(threads, GROUP)) as number:
        group = _emit_group(asm, pool, number)
        count = asm.minimum(threads - number * GROUP, GROUP)
        wanted = (asm.index(1) << count) - 1
        called = asm.atomic_load(group, SLEEPERS) & wanted
        with asm.when(called > 0):
            asm.atomic_and(_complement(asm, called), group, SLEEPERS)
            asm.atomic_add(1, group, WAKE)
            futex = asm.index_pointer(group, WAKE)
            _emit_futex(asm, pool, futex, _FUTEX_WAKE_BITSET, _EVERYONE, bits=called)


def _complement(asm: Assembler, bits: Value) -> Value:
    return asm.index(-1) - bits


def _emit_futex(
    asm: Assembler, pool: Value, word: Value, operation: int, number: Index, *, bits: Index = 0
) -> None:
    """Emit the Linux system call on the low half of ``word`` (a little-endian i64)."""
    call = asm.load_index(pool, SYSCALL)
    futex = _futex_number(asm.target)
    asm.call_address(call, futex, word, operation, number, 0, 0, bits, returns=True)


def _futex_number(target: Target) -> int:
    """Return the number of the system call: x86-64 has its own, later machines share one."""
    return 202 if target.triple.startswith("x86_64") else 98
