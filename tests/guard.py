"""Arrays that end, or begin, at a page nobody may touch, and children that may crash on it."""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import math
import mmap
import os
import resource
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Side = Literal["before", "after"]

_PAGE = mmap.PAGESIZE
_PROT_NONE = 0


def guarded_array(
    shape: int | tuple[int, ...], side: Side, dtype: npt.DTypeLike = np.float32
) -> npt.NDArray[Any]:
    """Return a C-contiguous array of zeros next to a page that may be neither read nor written.

    With ``side="after"`` the byte behind its last one is the first of that page, with ``"before"``
    the byte ahead of its first one is the last of it. The far side is guarded too, up to a page
    away. Memory is released with the last view of the array.
    """
    count = math.prod(shape if isinstance(shape, tuple) else (shape,))
    size = count * np.dtype(dtype).itemsize
    pages = max(1, math.ceil(size / _PAGE))
    memory = mmap.mmap(-1, (pages + 2) * _PAGE)
    _protect(memory, 0)
    _protect(memory, (pages + 1) * _PAGE)
    start = _PAGE if side == "before" else (pages + 1) * _PAGE - size
    return np.frombuffer(memory, dtype, count, start).reshape(shape)


def guarded_copy(array: npt.NDArray[Any], side: Side) -> npt.NDArray[Any]:
    """Return a C-contiguous copy of ``array`` next to a guard page, as ``guarded_array`` does."""
    copy = guarded_array(array.shape, side, array.dtype)
    copy[...] = array
    return copy


def run_guarded(function: Callable[[], object], *, seconds: int = 60, quiet: bool = False) -> int:
    """Run ``function`` in a forked child and return its exit status.

    0: it returned. 1: it raised, and the traceback is on stderr. ``-signal.SIGSEGV`` or
    ``-signal.SIGBUS``: it touched a guard page. ``-signal.SIGALRM``: it took longer than
    ``seconds``. ``quiet`` keeps a crash that is expected from printing where it happened.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        # The child runs one function and leaves through _exit: it takes no lock of another thread.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        _run_and_exit(function, seconds, quiet)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def _run_and_exit(function: Callable[[], object], seconds: int, quiet: bool) -> None:
    status = 1
    try:
        gc.freeze()  # what is the parent's is neither collected nor copied here
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(seconds)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if quiet:
            faulthandler.disable()
        function()
        status = 0
    except BaseException:
        if not quiet:
            traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _protect(memory: mmap.mmap, offset: int) -> None:
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory, offset))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(_PAGE), ctypes.c_int(_PROT_NONE)):
        raise OSError(ctypes.get_errno(), "mprotect")
