"""Compiled kernels are found on disk again; whatever is wrong there means compiling again."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from pathlib import Path

import pytest

from nnpack.codegen import cache, compiler, files
from nnpack.codegen.target import AVX2, X86_64, host_target
from nnpack.settings import Settings
from tests.codegen.kernels import ANSWER, Answer, answer_of, run_script

CODE = b"code of a kernel"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; the folder in which its files will be."""
    monkeypatch.setattr(cache, "get_settings", lambda: Settings(cache_dir=tmp_path / "cache"))
    return tmp_path / "cache" / "objects"


def _compile_anew(monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """Compile as a new process would: (what the kernel answers, how often IR was emitted)."""
    emitted = []
    emit_module = compiler.emit_module

    def counted(*arguments: object) -> str:
        emitted.append(arguments)
        return emit_module(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(compiler, "_addresses", {})
        patch.setattr(compiler, "emit_module", counted)
        address = compiler.compile_kernel(Answer(), host_target())
    return answer_of(address), len(emitted)


def test_what_is_written_is_read(folder: Path) -> None:
    cache.write("key", CODE)
    assert cache.read("key") == CODE
    assert [path.name for path in folder.iterdir()] == ["key.o"]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.usefixtures("folder")
def test_an_unknown_key_is_none() -> None:
    assert cache.read("key") is None


@pytest.mark.usefixtures("folder")
def test_the_last_writer_wins() -> None:
    cache.write("key", b"first")
    cache.write("key", CODE)
    assert cache.read("key") == CODE


@pytest.mark.parametrize("damage", ["flipped", "truncated", "short", "empty"])
def test_damaged_files_are_not_used(folder: Path, damage: str) -> None:
    cache.write("key", CODE)
    file = folder / "key.o"
    content = file.read_bytes()
    file.write_bytes(
        {
            "flipped": content[:-1] + b"?",
            "truncated": content[:-1],
            "short": content[:7],
            "empty": b"",
        }[damage]
    )
    assert cache.read("key") is None


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_files_that_others_may_write_are_not_used(folder: Path, mode: int) -> None:
    cache.write("key", CODE)
    (folder / "key.o").chmod(mode)
    assert cache.read("key") is None


@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_folders_that_others_may_write_are_not_used(folder: Path, mode: int) -> None:
    cache.write("key", CODE)
    folder.chmod(mode)
    assert cache.read("key") is None
    cache.write("other", CODE)
    assert not (folder / "other.o").exists()


def test_a_link_to_a_folder_is_not_used(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder.parent.mkdir()
    folder.symlink_to(tmp_path / "elsewhere")
    cache.write("key", CODE)
    assert cache.read("key") is None


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="there are no owners")
def test_files_of_other_users_are_not_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.write("key", CODE)
    assert folder.exists()
    mine = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: mine + 1)
    assert cache.read("key") is None


def test_without_a_folder_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "get_settings", lambda: Settings(cache_dir=None))
    cache.write("key", CODE)
    assert cache.read("key") is None


def test_a_folder_that_cannot_be_made_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(cache, "get_settings", lambda: Settings(cache_dir=tmp_path / "file"))
    cache.write("key", CODE)
    assert cache.read("key") is None


@pytest.mark.parametrize("step", ["NamedTemporaryFile", "replace"])
def test_a_disk_that_refuses_is_no_error_and_nothing_is_left(
    folder: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    place = tempfile if step == "NamedTemporaryFile" else Path
    with monkeypatch.context() as patch:
        patch.setattr(place, step, refuse)
        cache.write("key", CODE)
    assert cache.read("key") is None
    assert list(folder.iterdir()) == []


def test_a_hit_emits_no_code(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _compile_anew(monkeypatch) == (ANSWER, 1)
    assert len(list(folder.iterdir())) == 1
    assert _compile_anew(monkeypatch) == (ANSWER, 0)


def test_code_that_cannot_be_linked_is_compiled_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The digest agrees, yet it is no object file: written by another program, say."""
    _compile_anew(monkeypatch)
    (file,) = folder.iterdir()
    cache.write(file.stem, CODE)
    assert _compile_anew(monkeypatch) == (ANSWER, 1)
    assert _compile_anew(monkeypatch) == (ANSWER, 0)


def test_keys_tell_kernels_and_targets_apart() -> None:
    keys = {
        cache.object_key(specification, target)
        for specification in ("one", "another")
        for target in (AVX2, X86_64)
    }
    assert len(keys) == 4
    assert cache.object_key("one", AVX2) in keys


def test_keys_follow_the_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    before = cache.object_key("one", AVX2)
    monkeypatch.setattr(cache, "sources_digest", lambda: "of other sources")
    assert cache.object_key("one", AVX2) != before


def test_processes_that_compile_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    script = "from tests.codegen.kernels import *\nprint(compiled_answer())"
    running = [run_script(script, tmp_path) for _ in range(4)]
    assert [int(process.communicate()[0]) for process in running] == [ANSWER] * 4
    files = list((tmp_path / "objects").iterdir())
    assert [path.suffix for path in files] == [".o"]
    process = run_script(
        "from nnpack.codegen import compiler\ncompiler.emit_module = None\n" + script,
        tmp_path,
    )
    assert int(process.communicate()[0]) == ANSWER


@pytest.mark.skipif(sys.platform != "linux", reason="the mode of a read-only folder")
def test_a_read_only_folder_is_read_and_left_alone(tmp_path: Path) -> None:
    script = "from tests.codegen.kernels import *\nprint(compiled_answer())"
    objects = tmp_path / "objects"
    objects.mkdir(mode=0o500)
    tmp_path.chmod(0o500)
    try:
        process = run_script(script, tmp_path)
        assert int(process.communicate()[0]) == ANSWER
        assert process.returncode == 0
        assert list(objects.iterdir()) == [] or os.getuid() == 0
    finally:
        tmp_path.chmod(0o700)
        objects.chmod(0o700)


def test_a_folder_shrinks_to_what_was_used_last(tmp_path: Path) -> None:
    for age in range(5):
        file = tmp_path / f"{age}.o"
        file.write_bytes(bytes(100))
        os.utime(file, (1e9 - age, 1e9 - age))
    files.shrink_folder(tmp_path, 250)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.o", "1.o"]
    files.shrink_folder(tmp_path / "absent", 0)


def test_the_cache_is_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "LIMIT_BYTES", 1000)
    monkeypatch.setattr(cache, "WRITES_PER_CHECK", 1)
    for n in range(50):
        cache.write(f"{n}", CODE)
    assert 0 < sum(path.stat().st_size for path in folder.iterdir()) <= 1000


def test_an_interrupted_write_leaves_nothing_behind(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    cache.write("key", CODE)
    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cache.write("other", CODE)
    assert [path.name for path in folder.iterdir()] == ["key.o"]


def test_without_sources_byte_code_is_digested_and_without_files_nothing_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    """Kernels of another version would have the same name otherwise."""
    monkeypatch.setattr(cache, "__file__", str(tmp_path / "package" / "codegen" / "cache.pyc"))
    of = cache.sources_digest.__wrapped__
    assert of(("kernels",)) == ""
    (tmp_path / "package" / "kernels").mkdir(parents=True)
    assert of(("kernels",)) == ""
    found = set()
    for content in (b"one version", b"another"):
        (tmp_path / "package" / "kernels" / "gemm.pyc").write_bytes(content)
        found.add(of(("kernels",)))
    assert len(found) == 2
    monkeypatch.setattr(cache, "sources_digest", lambda: "")
    cache.write("key", CODE)
    assert cache.read("key") is None
    assert not folder.exists()
