"""Threads of calls: as many as PyTorch may use, while PyTorch's own are out of the way.

After each parallel operation the threads of OpenMP spin for milliseconds (GNU's: 300,000 times
round a pause), waiting for the next one. Where all cores are asked for they take turns with our
workers, which halves the speed of a convolution that follows, say, an activation. OpenMP 5.0 can
give its threads back (``omp_pause_resource_all``); PyTorch's next parallel operation makes them
again: in 60 us, on a busy machine in 2 ms. A step of ResNet-18, 16 images on 2 cores, takes 570 ms
so and 710 without; one of MobileNet-v2, 8 images of 128x128, 91 ms, and 122 where calls of less
than a millisecond leave OpenMP's threads alone. The smallest calls do.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable

import torch

import nnpack

__all__ = ["WORK_PER_FLOAT", "num_threads", "release_openmp_threads", "take_threads"]

_OMP_PAUSE_SOFT = 1
_LARGE = 200_000_000
"""Multiply-adds before which OpenMP's threads go, however many there are: 2 ms on two cores."""
_PER_PAIR = 2_000_000
"""Before which they go for each pair of threads: the more there are, the longer takes making them
again, and the shorter the call. Two cores take some 20 us for it."""
WORK_PER_FLOAT = 64
"""Multiply-adds in the time that a float takes to be read from memory and another to be written."""


def num_threads() -> int:
    """No more threads than PyTorch may use, and no more than the library may."""
    return min(int(torch.get_num_threads()), nnpack.get_num_threads())


def take_threads(work: int) -> int:
    """`num_threads`; for a call of much ``work``, in multiply-adds, OpenMP's threads are gone."""
    count = num_threads()
    if count > 1 and work >= min(_LARGE, _PER_PAIR * count * (count - 1) // 2):
        release_openmp_threads()
    return count


def release_openmp_threads() -> None:
    """End the threads that OpenMP keeps for this one; 0.2 us if there are none."""
    _pause()(_OMP_PAUSE_SOFT)


@functools.cache
def _pause() -> Callable[[int], object]:
    """``omp_pause_resource_all`` of the runtime that PyTorch is linked with, if it is that new."""
    try:
        # PyTorch loads its dependencies for all to see.
        return ctypes.CDLL(None).omp_pause_resource_all
    except (AttributeError, OSError, TypeError):
        return lambda _: None
