"""Code emitted by a test, and run on every target this machine has."""

from __future__ import annotations

import ctypes
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from nnpack.codegen.assembler import Assembler, Value
from nnpack.codegen.compiler import ENTRY, compile_kernel
from nnpack.codegen.target import Target, host_target, runnable_targets
from nnpack.settings import get_settings

# A run with NNPACK_TARGET is about that target; without, about all of them.
TARGETS: tuple[Target, ...] = runnable_targets() if not get_settings().target else (host_target(),)
"""Give these to ``pytest.mark.parametrize("target", TARGETS, ids=name_of)``."""


def name_of(value: object) -> str:
    """A target's name, or any other value as it is: for the ids of tests."""
    return value.name if isinstance(value, Target) else repr(value)


Body = Callable[..., None]
Argument = npt.NDArray[Any] | int | float


@dataclass(frozen=True)
class Snippet:
    """A function of its own: no two are equal, in any process, so that none is found in a cache."""

    parameters: tuple[str, ...]
    body: Body
    number: str = field(default_factory=lambda: uuid.uuid4().hex)

    def emit(self, asm: Assembler) -> None:
        words = {f"p{n}": kind for n, kind in enumerate(self.parameters)}
        with asm.function(ENTRY, exported=True, **words) as values:
            self.body(asm, *values)


def run(target: Target, body: Body, *arguments: Argument) -> None:
    """Emit ``body(asm, *values)`` for ``target`` and run it on arrays, integers and floats."""
    kinds = tuple(_kind(a) for a in arguments)
    address = compile_kernel(Snippet(kinds, body), target)
    types = [_C_TYPES[kind] for kind in kinds]
    native = ctypes.CFUNCTYPE(None, *types)(address)
    native(*(a.ctypes.data if isinstance(a, np.ndarray) else a for a in arguments))


def compute(
    target: Target, body: Callable[..., Value], lanes: int, *arguments: Argument
) -> npt.NDArray[np.float32]:
    """The vector of ``lanes`` floats that ``body`` returns."""
    result = np.full(lanes, np.nan, np.float32)

    def store(asm: Assembler, out: Value, *values: Value) -> None:
        asm.store(body(asm, *values), out)

    run(target, store, result, *arguments)
    return result


_C_TYPES = {
    "pointer": ctypes.c_void_p,
    "halves": ctypes.c_void_p,
    "index": ctypes.c_int64,
    "float": ctypes.c_float,
}


def _kind(argument: Argument) -> str:
    if isinstance(argument, np.ndarray):
        return "halves" if argument.dtype == np.float16 else "pointer"
    return "float" if isinstance(argument, float) else "index"
