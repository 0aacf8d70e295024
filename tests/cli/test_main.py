"""The console script: which command runs, and what is said when it cannot."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import nnpack
from nnpack import cli
from nnpack.errors import SettingsError


def forbid(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Make ``import package`` raise ModuleNotFoundError, as on a plain install."""
    for package in packages:
        monkeypatch.setitem(sys.modules, package, None)


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_help_lists_every_command(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in cli.COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"nnpack {nnpack.__version__}\n"


def test_an_unknown_command_is_answered_with_the_known_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["banch"]) == 2
    assert "'banch'" in (said := capsys.readouterr().err)
    assert "bench" in said


def test_info_works_on_a_plain_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    forbid(monkeypatch, "typer", "rich", "matplotlib", "torch")
    assert cli.main(["info"]) == 0
    shown = capsys.readouterr().out
    for word in ("processor", "target", "caches", "threads", "cache folder", "numpy", "LLVM"):
        assert word in shown


def test_info_takes_no_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", "--loud"]) == 2
    assert "--loud" in capsys.readouterr().err
    assert cli.main(["info", "--help"]) == 0


@pytest.mark.parametrize("package", ["typer", "rich"])
def test_a_missing_extra_is_named_in_one_line(
    package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in [name for name in sys.modules if name.startswith("nnpack.cli.bench")]:
        monkeypatch.delitem(sys.modules, module)
    loaded = [name for name in sys.modules if name.partition(".")[0] == package]
    forbid(monkeypatch, *loaded, package)
    assert cli.main(["bench"]) == 2
    said = capsys.readouterr().err
    assert said == (
        f"nnpack: bench needs {package}, which is not installed: pip install 'nnpack-jit[bench]'\n"
    )


def test_our_own_errors_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_: object) -> None:
        raise SettingsError("NNPACK_TARGET='z80' is unknown")

    monkeypatch.setattr(cli, "_load", refuse)
    assert cli.main(["info"]) == 2
    assert capsys.readouterr().err == "nnpack: NNPACK_TARGET='z80' is unknown\n"


def test_a_missing_module_of_our_own_is_a_bug_and_not_hidden(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_: object) -> None:
        raise ModuleNotFoundError("No module named 'nnpack.lost'", name="nnpack.lost")

    monkeypatch.setattr(cli, "_load", fail)
    with pytest.raises(ModuleNotFoundError):
        cli.main(["info"])


def test_a_command_gives_its_exit_status(monkeypatch: pytest.MonkeyPatch) -> None:
    typer = pytest.importorskip("typer")

    def failing(status: int = 0) -> None:
        raise typer.Exit(status)

    monkeypatch.setattr(cli, "_load", lambda _: failing)
    assert cli.main(["bench", "--status", "3"]) == 3
    assert cli.main(["bench"]) == 0
    assert cli.main(["bench", "--nonsense"]) == 2


def test_python_dash_m() -> None:
    words = [sys.executable, "-m", "nnpack", "--version"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout == f"nnpack {nnpack.__version__}\n"


@pytest.mark.parametrize("name", [name for name, c in cli.COMMANDS.items() if c.extra])
def test_every_command_tells_its_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("typer")
    pytest.importorskip("rich")
    assert cli.main([name, "--help"]) == 0
    assert "--threads" in capsys.readouterr().out


def test_a_reader_that_leaves_is_no_error() -> None:
    command = f"{sys.executable} -m nnpack info | true"
    done = subprocess.run(["sh", "-c", command], capture_output=True, check=False)
    assert done.stderr == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("command", ["info", "--version", "tune --help"])
def test_output_that_cannot_be_written_is_one_line(command: str) -> None:
    words = f"{sys.executable} -m nnpack {command} >/dev/full"
    done = subprocess.run(["sh", "-c", words], capture_output=True, text=True, check=False)
    assert done.returncode == cli.OUTPUT_ERROR
    assert done.stderr == "nnpack: cannot write the output: No space left on device\n"


def test_complaints_that_cannot_be_written_leave_the_status() -> None:
    words = f"{sys.executable} -m nnpack banch 2>&-"
    done = subprocess.run(["sh", "-c", words], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (2, b"")


def test_no_standard_output_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)  # as Python has it where the shell closed it
    assert cli.main(["info"]) == 0
