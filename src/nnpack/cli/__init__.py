"""The console script ``nnpack``: finds a command, imports it and nothing else, runs it.

``info`` needs nothing beyond the library. The other commands are typer functions that live
behind extras; when a package of theirs is missing, one line names the extra.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nnpack.errors import NnpackError

OUTPUT_ERROR = 1
USAGE_ERROR = 2
BROKEN_PIPE = 128 + 13  # what a shell says of a process that SIGPIPE ended


@dataclass(frozen=True, slots=True)
class Command:
    """``nnpack <name>``: the function ``function`` of ``module``, installed with ``extra``."""

    summary: str
    module: str
    function: str
    extra: str | None = None


COMMANDS = {
    "info": Command("what this machine is to nnpack", "nnpack.cli.info", "info"),
    "bench": Command(
        "time layers against the installed peers", "nnpack.cli.bench.command", "bench", "bench"
    ),
    "tune": Command(
        "measure which algorithms are fastest here, and keep it", "nnpack.cli.tune", "tune", "bench"
    ),
    "demo": Command(
        "enlarge or label a photograph with a real network",
        "nnpack.cli.demo.command",
        "demo",
        "demo",
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``nnpack`` with ``arguments`` (``sys.argv`` by default); return the exit status.

    Where the output cannot be written one line on stderr says so; where nobody reads it any more,
    nothing does.
    """
    try:
        status = _dispatch(list(sys.argv[1:] if arguments is None else arguments))
        if sys.stdout is not None:  # None where the shell closed it
            sys.stdout.flush()
        return status
    except OSError as error:
        # Files of ours are named by their errors; what has no name is where output goes.
        if error.filename is not None:
            raise
        _abandon_output()
        if isinstance(error, BrokenPipeError):  # whoever read the output has seen enough
            return BROKEN_PIPE
        return _complain(f"cannot write the output: {error.strerror}", OUTPUT_ERROR)


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if words[0] in ("-V", "--version"):
        import nnpack

        print(f"nnpack {nnpack.__version__}")
        return 0
    if words[0] not in COMMANDS:
        return _complain(f"no command {words[0]!r}; choose one of {', '.join(COMMANDS)}")
    return _run(words[0], words[1:])


def _abandon_output() -> None:
    """Nothing that is still in buffers shall be written when Python ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def usage() -> str:
    """The text of ``nnpack --help``."""
    lines = [f"  {name:<9} {command.summary}" for name, command in COMMANDS.items()]
    head = "usage: nnpack [--version] [--help] COMMAND [OPTIONS]\n\ncommands:\n"
    return head + "\n".join(lines) + "\n\n'nnpack COMMAND --help' lists the options of a command."


def _run(name: str, words: list[str]) -> int:
    command = COMMANDS[name]
    try:
        run = _run_plain if command.extra is None else _run_typer
        return run(name, words)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if command.extra is None or not package or package == "nnpack":
            raise
        return _complain(
            f"{name} needs {package}, which is not installed: "
            f"pip install 'nnpack-jit[{command.extra}]'"
        )
    except NnpackError as error:
        return _complain(str(error))


def _load(command: Command) -> Any:
    return getattr(importlib.import_module(command.module), command.function)


def _run_plain(name: str, words: list[str]) -> int:
    """A command without options, which works where typer is missing."""
    command = COMMANDS[name]
    if words in (["--help"], ["-h"]):
        print(f"usage: nnpack {name}\n\n{command.summary}")
        return 0
    if words:
        return _complain(f"{name} takes no arguments, got {' '.join(words)}")
    _load(command)()
    return 0


def _run_typer(name: str, words: list[str]) -> int:
    import typer

    application = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    application.command(name)(_load(COMMANDS[name]))
    try:
        application(args=words, prog_name=f"nnpack {name}")
    except SystemExit as ending:
        return ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    return 0


def _complain(message: str, status: int = USAGE_ERROR) -> int:
    if sys.stderr is not None:
        print(f"nnpack: {message}", file=sys.stderr)
    return status
