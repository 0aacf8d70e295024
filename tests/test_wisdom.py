"""Measured choices are found again where they hold; whatever is wrong with them is no error."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import nnpack
from nnpack import wisdom
from nnpack.codegen import rates
from nnpack.codegen.target import AVX2, AVX512, host_target
from nnpack.planner import explain, make_plan
from nnpack.problem import Problem
from nnpack.settings import Settings
from nnpack.wisdom import Outcome, keep, recall
from tests.codegen.kernels import run_script

PROBLEM = Problem.conv2d((1, 8, 20, 20), (16, 8, 3, 3), padding=1)
OUTCOME = Outcome(("direct",), {"direct": 1e-5, "implicit_gemm": 2e-5})


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Nothing known; where files will be."""
    for module in (wisdom, rates):
        monkeypatch.setattr(module, "get_settings", lambda: Settings(cache_dir=tmp_path))
    wisdom._memory.clear()
    yield tmp_path / "wisdom"
    wisdom._memory.clear()


def _recall_anew() -> Outcome | None:
    """What another process would find."""
    wisdom._memory.clear()
    return recall(PROBLEM, "auto", AVX2, 1)


def test_what_is_kept_is_recalled_by_this_process_and_others(folder: Path) -> None:
    assert recall(PROBLEM, "auto", AVX2, 1) is None
    assert not folder.exists()
    keep(PROBLEM, "auto", AVX2, 1, OUTCOME)
    assert recall(PROBLEM, "auto", AVX2, 1) == OUTCOME
    assert _recall_anew() == OUTCOME
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_the_last_outcome_counts() -> None:
    keep(PROBLEM, "auto", AVX2, 1, Outcome(("winograd_2",), {"winograd_2": 1.0}))
    keep(PROBLEM, "auto", AVX2, 1, OUTCOME)
    assert _recall_anew() == OUTCOME


def test_other_questions_have_other_answers() -> None:
    keep(PROBLEM, "auto", AVX2, 1, OUTCOME)
    other = Problem.conv2d((2, 8, 20, 20), (16, 8, 3, 3), padding=1)
    assert recall(other, "auto", AVX2, 1) is None
    assert recall(PROBLEM, "winograd", AVX2, 1) is None
    assert recall(PROBLEM, "auto", AVX512, 1) is None
    assert recall(PROBLEM, "auto", AVX2, 2) is None


def test_a_slice_of_channels_is_the_same_question() -> None:
    keep(PROBLEM, "auto", AVX2, 1, OUTCOME)
    words: dict[str, Any] = {"padding": 1, "x_strides": (12800, 800, 40)}
    slices = Problem.conv2d((1, 8, 20, 20), (16, 8, 3, 3), **words)
    assert recall(slices, "auto", AVX2, 1) == OUTCOME


def test_without_a_folder_a_process_still_remembers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wisdom, "get_settings", lambda: Settings(cache_dir=None))
    keep(PROBLEM, "auto", AVX2, 1, OUTCOME)
    assert recall(PROBLEM, "auto", AVX2, 1) == OUTCOME
    assert _recall_anew() is None


def test_another_processor_does_not_believe_it(monkeypatch: pytest.MonkeyPatch) -> None:
    keep(PROBLEM, "auto", AVX2, 1, OUTCOME)
    text = nnpack.export_wisdom()
    monkeypatch.setattr(wisdom, "machine_of", lambda _target: {"processor": "another"})
    monkeypatch.setattr(wisdom, "processor_name", lambda: "another")
    assert _recall_anew() is None
    assert nnpack.import_wisdom(text) == 0
    assert recall(PROBLEM, "auto", AVX2, 1) is None


def test_other_sources_do_not_believe_it(monkeypatch: pytest.MonkeyPatch) -> None:
    keep(PROBLEM, "auto", AVX2, 1, OUTCOME)
    text = nnpack.export_wisdom()
    monkeypatch.setattr(wisdom, "_sources", lambda: "of another version")
    assert recall(PROBLEM, "auto", AVX2, 1) is None
    assert _recall_anew() is None
    assert json.loads(nnpack.export_wisdom())["outcomes"] == []
    assert nnpack.import_wisdom(text) == 0


def _with(**changes: object) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda record: {**record, **changes}


DAMAGE: dict[str, Callable[[dict[str, Any]], object]] = {
    "nothing": lambda _: None,
    "a list": lambda record: [record],
    "a field too many": _with(more=1),
    "a field too few": lambda record: {k: v for k, v in record.items() if k != "choice"},
    "threads of text": _with(threads="1"),
    "threads of another": _with(threads=2),
    "a problem of numbers": _with(problem=1),
    "another problem": _with(problem="Problem()"),
    "no machine": _with(machine=None),
    "a machine of numbers": _with(machine={"processor": 1}),
    "a choice of text": _with(choice="direct"),
    "a choice of numbers": _with(choice=[1]),
    "times of text": _with(measured={"direct": "1"}),
    "negative times": _with(measured={"direct": -1.0}),
    "infinite times": _with(measured={"direct": float("inf")}),
    "no times": _with(measured=None),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_files_are_not_believed(
    folder: Path, damage: Callable[[dict[str, Any]], object]
) -> None:
    keep(PROBLEM, "auto", AVX2, 1, OUTCOME)
    (file,) = folder.iterdir()
    file.write_text(json.dumps(damage(json.loads(file.read_text()))))
    assert _recall_anew() is None
    assert json.loads(nnpack.export_wisdom())["outcomes"] == []


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 60000, b" " * (1 << 17)])
def test_files_that_are_no_json_are_not_believed(folder: Path, content: bytes) -> None:
    keep(PROBLEM, "auto", AVX2, 1, OUTCOME)
    (file,) = folder.iterdir()
    file.write_bytes(content)
    assert _recall_anew() is None
    keep(PROBLEM, "auto", AVX2, 1, OUTCOME)
    assert _recall_anew() == OUTCOME


