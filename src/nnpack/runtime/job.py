"""One stage being shared out among threads.

*Job*: a ticket, which is its generation, odd while it is open, and a descriptor of the stage. The
descriptor is written only while the ticket is even. Both are written by the caller alone.

*Shares*: thread t of T has the tasks from ``t * tasks // T`` on, so that it meets the same part of
the same arrays in each run, which its cache may still have; who is done takes of the others. A
share is one word, ``generation << 31 | tasks taken``, from which tasks are taken by compare-and-
exchange; under another generation than the ticket's nobody has taken any.

Whoever comes late finds nothing rather than the wrong thing. He reads the ticket, the descriptor, a
share, and the ticket again. If that has not changed, the descriptor and the share belong to it or
the share to one before; if then the exchange succeeds, a task was left, so that the job is not
complete yet and its descriptor stands. Of the generation a share has 32 bits: to be deceived, a
thread would have to stand still before its exchange for exactly a multiple of 2**31 stages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnpack.frozen import dataclass
from nnpack.runtime.layout import (
    ARGUMENTS,
    FLOAT_STATE,
    FUNCTION,
    LINE,
    SHARES,
    TASKS,
    THREADS,
    TICKET,
)

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Value

_TASK_BITS = 31
_TASK_MASK = (1 << _TASK_BITS) - 1
_GENERATION_MASK = (1 << 32) - 1


@dataclass(frozen=True)
class Job:
    """The descriptor: what to call for ``tasks`` tasks, on at most so many threads."""

    function: Value
    arguments: Value
    tasks: Value
    threads: Value


def emit_publish(asm: Assembler, pool: Value, job: Job) -> None:
    """Emit: close the ticket, describe the job, open the ticket under a new generation.

    Release order suffices within: who sees a part of the descriptor sees the ticket closed.
    The last store must not pass the look for sleepers that follows.
    """
    # Open since the job before, or never.
    ticket = asm.atomic_load(pool, TICKET) | 1
    asm.atomic_store(ticket + 1, pool, TICKET, order="release")
    asm.atomic_store(job.function, pool, FUNCTION, order="release")
    asm.atomic_store(job.arguments, pool, ARGUMENTS, order="release")
    asm.atomic_store(job.tasks, pool, TASKS, order="release")
    asm.atomic_store(job.threads, pool, THREADS, order="release")
    asm.atomic_store(asm.float_state(), pool, FLOAT_STATE, order="release")
    asm.atomic_store(ticket + 2, pool, TICKET)


def is_open_to(asm: Assembler, pool: Value, worker: Value, seen: Value) -> Value:
    """Whether there is a job with a place for ``worker``, other than the one it has ``seen``."""
    ticket = asm.atomic_load(pool, TICKET)
    is_new = (ticket & 1).equals(1) & ticket.equals(seen).equals(0)
    return is_new & (worker < asm.atomic_load(pool, THREADS))


def emit_take_tasks(asm: Assembler, pool: Value, worker: Value, taken: Value, seen: Value) -> None:
    """Emit: do tasks of the open job until none is left; how many they were goes to ``taken``.

    ``seen`` holds the ticket this thread has looked at last.
    """
    asm.store_index(0, taken)
    ticket = asm.atomic_load(pool, TICKET)
    with asm.when((ticket & 1).equals(1) & ticket.equals(asm.load_index(seen)).equals(0)):
        asm.store_index(ticket, seen)
        job = Job(*(asm.atomic_load(pool, word) for word in (FUNCTION, ARGUMENTS, TASKS, THREADS)))
        state = asm.atomic_load(pool, FLOAT_STATE)
        shares = asm.minimum(job.threads, job.tasks)
        with asm.when((worker < job.threads) & (shares > 0)):
            with asm.loop(shares) as step:
                owner = (worker + step) % shares
                first, end = (n * job.tasks // shares for n in (owner, owner + 1))
                share = asm.index_pointer(pool, owner * LINE + SHARES)
                with asm.repeat() as tasks_left:
                    word = asm.atomic_load(share)
                    begun = (word >> _TASK_BITS).equals(ticket & _GENERATION_MASK)
                    begin = first + asm.select(begun, word & _TASK_MASK, 0)
                    left = end - begin
                    open_still = asm.atomic_load(pool, TICKET).equals(ticket)
                    tasks_left.stop_when((left <= 0) | open_still.equals(0))
                    # Half of what is left: few exchanges at first, an even end.
                    turn = asm.maximum(left // 2, 1)
                    generation = (ticket & _GENERATION_MASK) << _TASK_BITS
                    after = generation | (begin - first + turn)
                    _, won = asm.compare_exchange(share, 0, word, after)
                    with asm.when(won):
                        _emit_adopt(asm, state)
                        asm.call_address(job.function, job.arguments, begin, begin + turn, worker)
                        asm.store_index(asm.load_index(taken) + turn, taken)


def _emit_adopt(asm: Assembler, state: Value) -> None:
    """Emit: compute with the caller's rounding and denormals, so that results never differ."""
    ours = asm.float_state()
    with asm.when((ours < state) | (ours > state)):
        asm.set_float_state(state)
