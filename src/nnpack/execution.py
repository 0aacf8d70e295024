"""Plans made runnable: kernels compiled, argument words laid out, one native call a run."""

from __future__ import annotations

import array
import struct
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from nnpack.codegen.compiler import compile_kernel, compile_kernels
from nnpack.codegen.target import Target, host_target
from nnpack.errors import ProblemError
from nnpack.plan import Argument, Routine, Slot, Stage, kernels_of
from nnpack.runtime.calls import MOST_WORDS, program_words
from nnpack.runtime.memory import address, borrow_workspace, return_workspace
from nnpack.runtime.workers import caller_of, kernels_of_runs, run_frame

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Call", "Program", "ReportedProgram", "Runnable", "compile_stages"]

Call = Callable[..., None]
"""Runs a program on its arrays, given in the order in which it was bound to them."""

_STAGE_WORDS = 3
# The executor counts tasks in 31 bits.
_MOST_TASKS = 2**31 - 1


def compile_stages(stages: tuple[Stage, ...], target: Target, threads: int) -> None:
    """Compile, all at once, what runs of ``stages`` on ``threads`` threads call.

    Takes a fifth off the time of compiling one after the other, when they are wanted.
    """
    runs = kernels_of_runs(threads) if target == host_target() else ()
    compile_kernels([*runs, *kernels_of(stages)], target)


class Program:
    """Stages compiled for a target. Any number of threads may run it at once.

    The frame (stage table and argument words, see `runtime.executor`) is a template; a run takes a
    copy from a free list, writes the addresses of its arrays into it, and makes one native call.
    """

    def __init__(
        self, stages: tuple[Stage, ...], target: Target, threads: int, workspace_bytes: int
    ) -> None:
        self._threads = threads
        self._workspace_bytes = workspace_bytes
        compile_stages(stages, target, threads)
        words, relocations = _lay_out(stages, target)
        self._template = array.array("q", words)
        self._relocations = relocations
        # list.append and list.pop are atomic under the interpreter lock.
        self._frames: list[_Frame] = []

    def run(self, addresses: Mapping[str, int]) -> None:
        """Run all stages on the arrays at ``addresses``, by slot name."""
        if not self._workspace_bytes:
            self._run(addresses)
            return
        workspace = borrow_workspace(self._workspace_bytes)
        try:
            self._run({**addresses, "workspace": workspace.address})
        finally:
            return_workspace(workspace)

    def bound(self, *names: str) -> Call:
        """A function of dense arrays, the slots ``names``, that runs all stages on them.

        It takes a third of the time of `run` to begin.
        """
        if len(self._template) > MOST_WORDS:
            return lambda *arrays: self.run(dict(zip(names, map(address, arrays), strict=True)))
        order = {name: n for n, name in enumerate((*names, "workspace"))}
        places = [(order[slot], word, offset) for slot, word, offset in self._relocations]
        words = program_words(self._template, places, self._threads)
        call, nbytes = caller_of(words, self._threads), self._workspace_bytes
        if not nbytes:
            return call

        def call_with_workspace(*arrays: NDArray[Any]) -> None:
            workspace = borrow_workspace(nbytes)
            try:
                call(*arrays, workspace.array)
            finally:
                return_workspace(workspace)

        return call_with_workspace

    def _run(self, addresses: Mapping[str, int]) -> None:
        try:
            frame = self._frames.pop()
        except IndexError:
            frame = _Frame(self._template[:])
        words = frame.words
        for slot, word, offset in self._relocations:
            words[word] = addresses[slot] + offset
        run_frame(frame.address, self._threads)
        self._frames.append(frame)


class Runnable(Protocol):
    """Whatever runs on the arrays of a call."""

    def run(self, addresses: Mapping[str, int]) -> None:
        """Run all stages on the arrays at ``addresses``, by slot name."""

    def bound(self, *names: str) -> Call:
        """A function of arrays, the slots ``names``, that runs all stages on them."""


class ReportedProgram:
    """A program that tells how long every run took: ``report`` is called with the seconds."""

    def __init__(self, program: Runnable, report: Callable[[float], None]) -> None:
        self._program = program
        self._report = report

    def run(self, addresses: Mapping[str, int]) -> None:
        """Run, and report."""
        start = time.perf_counter()
        self._program.run(addresses)
        self._report(time.perf_counter() - start)

    def bound(self, *names: str) -> Call:
        """A function of arrays, the slots ``names``, that runs and reports."""
        call = self._program.bound(*names)

        def reported(*arrays: NDArray[Any]) -> None:
            start = time.perf_counter()
            call(*arrays)
            self._report(time.perf_counter() - start)

        return reported


class _Frame:
    """One copy of a program's words, at a fixed address."""

    __slots__ = ("address", "words")

    def __init__(self, words: array.array[int]) -> None:
        self.words = words
        self.address = words.buffer_info()[0]


_Relocation = tuple[str, int, int]
"""A slot, a word that holds its address, and the bytes added to that."""


def _lay_out(
    stages: tuple[Stage, ...], target: Target
) -> tuple[list[int], tuple[_Relocation, ...]]:
    words = [len(stages)] + [0] * (_STAGE_WORDS * len(stages))
    relocations: list[_Relocation] = []
    for n, stage in enumerate(stages):
        if stage.tasks >= _MOST_TASKS:
            raise ProblemError(f"{stage.tasks} tasks; split the batch into less than {_MOST_TASKS}")
        head = 1 + _STAGE_WORDS * n
        words[head : head + 3] = [compile_kernel(stage.kernel, target), stage.tasks, len(words)]
        for name in stage.kernel.fields:
            argument = stage.arguments[name]
            if isinstance(argument, Slot):
                relocations.append((argument.name, len(words), argument.offset))
            words.append(_word(argument, target))
    return words, tuple(relocations)


def _word(argument: Argument, target: Target) -> int:
    if isinstance(argument, Slot):
        return 0
    if isinstance(argument, Routine):
        return compile_kernel(argument.kernel, target)
    if isinstance(argument, float):
        return int(struct.unpack("<i", struct.pack("<f", argument))[0])
    return argument
