"""A specification is compiled once, by however many threads, and again only in a new process."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from nnpack.codegen import compiler
from nnpack.codegen.assembler import Assembler
from nnpack.codegen.compiler import (
    ENTRY,
    compile_kernel,
    compile_kernels,
    emit_assembly,
    emit_module,
    emit_object,
)
from nnpack.codegen.target import NEON, Target, host_target
from nnpack.errors import CompilationError
from tests.codegen.kernels import ANSWER, Answer, answer_of
from tests.native import TARGETS, name_of


@pytest.mark.parametrize("target", TARGETS, ids=name_of)
def test_what_is_compiled_runs(target: Target) -> None:
    assert answer_of(compile_kernel(Answer(), target)) == ANSWER


def test_equal_specifications_have_one_address() -> None:
    target = host_target()
    assert compile_kernel(Answer(7), target) == compile_kernel(Answer(7), target)
    assert compile_kernel(Answer(7), target) != compile_kernel(Answer(8), target)


def test_many_threads_compile_many_kernels_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[object] = []
    load = compiler._load

    def counted(specification: compiler.Specification, target: Target) -> int | None:
        loaded.append(specification)
        return load(specification, target)

    monkeypatch.setattr(compiler, "_load", counted)
    values = [1000 + n for n in range(6)]
    start = threading.Barrier(8)

    def work(number: int) -> list[int]:
        start.wait()
        order = values[number % 6 :] + values[: number % 6]
        return [answer_of(compile_kernel(Answer(v), host_target())) - v for v in order]

    with ThreadPoolExecutor(8) as pool:
        assert all(not any(differences) for differences in pool.map(work, range(8)))
    assert sorted(repr(s) for s in loaded) == [repr(Answer(v)) for v in values]


def test_kernels_compiled_together_are_found_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    target, kernels = host_target(), [Answer(2000 + n) for n in range(5)]
    compile_kernel(kernels[3], target)
    compile_kernels([*kernels, kernels[0]], target)
    monkeypatch.setattr(compiler, "compile_kernels", None)
    assert [answer_of(compile_kernel(k, target)) for k in kernels] == [k.value for k in kernels]


def test_a_bad_kernel_among_others_is_a_compilation_error() -> None:
    with pytest.raises(CompilationError, match="cannot link _Nameless"):
        compile_kernels([Answer(3000), _Nameless(), Answer(3001)], host_target())
    assert answer_of(compile_kernel(Answer(3001), host_target())) == 3001


@dataclass(frozen=True)
class _Nameless:
    def emit(self, asm: Assembler) -> None:
        with asm.function("not_the_entry", exported=True, out="pointer"):
            pass


def test_a_kernel_without_its_entry_is_a_compilation_error() -> None:
    with pytest.raises(CompilationError, match="cannot link _Nameless"):
        compile_kernel(_Nameless(), host_target())


def test_code_that_llvm_refuses_is_a_compilation_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "emit_module", lambda *_: "this is no IR")
    with pytest.raises(CompilationError, match=r"cannot compile Answer\(value=42\)"):
        emit_object(Answer(), host_target())


def test_code_can_be_read_by_people() -> None:
    assert f'@"{ENTRY}"' in emit_module(Answer(), host_target())
    assert ENTRY in emit_assembly(Answer(), host_target())


def test_objects_for_other_machines_are_made_here() -> None:
    code = emit_object(Answer(), NEON)
    assert code[:4] == b"\x7fELF"
    assert int.from_bytes(code[18:20], "little") == 183  # EM_AARCH64
