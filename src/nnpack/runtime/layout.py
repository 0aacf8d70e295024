"""Where things lie in the memory that the calling thread and its workers share, in int64 words."""

from __future__ import annotations

LINE = 16
"""Words of the two cache lines that processors fetch together: what is apart lies so far apart."""

MAX_WORKERS = 255
GROUP = 32
"""Workers that share a futex: as many as its wake-up mask has bits."""

# The job, one line: every poll reads it, only the caller writes it.
TICKET, FUNCTION, ARGUMENTS, TASKS, THREADS, FLOAT_STATE, STOP = range(7)

# Tasks that workers have done since the pool was made (the low half is the futex of the caller),
# and whether the caller sleeps until there are more.
DONE, CALLER_SLEEPS = LINE, LINE + 1

# Whether a frame is being run; the clock's tick at the last push (see `system`).
BUSY, PUSHED = 2 * LINE, 2 * LINE + 1

# Addresses of functions in the C library.
SYSCALL, SCHED_YIELD, SCHED_GETCPU, CLOCK_GETTIME = range(3 * LINE, 3 * LINE + 4)

# Sets of processors, bit by bit: all that the last caller might use, and all but its own.
PROCESSOR_WORDS = 16
ALL_PROCESSORS = 4 * LINE
OTHER_PROCESSORS = ALL_PROCESSORS + PROCESSOR_WORDS

# A line for each group of workers: who sleeps (a bit each), and their futex.
_GROUPS = OTHER_PROCESSORS + PROCESSOR_WORDS
SLEEPERS, WAKE = _GROUPS, _GROUPS + 1

# For each worker, by its number: the pool's address, the number, and the kernel's name of the
# thread, 0 until it runs. The address of these words is the argument of the thread.
SLOT_WORDS = 3
SLOTS = _GROUPS + (MAX_WORKERS + GROUP) // GROUP * LINE
SLOT_POOL, SLOT_NUMBER, SLOT_THREAD = range(SLOT_WORDS)

# For each thread, a line of its own: which job it has shared in, and the next task of its share.
SHARES = (SLOTS + SLOT_WORDS * (MAX_WORKERS + 1) + LINE - 1) // LINE * LINE

POOL_WORDS = SHARES + LINE * (MAX_WORKERS + 1)
