"""From a kernel's specification to a callable address: cache or emission, then linking.

A *specification* is a frozen value that can emit itself; equal specifications are compiled once
a process, and once a machine when the disk cache is on.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol

from nnpack.codegen import cache
from nnpack.codegen.lock import llvm_lock
from nnpack.codegen.target import Target
from nnpack.errors import CompilationError

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler


class Specification(Protocol):
    """A kernel as a value: hashable, printed in full by ``repr``, able to emit itself."""

    def __hash__(self) -> int: ...

    def emit(self, asm: Assembler) -> None:
        """Emit the exported function ``ENTRY`` into ``asm``."""


ENTRY = "nnpack_kernel"

_addresses: dict[tuple[Any, Target], int] = {}
_names = itertools.count()


def compile_kernel(specification: Specification, target: Target) -> int:
    """The address of ``specification`` compiled for ``target``; compiled at most once.

    Raises CompilationError when LLVM refuses the code (a defect of the generator).
    """
    address = _addresses.get((specification, target))
    if address is not None:
        return address
    compile_kernels((specification,), target)
    return _addresses[specification, target]


def compile_kernels(specifications: Iterable[Specification], target: Target) -> None:
    """Compile what of ``specifications`` is not compiled yet, so that `compile_kernel` finds it.

    Raises CompilationError as that does.
    """
    wanted = [s for s in dict.fromkeys(specifications) if (s, target) not in _addresses]
    if not wanted:
        return
    with llvm_lock:
        wanted = [s for s in wanted if (s, target) not in _addresses]
        stored = {specification: _load(specification, target) for specification in wanted}
        absent = [specification for specification in wanted if stored[specification] is None]
        _addresses.update({(s, target): a for s, a in stored.items() if a is not None})
        for specification in absent:
            code = emit_object(specification, target)
            cache.write(cache.object_key(repr(specification), target), code)
            _addresses[specification, target] = _link_new(specification, code)


def _load(specification: Specification, target: Target) -> int | None:
    """The address of a kernel from the cache on disk, if it is there."""
    stored = cache.read(cache.object_key(repr(specification), target))
    if stored is None:
        return None
    try:
        return _link(stored)
    except RuntimeError:
        return None  # foreign or damaged in a way the digest cannot see: compile again


def _link_new(specification: Specification, code: bytes) -> int:
    try:
        return _link(code)
    except RuntimeError as error:
        raise CompilationError(f"cannot link {specification!r}: {error}") from error


def emit_module(specification: Specification, target: Target) -> str:
    """The LLVM IR of ``specification``, as text."""
    from nnpack.codegen.assembler import Assembler

    asm = Assembler(target)
    specification.emit(asm)
    return str(asm)


def emit_object(specification: Specification, target: Target) -> bytes:
    """The object code of ``specification`` for ``target``, which need not be the host."""
    text = emit_module(specification, target)
    with llvm_lock:
        return bytes(_translate(specification, text, target))


def emit_assembly(specification: Specification, target: Target) -> str:
    """The assembly text of ``specification`` for ``target``, to be read by people."""
    text = emit_module(specification, target)
    with llvm_lock:
        return str(_translate(specification, text, target, "emit_assembly"))


def _translate(
    specification: Specification, text: str, target: Target, how: str = "emit_object"
) -> Any:
    """What LLVM makes of ``text``, the IR of ``specification``; the lock is held."""
    import llvmlite.binding as llvm

    try:
        module = llvm.parse_assembly(text)
        return getattr(_target_machine(target), how)(module)
    except RuntimeError as error:
        raise CompilationError(f"cannot compile {specification!r}: {error}") from error


@functools.cache
def _target_machine(target: Target) -> Any:
    import llvmlite.binding as llvm

    if target.triple.startswith("x86_64"):
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
    else:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
    return llvm.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.features, opt=3, reloc="pic", codemodel="small"
    )


@functools.cache
def _jit() -> Any:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    # JITLink lays the sections of an object out side by side. The older linker may put constants
    # out of reach of their code, once gigabytes were mapped in between, and then aborts.
    jit = llvm.create_lljit_compiler(use_jit_link=True)
    # Never disposed: a thread may still run compiled code while the interpreter exits.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(jit))
    return jit


_trackers: list[Any] = []


def _link(code: bytes) -> int:
    import llvmlite.binding as llvm

    builder = llvm.JITLibraryBuilder().add_object_img(code).export_symbol(ENTRY)
    tracker = builder.link(_jit(), f"nnpack{next(_names)}")
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(tracker))
    _trackers.append(tracker)
    return int(tracker[ENTRY])
