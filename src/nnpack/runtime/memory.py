"""Recycled memory: workspaces, the pages of large results, and the addresses of arrays.

Fresh pages cost a fault each, which is more than half the time of a layer with a large result.
What comes back is therefore kept, up to a bound, and handed out again.

Nothing here takes a lock: blocks come back from ``__del__``, which may run at any point of any
thread, within these functions too. All that is shared are lists, whose ``append``, ``pop`` and
``clear`` are atomic, and a dictionary that only grows. A fork is no different from a pause: the
child has its own copy of every block.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import math
import mmap
import os
import pathlib
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

KIB = 1024
MIB = KIB * KIB
PAGE = 4 * KIB
HUGE_PAGE = 2 * MIB

SMALL_OUTPUT = 256 * KIB
"""Bytes below which the C library's own recycling is as good: it faults above 128 KiB and more."""


# Where Linux tells a container how many bytes it may have.
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@functools.cache
def _available_bytes() -> int:
    """Bytes of memory we may use; without end where the system does not tell."""
    available = sys.maxsize
    with contextlib.suppress(AttributeError, OSError, ValueError):
        available = min(available, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for path in _LIMITS:
        with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
            available = min(available, int(pathlib.Path(path).read_text(encoding="utf-8")))
    return available


def _memory_share(fraction: int, most: int) -> int:
    """Return 1/fraction of the bytes of memory we may use, at most ``most``."""
    return min(most, _available_bytes() // fraction)


class Block:
    """At least ``nbytes`` zeroed bytes of private pages of its own; huge ones when that fits.

    Starts on a page, on a huge page when there are any. The memory lives as long as the object.
    """

    __slots__ = ("address", "array", "home", "nbytes", "pages", "returned", "start")

    def __init__(self, nbytes: int, home: list[Block] | None = None) -> None:
        self.nbytes = nbytes
        self.home: list[Block] = [] if home is None else home
        self.returned = 0
        slack = HUGE_PAGE if nbytes >= HUGE_PAGE else 0  # never touched, hence never there
        self.pages = _map_pages(nbytes + slack)
        first = ctypes.addressof(ctypes.c_char.from_buffer(self.pages))
        self.start = -first % HUGE_PAGE if slack else 0
        self.address = first + self.start
        self.array = np.frombuffer(self.pages, np.uint8, nbytes, self.start)


def _map_pages(nbytes: int) -> mmap.mmap:
    try:
        if not hasattr(mmap, "MAP_PRIVATE"):
            return mmap.mmap(-1, nbytes)
        pages = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"no memory for {nbytes} bytes") from error
    if nbytes >= HUGE_PAGE and hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without huge pages
            pages.madvise(mmap.MADV_HUGEPAGE)
    return pages


# Idle blocks may exceed their bound by so many small ones, each at most 2^-9 of it.
_UNCOUNTED, _UNCOUNTED_BITS = 8, 9


class Recycler:
    """Blocks by size class, the last one returned first; about ``limit`` bytes lie idle at most."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._idle: dict[int, list[Block]] = {}
        self._clock = itertools.count(1)

    def take(self, nbytes: int) -> Block:
        """Return a block of ``nbytes``, which must be a size class, with any content.

        Raises MemoryError when the system has none, even without what lies idle here.
        """
        home = self._idle.get(nbytes)
        if home is None:
            home = self._idle.setdefault(nbytes, [])
        try:
            return home.pop()
        except IndexError:
            return self._make(nbytes, home)

    def _make(self, nbytes: int, home: list[Block]) -> Block:
        with contextlib.suppress(MemoryError):
            return Block(nbytes, home)
        self.clear()
        return Block(nbytes, home)

    def give(self, block: Block) -> None:
        """Take back a block that nobody uses any more."""
        if block.nbytes > self.limit:
            return
        block.returned = number = next(self._clock)
        block.home.append(block)
        # Counting takes as long as a small layer: of small blocks every eighth will do.
        large = block.nbytes > self.limit >> _UNCOUNTED_BITS
        if (large or not number % _UNCOUNTED) and self.idle_bytes() > self.limit:
            self._evict()

    def idle_bytes(self) -> int:
        """Bytes of all blocks that lie idle."""
        return sum(nbytes * len(blocks) for nbytes, blocks in list(self._idle.items()))

    def clear(self) -> None:
        """Free all blocks that lie idle."""
        for blocks in list(self._idle.values()):
            blocks.clear()

    def _evict(self) -> None:
        """Free the blocks that have been idle for longest, down to the limit."""
        while self.idle_bytes() > self.limit:
            ages = [(blocks[:1], blocks) for blocks in list(self._idle.values())]
            oldest = min((age for age in ages if age[0]), key=_idle_since, default=None)
            if oldest is None:
                return
            try:
                oldest[1].pop(0)
            except IndexError:  # another thread was first
                continue


def _idle_since(age: tuple[list[Block], list[Block]]) -> int:
    return age[0][0].returned


_workspaces = Recycler(_memory_share(16, 256 * MIB))
_outputs = Recycler(_memory_share(4, 1024 * MIB))


def borrow_workspace(nbytes: int) -> Block:
    """Return at least ``nbytes`` at ``.address``, 64-byte aligned, nobody else's until returned.

    The content is undefined. Sizes are powers of two, 64 KiB or more. A borrowed block that is
    dropped instead of returned is freed.
    """
    return _workspaces.take(max(1 << (nbytes - 1).bit_length(), 64 * KIB))


return_workspace: Callable[[Block], None] = _workspaces.give
"""Give back what `borrow_workspace` gave out; it must not be used afterwards."""


class _Lease(np.ndarray[Any, np.dtype[Any]]):
    """What a result array keeps alive: when the array and all its views are gone, so is this."""

    _block: Block | None = None  # none of what is made of a lease
    _give = _outputs.give  # held here, for the module may be gone before the last array

    def __del__(self) -> None:
        if self._block is not None:
            self._give(self._block)


_FLOAT32_TYPE, _INT64_TYPE = np.dtype(np.float32), np.dtype(np.int64)


def empty_output(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return an uninitialised, writable, C-contiguous array; large ones on recycled pages."""
    nbytes = 4 * math.prod(shape)
    if nbytes < SMALL_OUTPUT:
        return np.empty(shape, _FLOAT32_TYPE)
    return _leased(shape, _FLOAT32_TYPE, nbytes)


def empty_indices(shape: tuple[int, ...]) -> NDArray[np.int64]:
    """`empty_output`, of int64."""
    nbytes = 8 * math.prod(shape)
    if nbytes < SMALL_OUTPUT:
        return np.empty(shape, _INT64_TYPE)
    return _leased(shape, _INT64_TYPE, nbytes)


def _leased(shape: tuple[int, ...], dtype: np.dtype[Any], nbytes: int) -> NDArray[Any]:
    block = _outputs.take(size_class(nbytes))
    # Of the pages, for views of an array of another array are views of that.
    lease = _Lease(shape, dtype, block.pages, block.start)
    lease._block = block
    return lease.view(np.ndarray)


@functools.lru_cache(maxsize=1024)
def size_class(nbytes: int) -> int:
    """Return the least multiple of an eighth of a power of two, and of a page, >= ``nbytes``.

    Shapes that differ a little so share their blocks, at the cost of an eighth of the memory.
    """
    step = max(1 << max((nbytes - 1).bit_length() - 4, 0), PAGE)
    return -(-nbytes // step) * step


def trim() -> None:
    """Free all memory that is kept for later: workspaces and the pages of former results."""
    _workspaces.clear()
    _outputs.clear()


# An ndarray begins with the object header, then its data pointer: part of NumPy's binary interface,
# and six times as fast as asking the array (0.16 us against 1.0 us).
DATA_OFFSET = object.__basicsize__
_word_at = ctypes.c_ssize_t.from_address


def _address_by_layout(array: NDArray[Any]) -> int:
    return _word_at(id(array) + DATA_OFFSET).value


def _address_by_asking(array: NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])


def _choose_address() -> Callable[[NDArray[Any]], int]:
    """Return the fast way where it agrees with the documented one: on CPython as it is today."""
    samples = [np.empty(n, np.float32)[n // 2 :] for n in (0, 3, 100)]
    if all(_address_by_layout(a) == _address_by_asking(a) for a in samples):
        return _address_by_layout
    return _address_by_asking


address: Callable[[NDArray[Any]], int] = _choose_address()
"""The address of an array's first element, of any array: read-only, empty, strided."""


def address_is_in_layout() -> bool:
    """Whether the address of an array is the word ``DATA_OFFSET`` bytes behind its own."""
    return address is _address_by_layout
