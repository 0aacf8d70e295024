"""Wisdom: choices that were measured, kept from run to run (Frigo & Johnson, FFTW, 1998).

An *outcome* answers a question: which algorithm for this problem, on this machine, with so many
threads, by these sources. Each stands in a file of its own, so that any number of processes may
tune at once; and in memory, which is all there is when nothing may be kept on disk. What is found
on disk is believed only when it is sound in every field; it can cost time, never correctness, for
the planner still asks whether the algorithm can do the problem within its accuracy.
"""

from __future__ import annotations

import contextlib
import math
import pathlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from nnpack.codegen.cache import SOURCES, sources_digest
from nnpack.codegen.digest import digest
from nnpack.codegen.files import private_folder, read_private, remove_private, write_private
from nnpack.codegen.lock import llvm_lock
from nnpack.codegen.machine import machine_of, processor_name
from nnpack.codegen.rates import WISDOM_FOLDER, forget_rates
from nnpack.codegen.target import Target
from nnpack.errors import ProblemError
from nnpack.frozen import dataclass, replace
from nnpack.problem import Problem, TransposedProblem, dense_strides
from nnpack.settings import get_settings

__all__ = [
    "Outcome",
    "export_wisdom",
    "forget_wisdom",
    "generation",
    "import_wisdom",
    "keep",
    "laid_densely",
    "recall",
]

AnyProblem = Problem | TransposedProblem
Record = Mapping[str, Any]

# Outcomes in memory; files, of which the oldest go first; bytes a file.
MOST_IN_MEMORY = 1024
MOST_FILES = 4096
MOST_BYTES = 1 << 16

# All that decides what a plan is, and the library's version with it: "" is the package itself.
_PLAN_SOURCES = ("", "algorithms", *SOURCES)

_FORMAT = "nnpack wisdom 1"
_FIELDS = ("sources", "machine", "threads", "algorithm", "problem", "choice", "measured")


@dataclass(frozen=True)
class Outcome:
    """What was measured: seconds a run by name, and the fastest, one algorithm a part."""

    choice: tuple[str, ...]
    measured: Mapping[str, float]


class _Memory:
    """Records of this process, and how often what is known has changed."""

    def __init__(self) -> None:
        self.records: OrderedDict[str, Record] = OrderedDict()
        self.lock = llvm_lock
        self.generation = 0

    def put(self, name: str, record: Record) -> None:
        with self.lock:
            self.records[name] = record
            self.records.move_to_end(name)
            if len(self.records) > MOST_IN_MEMORY:
                self.records.popitem(last=False)
            self.generation += 1

    def clear(self) -> None:
        with self.lock:
            self.records.clear()
            self.generation += 1


_memory = _Memory()


def generation() -> int:
    """A number that changes whenever this process learns or forgets something."""
    return _memory.generation


def recall(problem: AnyProblem, algorithm: str, target: Target, threads: int) -> Outcome | None:
    """What was found for ``problem`` when ``algorithm`` was asked for, or None."""
    folder = _folder(make=False)
    if folder is None and not _memory.records:
        return None
    question = _question(problem, algorithm, target, threads)
    name = _name(question)
    record = _memory.records.get(name) or _read(folder, name)
    # The sources come last: they are read only where there is an outcome.
    if record is None or any(record[key] != value for key, value in question.items()):
        return None
    if record["sources"] != _sources():
        return None
    return Outcome(tuple(record["choice"]), record["measured"])


def keep(
    problem: AnyProblem, algorithm: str, target: Target, threads: int, outcome: Outcome
) -> None:
    """Remember ``outcome``, on disk too where that is possible."""
    record = _question(problem, algorithm, target, threads)
    record |= {"choice": list(outcome.choice), "measured": dict(outcome.measured)}
    record["sources"] = _sources()
    _keep(record)


def export_wisdom() -> str:
    """Everything measured and kept by this version of the library, as text."""
    import json

    records = [r for r in _all_records().values() if r["sources"] == _sources()]
    return json.dumps({"format": _FORMAT, "outcomes": records}, indent=1)


def laid_densely(problem: AnyProblem) -> AnyProblem:
    """``problem`` of dense arrays, neither of which is part of a larger one."""
    strides = dense_strides(problem.x_shape)[:3], dense_strides(problem.y_shape)
    return replace(problem, x_strides=strides[0], y_strides=strides[1])