def test_files_that_others_may_write_are_not_believed(folder: Path) -> None:
    keep(PROBLEM, "auto", AVX2, 1, OUTCOME)
    (file,) = folder.iterdir()
    file.chmod(0o622)
    assert _recall_anew() is None
    file.chmod(0o600)
    folder.chmod(0o777)
    assert _recall_anew() is None


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="there are no owners")
def test_files_of_others_are_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    keep(PROBLEM, "auto", AVX2, 1, OUTCOME)
    mine = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: mine + 1)
    assert _recall_anew() is None


def test_a_disk_that_refuses_is_no_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", refuse)
        keep(PROBLEM, "auto", AVX2, 1, OUTCOME)
    assert recall(PROBLEM, "auto", AVX2, 1) == OUTCOME
    assert list(folder.iterdir()) == []


def test_the_oldest_files_go_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wisdom, "MOST_FILES", 8)
    monkeypatch.setattr(wisdom, "MOST_IN_MEMORY", 4)
    for threads in range(1, 12):
        keep(PROBLEM, "auto", AVX2, threads, OUTCOME)
        for path in folder.iterdir():
            os.utime(path, (path.stat().st_mtime - 10,) * 2)
    assert len(list(folder.iterdir())) <= 8
    assert len(wisdom._memory.records) == 4
    assert _recall_anew() is None
    assert recall(PROBLEM, "auto", AVX2, 11) == OUTCOME


def test_wisdom_travels_as_text(folder: Path) -> None:
    for threads in (1, 2):
        keep(PROBLEM, "auto", AVX2, threads, OUTCOME)
    text = nnpack.export_wisdom()
    nnpack.forget_wisdom()
    assert list(folder.iterdir()) == []
    assert _recall_anew() is None
    assert nnpack.import_wisdom(text) == 2
    assert _recall_anew() == OUTCOME
    assert json.loads(nnpack.export_wisdom()) == json.loads(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no wisdom",
        "[]",
        "{}",
        '{"outcomes": []}',
        '{"format": "nnpack wisdom 0", "outcomes": []}',
        '{"format": "nnpack wisdom 1", "outcomes": [{}]}',
        "[" * 60000,
    ],
)
def test_text_that_is_no_wisdom_is_refused(folder: Path, text: str) -> None:
    with pytest.raises(nnpack.ProblemError, match="text"):
        nnpack.import_wisdom(text)
    assert not folder.exists()


def test_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    script = """
from nnpack.codegen.target import AVX2
from nnpack.wisdom import keep
from tests.test_wisdom import OUTCOME, PROBLEM
for n in range(20):
    keep(PROBLEM, "auto", AVX2, 1 + n, OUTCOME)
    keep(PROBLEM, "auto", AVX2, {} + n, OUTCOME)
"""
    running = [run_script(script.format(100 * k), tmp_path) for k in (1, 2, 3)]
    assert [process.wait() for process in running] == [0, 0, 0]
    for process in running:
        process.communicate()
    assert len(json.loads(nnpack.export_wisdom())["outcomes"]) == 80


def test_the_planner_follows_wisdom_and_forgets_it() -> None:
    target = host_target()
    predicted = make_plan(PROBLEM, "auto", target, 1).algorithm
    other = next(name for name in ("direct", "implicit_gemm") if name != predicted)
    keep(PROBLEM, "auto", target, 1, Outcome((other,), {other: 1e-5}))
    assert make_plan(PROBLEM, "auto", target, 1).algorithm == other
    assert make_plan(PROBLEM, "auto", target, 2).algorithm == predicted
    explanation = explain(PROBLEM, "auto", target, 1)
    assert (explanation.chosen, explanation.measured) == (other, True)
    assert {c.algorithm: c.measured for c in explanation.candidates}[other] == 1e-5
    assert "chosen as measured" in str(explanation)
    assert " 0.010 " in str(explanation)
    nnpack.forget_wisdom()
    assert make_plan(PROBLEM, "auto", target, 1).algorithm == predicted


@pytest.mark.parametrize("name", ["pointwise", "winograd_6", "no_algorithm"])
def test_wisdom_that_cannot_be_followed_is_not(name: str) -> None:
    """Refused, not accurate enough, or unknown: it costs nothing but the choice."""
    exact = Problem.conv2d((1, 64, 40, 40), (16, 64, 3, 3), padding=1, accuracy="exact")
    target = host_target()
    predicted = make_plan(exact, "auto", target, 1).algorithm
    for choice in ((name,), (name, name), ()):
        keep(exact, "auto", target, 1, Outcome(choice, {name: 1e-9}))
        assert make_plan(exact, "auto", target, 1).algorithm == predicted
        assert not explain(exact, "auto", target, 1).measured


def test_wisdom_does_not_hold_where_weights_are_packed_at_each_call() -> None:
    keep(PROBLEM, "auto", AVX2, 1, OUTCOME)
    assert make_plan(PROBLEM, "auto", AVX2, 1).algorithm == "direct"
    predicted = explain(PROBLEM, "auto", AVX2, 1, packs=True)
    assert make_plan(PROBLEM, "auto", AVX2, 1, packs=True).algorithm == predicted.chosen
    assert all(candidate.measured is None for candidate in predicted.candidates)
