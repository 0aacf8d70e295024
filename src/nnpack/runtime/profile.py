"""Profiles: how long each phase of a layer took, from the cycle counter inside the kernels."""

from __future__ import annotations

import ctypes
import functools
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from nnpack.codegen.compiler import ENTRY, compile_kernel
from nnpack.codegen.target import Target
from nnpack.frozen import dataclass

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler

_CALIBRATION_SECONDS = 0.01


@dataclass(frozen=True)
class Profile:
    """One profiled run: ``seconds`` by the clock, and in each phase, summed over the threads.

    What is in no phase is the start of tasks and waiting. ``str()`` is a table.
    """

    seconds: float
    phases: Mapping[str, float]

    def __str__(self) -> str:
        rows = [*self.phases.items(), ("whole run", self.seconds)]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name.ljust(width)}  {1e3 * value:9.3f} ms" for name, value in rows)


@dataclass(frozen=True)
class ReadCounter:
    """``*word = cycle counter``."""

    def emit(self, asm: Assembler) -> None:
        """Emit the function."""
        with asm.function(ENTRY, exported=True, word="pointer") as (word,):
            asm.store_index(asm.cycle_counter(), word)


@functools.cache
def counter_frequency(target: Target) -> float:
    """Ticks of the cycle counter a second, measured once against the clock."""
    read = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(compile_kernel(ReadCounter(), target))
    word = ctypes.c_int64()
    read(ctypes.addressof(word))
    start, ticks = time.perf_counter(), word.value
    while time.perf_counter() - start < _CALIBRATION_SECONDS:
        pass
    read(ctypes.addressof(word))
    return (word.value - ticks) / (time.perf_counter() - start)