def import_wisdom(text: str) -> int:
    """Keep what `export_wisdom` wrote; return how many outcomes hold here.

    Those of another processor, or of other versions of the library, are left out.

    Raises ProblemError when ``text`` is no wisdom; then nothing is kept.
    """
    records = _parse(text)
    fitting = [
        record
        for record in records
        if record["sources"] == _sources()
        and record["machine"].get("processor") == processor_name()
    ]
    for record in fitting:
        _keep(record)
    return len(fitting)


def forget_wisdom() -> None:
    """Forget everything measured, in memory and on disk: choices, and the rates of machines."""
    for path in _files():
        remove_private(path)
    forget_rates()
    _memory.clear()


def _parse(text: str) -> list[dict[str, Any]]:
    content = _loaded(text)
    records = content.get("outcomes") if isinstance(content, dict) else None
    if not isinstance(records, list) or content.get("format") != _FORMAT:
        raise ProblemError(f"text={str(text)[:40]!r} must be what export_wisdom() returned")
    for n, record in enumerate(records):
        if not _is_sound(record):
            raise ProblemError(f"text is damaged: outcome {n} has fields that cannot be")
    return records


def _question(problem: AnyProblem, algorithm: str, target: Target, threads: int) -> dict[str, Any]:
    """The fields of a record that say what it answers.

    How arrays lie in memory is no part of it, nor whether there is a residual.
    """
    dense = laid_densely(replace(problem, epilogue=replace(problem.epilogue, residual=None)))
    return {
        "machine": dict(machine_of(target)),
        "threads": threads,
        "algorithm": algorithm,
        "problem": repr(dense),
    }


def _sources() -> str:
    return sources_digest(_PLAN_SOURCES)


def _name(record: Record) -> str:
    """The name of a record: that of an older version of the library is the same."""
    words = (*record["machine"].values(), str(record["threads"]))
    words = (*words, record["algorithm"], record["problem"])
    return digest(["\0".join(words).encode()]).hex()


def _folder(*, make: bool) -> pathlib.Path | None:
    return private_folder(get_settings().cache_dir, WISDOM_FOLDER, make=make)


def _files() -> list[pathlib.Path]:
    folder = _folder(make=False)
    try:
        return [] if folder is None else list(folder.glob("choice-*.json"))
    except OSError:
        return []


def _keep(record: Record) -> None:
    import json

    name, folder = _name(record), _folder(make=True) if record["sources"] else None
    if folder is not None:
        write_private(folder / f"choice-{name}.json", json.dumps(record).encode())
        _remove_oldest()
    _memory.put(name, record)


def _remove_oldest() -> None:
    files = _files()
    if len(files) > MOST_FILES:
        files.sort(key=_modified)
        for path in files[: len(files) - MOST_FILES + MOST_FILES // 8]:
            remove_private(path)


def _modified(path: pathlib.Path) -> float:
    with contextlib.suppress(OSError):
        return path.stat().st_mtime
    return 0.0


def _read(folder: pathlib.Path | None, name: str) -> Record | None:
    return None if folder is None else _read_record(folder / f"choice-{name}.json")


def _read_record(path: pathlib.Path) -> Record | None:
    content = read_private(path, MOST_BYTES)
    record = None if content is None else _loaded(content)
    if record is None or not _is_sound(record):
        return None
    # Under another name it would be the answer to another question.
    return record if path.stem == f"choice-{_name(record)}" else None


def _loaded(text: str | bytes) -> Any:
    """What the JSON ``text`` says; None for what is no JSON, too."""
    with llvm_lock:  # no child may inherit the lock of a module half imported
        import json  # nobody pays for it who has no wisdom

    try:
        return json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return None


def _all_records() -> dict[str, Record]:
    found = {path.stem: _read_record(path) for path in _files()}
    records = {name: record for name, record in found.items() if record is not None}
    return records | {f"choice-{name}": record for name, record in _memory.records.items()}


def _is_sound(record: Any) -> bool:
    """Whether every field of ``record`` is there and can be what we wrote."""
    if not isinstance(record, dict) or tuple(sorted(record)) != tuple(sorted(_FIELDS)):
        return False
    machine, choice, measured = record["machine"], record["choice"], record["measured"]
    return (
        all(type(record[name]) is str for name in ("sources", "algorithm", "problem"))
        and type(record["threads"]) is int
        and isinstance(machine, dict)
        and all(type(value) is str for value in machine.values())
        and isinstance(choice, list)
        and all(type(name) is str for name in choice)
        and isinstance(measured, dict)
        and all(_is_time(value) for value in measured.values())
    )


def _is_time(value: Any) -> bool:
    return type(value) is float and math.isfinite(value) and value > 0
