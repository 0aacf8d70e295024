"""Small native stages that leave traces, and frames made of them."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

import nnpack
from nnpack.codegen.compiler import ENTRY, Specification, compile_kernel
from nnpack.codegen.target import host_target
from nnpack.runtime.workers import run_frame

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from nnpack.codegen.assembler import Assembler, Value

Words = npt.NDArray[np.int64]
Stage = tuple[Specification, int, Sequence["int | Words"]]

# Where a script finds the tests, and the very package that is being tested.
_ROOTS = (str(Path(__file__).resolve().parents[2]), str(Path(nnpack.__file__).parents[1]))


def _stage(asm: Assembler) -> AbstractContextManager[tuple[Value, ...]]:
    kinds = {"arguments": "pointer", "first": "index", "last": "index", "worker": "index"}
    return asm.function(ENTRY, exported=True, **kinds)


@dataclass(frozen=True)
class Record:
    """Task i: ``counts[i] += 1; workers[i] = worker; states[i] = float state``."""

    def emit(self, asm: Assembler) -> None:
        with _stage(asm) as (arguments, first, last, worker):
            counts, workers, states = (asm.load_pointer(arguments, i) for i in range(3))
            with asm.loop(last, start=first) as i:
                asm.atomic_add(1, asm.index_pointer(counts, i))
                asm.store_index(worker, workers, i)
                asm.store_index(asm.float_state(), states, i)


@dataclass(frozen=True)
class Fill:
    """Task i: ``out[i] = value + i``, by plain stores."""

    def emit(self, asm: Assembler) -> None:
        with _stage(asm) as (arguments, first, last, _):
            out, value = asm.load_pointer(arguments), asm.load_index(arguments, 1)
            with asm.loop(last, start=first) as i:
                asm.store_index(value + i, out, i)


@dataclass(frozen=True)
class Total:
    """Task i: ``out[i] = sum(values[:count])``, by plain loads."""

    def emit(self, asm: Assembler) -> None:
        with _stage(asm) as (arguments, first, last, _):
            out, values = asm.load_pointer(arguments), asm.load_pointer(arguments, 1)
            count = asm.load_index(arguments, 2)
            with asm.loop(last, start=first) as i:
                total = {"": asm.index(0)}
                with asm.loop(count, carry=total) as j:
                    total[""] = total[""] + asm.load_index(values, j)
                asm.store_index(total[""], out, i)


@dataclass(frozen=True)
class Meet:
    """Task: enter ``inside[worker]``, stay for some pauses, leave; ``clashes`` counts company."""

    def emit(self, asm: Assembler) -> None:
        with _stage(asm) as (arguments, first, last, worker):
            inside = asm.index_pointer(asm.load_pointer(arguments), worker)
            with asm.loop(last, start=first):
                company = asm.atomic_add(1, inside)
                with asm.loop(asm.load_index(arguments, 2)):
                    asm.pause()
                asm.atomic_add(-1, inside)
                asm.atomic_add(company, asm.load_pointer(arguments, 1))


@dataclass(frozen=True)
class SetFloatState:
    """Any task: set the float state of the thread."""

    def emit(self, asm: Assembler) -> None:
        with _stage(asm) as (arguments, _, _, _):
            asm.set_float_state(asm.load_index(arguments))


def make_frame(*stages: Stage) -> Words:
    """The frame of some stages; the arrays among their arguments must be kept alive."""
    head, blocks = [len(stages)], list[int]()
    for specification, tasks, arguments in stages:
        function = compile_kernel(specification, host_target())
        head += [function, tasks, 1 + 3 * len(stages) + len(blocks)]
        blocks += [a if isinstance(a, int) else a.ctypes.data for a in arguments]
    return np.array(head + blocks, np.int64)


def run(frame: Words, threads: int) -> None:
    run_frame(frame.ctypes.data, threads)


def call_here(specification: Specification, *arguments: int) -> None:
    """One task of a stage, called directly on this thread."""
    block = np.array(arguments, np.int64)
    words = (ctypes.c_void_p, *[ctypes.c_int64] * 3)
    function = ctypes.CFUNCTYPE(None, *words)(compile_kernel(specification, host_target()))
    function(block.ctypes.data, 0, 1, 0)


class Recorder:
    """A stage of recorded tasks, and what the record shows after some runs."""

    def __init__(self, tasks: int) -> None:
        self.counts, self.workers, self.states = np.zeros((3, max(tasks, 1)), np.int64)
        self.stage: Stage = (Record(), tasks, (self.counts, self.workers, self.states))
        self.frame = make_frame(self.stage)


PRELUDE = """
import os, signal, sys, threading, time
import numpy as np
from tests.runtime.stages import *
def check(threads, runs=50, tasks=100):
    record = Recorder(tasks)
    for _ in range(runs):
        run(record.frame, threads)
    assert (record.counts == runs).all()
    assert record.workers.max() < max(threads, 1)
"""


def run_script(body: str) -> subprocess.Popen[str]:
    """Start a Python that runs ``PRELUDE`` and ``body``, in a session of its own."""
    path = os.pathsep.join([*_ROOTS, os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-X", "faulthandler", "-c", PRELUDE + body],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
