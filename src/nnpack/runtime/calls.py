"""Programs called from Python: a builtin function, emitted for the interpreter that runs.

What ctypes does for a call takes 0.4 us, and writing addresses into a frame as much again: as long
as a small element-wise function takes altogether. The builtin takes arrays as they are, reads their
addresses, makes the frame on the stack and runs it without the interpreter's lock.

*Program*: int64 words ``[relocations, words, threads, (argument, word, offset) * relocations,
frame...]``: the address of array ``argument``, and ``offset`` bytes, go into ``word`` of the frame.
"""

from __future__ import annotations

import ctypes
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from nnpack.codegen.compiler import ENTRY, compile_kernel
from nnpack.codegen.target import host_target
from nnpack.frozen import dataclass
from nnpack.runtime import memory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from nnpack.codegen.assembler import Assembler, Value
    from nnpack.codegen.compiler import Specification

MOST_WORDS = 512
"""Words of a frame that fit the stack of a call; longer ones run from memory of their own."""

_HEADER, _RELOCATION = 3, 3
_METH_FASTCALL = 0x0080

# Words of the context: functions of the interpreter, None, what runs a frame, and its arguments.
_SAVE_THREAD, _RESTORE_THREAD, _INCREF, _NONE, _RUN, _POOL, _THREADS = range(7)

Relocation = tuple[int, int, int]
"""The number of an array, a word that holds its address, and the bytes added to that."""


@dataclass(frozen=True)
class CallProgram:
    """``PyObject *call(PyObject *context, PyObject **arguments, Py_ssize_t count)``: None.

    The context and all arguments are ndarrays, whose addresses are ``data_word`` words behind their
    own: the context's words are those above, the first argument is a program.
    """

    data_word: int

    def emit(self, asm: Assembler) -> None:
        """Emit the function."""
        parameters = {"context": "pointer", "arguments": "pointer", "count": "index"}
        with asm.function_of_index(ENTRY, **parameters) as values:
            context = asm.load_pointer(values[0], self.data_word)
            program = asm.load_pointer(asm.load_pointer(values[1]), self.data_word)
            frame = self._emit_frame(asm, program, asm.index_pointer(values[1], 1))
            threads = asm.minimum(asm.load_index(program, 2), asm.load_index(context, _THREADS))
            run, pool, save, restore, incref, none = (
                asm.load_index(context, word)
                for word in (_RUN, _POOL, _SAVE_THREAD, _RESTORE_THREAD, _INCREF, _NONE)
            )
            state = asm.call_address(save, returns=True)
            asm.call_address(run, pool, frame, threads)
            asm.call_address(restore, state)
            asm.call_address(incref, none)
            asm.give_back(none)

    def _emit_frame(self, asm: Assembler, program: Value, arrays: Value) -> Value:
        """The frame of the program with the addresses of ``arrays``."""
        relocations, words = asm.load_index(program, 0), asm.load_index(program, 1)
        frame = asm.local(MOST_WORDS)
        template = asm.index_pointer(program, relocations * _RELOCATION + _HEADER)
        with asm.loop(words) as n:
            asm.store_index(asm.load_index(template, n), frame, n)
        with asm.loop(relocations) as n:
            entry = asm.index_pointer(program, n * _RELOCATION + _HEADER)
            array = asm.load_pointer(arrays, asm.load_index(entry, 0))
            address = asm.load_index(array, self.data_word) + asm.load_index(entry, 2)
            asm.store_index(address, frame, asm.load_index(entry, 1))
        return frame


def program_words(
    frame: Sequence[int], relocations: Sequence[Relocation], threads: int
) -> NDArray[np.int64]:
    """The words of a program, as they are described above."""
    head = [len(relocations), len(frame), threads]
    return np.array([*head, *(n for entry in relocations for n in entry), *frame], np.int64)


class _MethodDef(ctypes.Structure):
    """CPython's PyMethodDef."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("method", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


class Caller:
    """Runs programs: ``call(program, *arrays)``, dense arrays that outlive the call.

    ``run`` is the address of a `executor.RunFrame`, ``pool`` its first argument.
    """

    def __init__(self, run: int, pool: int) -> None:
        self._context = np.zeros(_THREADS + 1, np.int64)
        self._context[_RUN], self._context[_POOL] = run, pool
        self.allow(1)
        self.call: Callable[..., None] = self._builtin() if _is_known() else self._by_ctypes(run)

    def allow(self, threads: int) -> None:
        """Use up to ``threads`` threads, which must be there, for programs that ask for as many."""
        self._context[_THREADS] = threads

    def _builtin(self) -> Callable[..., None]:
        functions = {
            _SAVE_THREAD: "PyEval_SaveThread",
            _RESTORE_THREAD: "PyEval_RestoreThread",
            _INCREF: "Py_IncRef",
        }
        for word, name in functions.items():
            function = ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p)
            self._context[word] = function.value or 0
        self._context[_NONE] = id(None)
        code = compile_kernel(_call_program(), host_target())
        method = _MethodDef(b"call", code, _METH_FASTCALL, None)
        # The builtin may outlive this object.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(method))
        kinds = (ctypes.POINTER(_MethodDef), ctypes.py_object, ctypes.c_void_p)
        new = ctypes.PYFUNCTYPE(ctypes.py_object, *kinds)(("PyCFunction_NewEx", ctypes.pythonapi))
        builtin: Callable[..., None] = new(ctypes.pointer(method), self._context, None)
        return builtin

    def _by_ctypes(self, run: int) -> Callable[..., None]:
        """The same on interpreters that are not known."""
        kinds = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
        native = ctypes.CFUNCTYPE(None, *kinds)(run)
        context = self._context

        def call(program: NDArray[np.int64], *arrays: NDArray[Any]) -> None:
            relocations, _, threads = program[:_HEADER].tolist()
            start = _HEADER + _RELOCATION * relocations
            frame = program[start:].copy()
            for argument, word, offset in program[_HEADER:start].reshape(-1, 3).tolist():
                frame[word] = memory.address(arrays[argument]) + offset
            allowed = min(threads, int(context[_THREADS]))
            native(int(context[_POOL]), memory.address(frame), allowed)

        return call


def kernels_of_calls() -> tuple[Specification, ...]:
    """What a `Caller` compiles."""
    return (_call_program(),) if _is_known() else ()


def _call_program() -> CallProgram:
    return CallProgram(memory.DATA_OFFSET // 8)


def _is_known() -> bool:
    return sys.implementation.name == "cpython" and memory.address_is_in_layout()
