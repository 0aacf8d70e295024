"""``nnpack bench --batches``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

pytest.importorskip("typer")
pytest.importorskip("rich")

from nnpack.cli import main
from nnpack.cli.bench import batches, command
from nnpack.cli.bench.batches import BatchResult, measure_batches
from nnpack.cli.bench.timing import Schedule
from tests.cli.bench.fakes import DEPTHWISE, SMALL

if TYPE_CHECKING:
    import pathlib


def test_growth_is_of_a_larger_batch_against_a_smaller_one() -> None:
    assert BatchResult(SMALL, {1: 1.0, 2: 0.5, 4: 0.6}).growth == pytest.approx(1.2)
    assert BatchResult(SMALL, {1: 1.0, 2: 0.9, 4: 0.8}).growth < 1


def test_every_batch_is_timed_on_the_same_images() -> None:
    result = measure_batches(SMALL, 1, Schedule(rounds=1), batches=(1, 2, 6))
    assert list(result.seconds) == [1, 2, 6]
    assert all(seconds > 0 for seconds in result.seconds.values())


def test_it_is_shown_and_drawn(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(command, "TYPICAL_LAYERS", (SMALL, DEPTHWISE))
    monkeypatch.setattr(batches, "BATCHES", (1, 2))
    plot = tmp_path / "batches.png"
    assert main(["bench", "--batches", "--rounds", "1", "--plot", str(plot)]) == 0
    shown = capsys.readouterr().out
    assert SMALL.name in shown
    assert "growth" in shown
    assert plot.read_bytes().startswith(b"\x89PNG")
