"""Linux system calls, and which processors the workers may use.

A scheduler may put a woken worker on the processor of the very thread that woke it, for that one
has seen work lately. There it waits while the caller does all the work, for many milliseconds
(measured: no help in the first 2 ms after a pause of 5 ms, with two idle processors). So the caller
*pushes* workers off its own processor before it wakes them, and when nobody has helped with a
stage; once awake they are free to run wherever the caller may.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnpack.runtime.layout import (
    ALL_PROCESSORS,
    CLOCK_GETTIME,
    GROUP,
    OTHER_PROCESSORS,
    PROCESSOR_WORDS,
    PUSHED,
    SCHED_GETCPU,
    SLOT_THREAD,
    SLOT_WORDS,
    SLOTS,
    SYSCALL,
)

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Value

# The numbers of system calls, on x86-64 and on the machines that came after it.
_GETTID, _SETAFFINITY, _GETAFFINITY = (186, 178), (203, 122), (204, 123)
_PROCESSOR_BYTES = 8 * PROCESSOR_WORDS
_CLOCK_MONOTONIC_COARSE = 6  # counts the scheduler's ticks, 1 to 10 ms; read in 5 ns
_LOW_HALF = (1 << 32) - 1

_PUSH = "push"


def emit_system_call(
    asm: Assembler, pool: Value, numbers: tuple[int, int], *arguments: Value | int
) -> Value:
    """Emit a system call, by its two numbers; returns what the C library does, -1 for failure."""
    number = numbers[0 if asm.target.triple.startswith("x86_64") else 1]
    return asm.call_address(asm.load_index(pool, SYSCALL), number, *arguments, returns=True)


def emit_introduce(asm: Assembler, pool: Value, slot: Value) -> None:
    """Emit: leave the kernel's name of this thread where it can be pushed by."""
    asm.atomic_store(emit_system_call(asm, pool, _GETTID), slot, SLOT_THREAD)


def emit_release(asm: Assembler, pool: Value) -> None:
    """Emit: let this worker, which may have been pushed, run wherever the last caller may."""
    processors = asm.index_pointer(pool, ALL_PROCESSORS)
    emit_system_call(asm, pool, _SETAFFINITY, 0, _PROCESSOR_BYTES, processors)


def emit_push_function(asm: Assembler) -> None:
    """Emit the function that `emit_push` calls: push the workers of a group whose bits are set.

    A caller bound to one processor leaves them where they are; to push a worker that is elsewhere
    already is harmless.
    """
    with asm.function(_PUSH, pool="pointer", group="index", members="index") as (
        pool,
        group,
        members,
    ):
        room = _emit_find_processors(asm, pool)
        with asm.when(room > 0), asm.loop(GROUP) as i:
            slot = asm.index_pointer(pool, (group * GROUP + i) * SLOT_WORDS + SLOTS)
            thread = asm.atomic_load(slot, SLOT_THREAD)
            with asm.when((((members >> i) & 1) > 0) & (thread > 0)):
                processors = asm.index_pointer(pool, OTHER_PROCESSORS)
                emit_system_call(asm, pool, _SETAFFINITY, thread, _PROCESSOR_BYTES, processors)


def emit_push(asm: Assembler, pool: Value, group: Value, members: Value) -> None:
    """Emit: push the workers of a group whose bits are set."""
    asm.call(_PUSH, pool, group, members)


def _emit_find_processors(asm: Assembler, pool: Value) -> Value:
    """Emit the two sets of processors; returns 1 when there are others than the caller's, or 0."""
    seen = asm.local(PROCESSOR_WORDS)
    with asm.loop(PROCESSOR_WORDS) as i:
        asm.store_index(0, seen, i)  # the kernel writes as many words as it has processors for
    known = emit_system_call(asm, pool, _GETAFFINITY, 0, _PROCESSOR_BYTES, seen)
    own = asm.call_address(asm.load_index(pool, SCHED_GETCPU), returns=True) & _LOW_HALF
    rest = {"any": asm.index(0)}
    with asm.loop(PROCESSOR_WORDS, carry=rest) as i:
        mine = asm.select((own >> 6).equals(i), asm.index(1) << (own & 63), 0)
        others = asm.load_index(seen, i) & (-1 - mine)
        asm.store_index(others, asm.index_pointer(pool, OTHER_PROCESSORS), i)
        rest["any"] = rest["any"] | others
    room = asm.select(_differ(rest["any"], 0) & (known > 0), 1, 0)
    with asm.when(room > 0), asm.loop(PROCESSOR_WORDS) as i:
        asm.store_index(asm.load_index(seen, i), asm.index_pointer(pool, ALL_PROCESSORS), i)
    return room


def emit_push_late_workers(asm: Assembler, pool: Value, threads: Value) -> None:
    """Emit, for a stage with which nobody helped: push the workers, at most once a tick."""
    time = asm.local(2)
    clock = asm.load_index(pool, CLOCK_GETTIME)
    asm.call_address(clock, _CLOCK_MONOTONIC_COARSE, time, returns=True)
    tick = asm.load_index(time, 1)  # of its second, but two ticks on end never agree
    with asm.when(_differ(tick, asm.load_index(pool, PUSHED))):
        asm.store_index(tick, pool, PUSHED)
        with asm.loop(asm.ceil_div(threads, GROUP)) as group:
            emit_push(asm, pool, group, members_below(asm, group, threads))


def members_below(asm: Assembler, group: Value, threads: Value) -> Value:
    """Return a bit for each worker of a group whose number is below ``threads``."""
    return (asm.index(1) << asm.minimum(threads - group * GROUP, GROUP)) - 1


def _differ(a: Value, b: Value | int) -> Value:
    return (a < b) | (a > b)
