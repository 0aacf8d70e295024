"""``nnpack bench --choice``, on tiny layers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("typer")
pytest.importorskip("rich")

from nnpack.cli import main
from nnpack.cli.bench import command
from nnpack.cli.bench.choice import ChoiceResult, choice_line, measure_choice
from tests.cli.bench.fakes import DEPTHWISE, LAYERS, SMALL

if TYPE_CHECKING:
    import pathlib


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nnpack.tuning.TURN_SECONDS", 0.0)
    monkeypatch.setattr(command, "NETWORKS", LAYERS)


def result(**seconds: float) -> ChoiceResult:
    names = list(seconds)
    return ChoiceResult(SMALL, 2, names[0], dict.fromkeys(names, 1e-3), seconds)


def test_a_choice_is_compared_with_the_fastest() -> None:
    found = result(direct=3e-3, winograd_4=2e-3)
    assert found.best == "winograd_4"
    assert found.ratio == pytest.approx(1.5)
    line = choice_line(found)
    assert line.startswith(f"{SMALL.name} x2")
    assert line.endswith("direct 3.00 ms, winograd_4 2.00 ms: 1.50")


def test_all_that_can_do_a_layer_are_measured_without_variants() -> None:
    found = measure_choice(SMALL, 2, 1, 1e-9)
    assert {"implicit_gemm", "direct", "winograd_2", "fourier_8"} <= set(found.measured)
    assert not any("@" in name for name in found.predicted)
    assert found.chosen in found.measured
    assert min(found.predicted, key=lambda name: found.predicted[name]) == found.chosen
    assert "depthwise" in measure_choice(DEPTHWISE, 1, 1, 1e-9).measured


def test_it_is_shown_written_and_drawn(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    file, plot = tmp_path / "choice.json", tmp_path / "choice.png"
    words = ("--seconds", "1e-9", "--threads", "1", "--json", str(file), "--plot", str(plot))
    assert main(["bench", "--choice", *words]) == 0
    assert "in geometric mean over 3 layers" in " ".join(capsys.readouterr().out.split())
    entries = json.loads(file.read_text())
    assert [entry["name"] for entry in entries] == [layer.name for layer in LAYERS]
    assert all(entry["ratio"] >= 1 for entry in entries)
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_random_problems_can_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--seconds", "1e-9", "--random", "1", "--seed", "1")
    assert main(["bench", "--choice", *words]) == 0
    assert "over 1 layers" in " ".join(capsys.readouterr().out.split())


def test_only_one_thing_is_done_at_a_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--choice", "--batches"]) == 2
    assert "separate runs" in capsys.readouterr().err
