"""A small kernel to compile, here and in processes of their own."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import nnpack
from nnpack.codegen.assembler import Assembler
from nnpack.codegen.compiler import ENTRY, compile_kernel
from nnpack.codegen.target import host_target

ANSWER = 42

# Where a script finds the tests, and the very package that is being tested.
_ROOTS = (str(Path(__file__).resolve().parents[2]), str(Path(nnpack.__file__).parents[1]))


@dataclass(frozen=True)
class Answer:
    """``out[0] = value``, which is 42 unless told otherwise."""

    value: int = ANSWER

    def emit(self, asm: Assembler) -> None:
        with asm.function(ENTRY, exported=True, out="pointer") as (out,):
            asm.store_index(self.value, out)


def answer_of(address: int) -> int:
    """What the compiled `Answer` at ``address`` answers."""
    out = ctypes.c_int64(-1)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)(ctypes.addressof(out))
    return out.value


def compiled_answer() -> int:
    """Compile an `Answer` and ask it."""
    return answer_of(compile_kernel(Answer(), host_target()))


def run_script(script: str, cache_dir: Path) -> subprocess.Popen[str]:
    """Start a Python of its own on ``script``, with its kernels cached in ``cache_dir``."""
    environment = {
        **os.environ,
        "NNPACK_CACHE_DIR": str(cache_dir),
        "PYTHONPATH": os.pathsep.join(_ROOTS),
    }
    return subprocess.Popen(
        [sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True
    )
