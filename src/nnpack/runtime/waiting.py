"""How threads wait for each other: they poll, then give way at each poll, then sleep on a futex.

Each sleeper first announces itself and then looks once more; whoever changes something changes it
first and then looks for sleepers. Both are sequentially consistent, so one of the two sees the
other, and no wake-up is lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnpack.runtime.layout import (
    CALLER_SLEEPS,
    DONE,
    GROUP,
    LINE,
    SCHED_YIELD,
    SLEEPERS,
    STOP,
    WAKE,
)
from nnpack.runtime.system import emit_release, emit_system_call, members_below

if TYPE_CHECKING:
    from collections.abc import Callable

    from nnpack.codegen.assembler import Assembler, Index, Value

# A poll takes 20 to 50 ns, a poll that gives way about 0.5 us; in all some 75 us, which outlasts
# the Python between two layers. Sleeping and being woken costs 20 to 50 us.
_POLLS = 400
_YIELDS = 100

_FUTEX = (202, 98)
_FUTEX_WAIT, _FUTEX_WAKE, _FUTEX_WAIT_BITSET, _FUTEX_WAKE_BITSET = (128 | n for n in (0, 1, 9, 10))
_EVERYONE = (1 << 31) - 1
_LOW_HALF = (1 << 32) - 1


def emit_back_off(asm: Assembler, pool: Value, polls: Value, sleep: Callable[[], None]) -> None:
    """Emit what is done between two polls, which ``polls`` counts."""
    asm.pause()
    count = asm.load_index(polls) + 1
    asm.store_index(count, polls)
    with asm.when(count > _POLLS):
        asm.call_address(asm.load_index(pool, SCHED_YIELD), returns=True)
    with asm.when(count > _POLLS + _YIELDS):
        sleep()


def emit_sleep(asm: Assembler, pool: Value, worker: Value, has_work: Callable[[], Value]) -> None:
    """Emit: sleep until woken, unless there is work already or the pool has stopped.

    The futex is read before the worker's bit is set: who clears the bit counts the futex up
    afterwards, so a cleared bit and a futex that still waits exclude each other.
    """
    group = asm.index_pointer(pool, worker // GROUP * LINE)
    bit = asm.index(1) << (worker % GROUP)
    before = asm.atomic_load(group, WAKE)
    asm.atomic_or(bit, group, SLEEPERS)
    awake = has_work() | (asm.atomic_load(pool, STOP) > 0)
    with asm.when(awake.equals(0)):
        futex = asm.index_pointer(group, WAKE)
        _emit_futex(asm, pool, futex, _FUTEX_WAIT_BITSET, before & _LOW_HALF, bits=bit)
        emit_release(asm, pool)
    asm.atomic_and(-1 - bit, group, SLEEPERS)


def emit_wake(
    asm: Assembler,
    pool: Value,
    threads: Value,
    prepare: Callable[[Value, Value], None] | None = None,
) -> None:
    """Emit: wake the sleepers among the workers below ``threads``.

    ``prepare(group, called)`` emits what is done to those about to be woken: the group's number,
    and a bit for each of its workers.
    """
    with asm.loop(asm.ceil_div(threads, GROUP)) as number:
        group = asm.index_pointer(pool, number * LINE)
        called = asm.atomic_load(group, SLEEPERS) & members_below(asm, number, threads)
        with asm.when(called > 0):
            asm.atomic_and(-1 - called, group, SLEEPERS)
            if prepare is not None:
                prepare(number, called)
            asm.atomic_add(1, group, WAKE)
            futex = asm.index_pointer(group, WAKE)
            _emit_futex(asm, pool, futex, _FUTEX_WAKE_BITSET, _EVERYONE, bits=called)


def emit_await_tasks(asm: Assembler, pool: Value, expected: Value) -> None:
    """Emit: wait until the workers have done ``expected`` tasks in all."""
    polls = asm.local(1)
    asm.store_index(0, polls)

    def sleep() -> None:
        asm.atomic_store(1, pool, CALLER_SLEEPS)
        done = asm.atomic_load(pool, DONE)
        with asm.when(done < expected):
            futex = asm.index_pointer(pool, DONE)
            _emit_futex(asm, pool, futex, _FUTEX_WAIT, done & _LOW_HALF)
        asm.atomic_store(0, pool, CALLER_SLEEPS)

    with asm.repeat() as waiting:
        waiting.stop_when(asm.atomic_load(pool, DONE).equals(expected))
        emit_back_off(asm, pool, polls, sleep)


def emit_report_tasks(asm: Assembler, pool: Value, done: Value) -> None:
    """Emit: add to the tasks that workers have done, and wake the caller if it sleeps."""
    asm.atomic_add(done, pool, DONE)
    with asm.when(asm.atomic_load(pool, CALLER_SLEEPS) > 0):
        _emit_futex(asm, pool, asm.index_pointer(pool, DONE), _FUTEX_WAKE, 1)


def _emit_futex(
    asm: Assembler, pool: Value, word: Value, operation: int, number: Index, *, bits: Index = 0
) -> None:
    """Emit the system call on the low half of ``word`` (a little-endian i64)."""
    emit_system_call(asm, pool, _FUTEX, word, operation, number, 0, 0, bits)
