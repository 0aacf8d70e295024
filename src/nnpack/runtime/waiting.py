"""How threads wait for each other: they poll, then give way at each poll, then sleep on a futex.

Each sleeper first announces itself and then looks once more; whoever changes something changes it
first and then looks for sleepers. Both are sequentially consistent, so one of the two sees the
other, and no wake-up is lost.

*Pushing.* A scheduler may put a woken worker on the processor of the very thread that woke it, for
that one has seen work lately. There it waits while the caller does all the work, for many
milliseconds (measured: no help in the first 2 ms after a pause of 5 ms, on two idle processors).
So the workers are kept from the caller's processor while they are woken, and when nobody has helped
with a stage; once awake they are free to run wherever the caller may.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from nnpack.runtime.layout import (
    ALL_PROCESSORS,
    CALLER_SLEEPS,
    CLOCK_GETTIME,
    DONE,
    GROUP,
    LINE,
    OTHER_PROCESSORS,
    PROCESSOR_WORDS,
    PUSHED,
    SCHED_GETCPU,
    SCHED_YIELD,
    SLEEPERS,
    SLOT_THREAD,
    SLOT_WORDS,
    SLOTS,
    STOP,
    SYSCALL,
    WAKE,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nnpack.codegen.assembler import Assembler, Index, Value

# A poll takes 20 to 50 ns, a poll that gives way about 0.5 us; in all some 75 us, which outlasts
# the Python between two layers. Sleeping and being woken costs 20 to 50 us.
_POLLS = 400
_YIELDS = 100

# Linux: the numbers of system calls on x86-64, and on the machines that came after it.
_FUTEX, _GETTID, _SETAFFINITY, _GETAFFINITY = (202, 98), (186, 178), (203, 122), (204, 123)
_FUTEX_WAIT, _FUTEX_WAKE, _FUTEX_WAIT_BITSET, _FUTEX_WAKE_BITSET = (128 | n for n in (0, 1, 9, 10))
_CLOCK_MONOTONIC_COARSE = 6  # counts the scheduler's ticks, 1 to 10 ms; read in 5 ns
_EVERYONE = (1 << 31) - 1
_LOW_HALF = (1 << 32) - 1
_PROCESSOR_BYTES = 8 * PROCESSOR_WORDS


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
        processors = asm.index_pointer(pool, ALL_PROCESSORS)
        _emit_system_call(asm, pool, _SETAFFINITY, 0, _PROCESSOR_BYTES, processors)
    asm.atomic_and(-1 - bit, group, SLEEPERS)


def emit_wake(asm: Assembler, pool: Value, threads: Value) -> None:
    """Emit: wake the sleepers among the workers below ``threads``, away from this processor."""
    with asm.loop(asm.ceil_div(threads, GROUP)) as number:
        group = asm.index_pointer(pool, number * LINE)
        count = asm.minimum(threads - number * GROUP, GROUP)
        called = asm.atomic_load(group, SLEEPERS) & ((asm.index(1) << count) - 1)
        with asm.when(called > 0):
            asm.atomic_and(-1 - called, group, SLEEPERS)
            with _when_there_is_room(asm, pool), asm.loop(count) as i:
                with asm.when(((called >> i) & 1) > 0):
                    _emit_push(asm, pool, number * GROUP + i)
            asm.atomic_add(1, group, WAKE)
            futex = asm.index_pointer(group, WAKE)
            _emit_futex(asm, pool, futex, _FUTEX_WAKE_BITSET, _EVERYONE, bits=called)


def emit_push_late_workers(asm: Assembler, pool: Value, threads: Value) -> None:
    """Emit, for a stage with which nobody helped: push the workers, at most once a tick."""
    time = asm.local(2)
    clock = asm.load_index(pool, CLOCK_GETTIME)
    asm.call_address(clock, _CLOCK_MONOTONIC_COARSE, time, returns=True)
    tick = asm.load_index(time, 1)  # of its second, but two ticks on end never agree
    with asm.when(_differ(tick, asm.load_index(pool, PUSHED))):
        asm.store_index(tick, pool, PUSHED)
        with _when_there_is_room(asm, pool), asm.loop(threads, start=1) as worker:
            _emit_push(asm, pool, worker)


@contextmanager
def _when_there_is_room(asm: Assembler, pool: Value) -> Iterator[None]:
    """Emit the sets of processors; the body runs when there are others than the caller's.

    A caller bound to one processor so leaves the workers where they are.
    """
    seen = asm.local(PROCESSOR_WORDS)
    with asm.loop(PROCESSOR_WORDS) as i:
        asm.store_index(0, seen, i)  # the kernel writes as many words as it has processors for
    known = _emit_system_call(asm, pool, _GETAFFINITY, 0, _PROCESSOR_BYTES, seen)
    own = asm.call_address(asm.load_index(pool, SCHED_GETCPU), returns=True) & _LOW_HALF
    room = {"others": asm.index(0)}
    with asm.loop(PROCESSOR_WORDS, carry=room) as i:
        word = asm.load_index(seen, i)
        mine = asm.select((own >> 6).equals(i), asm.index(1) << (own & 63), 0)
        others = word & (-1 - mine)
        asm.store_index(others, asm.index_pointer(pool, OTHER_PROCESSORS), i)
        room["others"] = room["others"] | others
    with asm.when((known > 0) & _differ(room["others"], 0)):
        with asm.loop(PROCESSOR_WORDS) as i:
            word = asm.load_index(seen, i)
            asm.store_index(word, asm.index_pointer(pool, ALL_PROCESSORS), i)
        yield


def _emit_push(asm: Assembler, pool: Value, worker: Value) -> None:
    """Emit: take a worker off the caller's processor. To push one that is not there is harmless."""
    slot = asm.index_pointer(pool, worker * SLOT_WORDS + SLOTS)
    thread = asm.atomic_load(slot, SLOT_THREAD)
    with asm.when(thread > 0):
        processors = asm.index_pointer(pool, OTHER_PROCESSORS)
        _emit_system_call(asm, pool, _SETAFFINITY, thread, _PROCESSOR_BYTES, processors)


def emit_introduce(asm: Assembler, pool: Value, slot: Value) -> None:
    """Emit: leave the kernel's name of this thread where it can be pushed by."""
    asm.atomic_store(_emit_system_call(asm, pool, _GETTID), slot, SLOT_THREAD)


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
    _emit_system_call(asm, pool, _FUTEX, word, operation, number, 0, 0, bits)


def _emit_system_call(
    asm: Assembler, pool: Value, numbers: tuple[int, int], *arguments: Value | int
) -> Value:
    number = numbers[0 if asm.target.triple.startswith("x86_64") else 1]
    return asm.call_address(asm.load_index(pool, SYSCALL), number, *arguments, returns=True)


def _differ(a: Value, b: Index) -> Value:
    return (a < b) | (a > b)
