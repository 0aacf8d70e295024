"""``nnpack tune`` from end to end, on tiny layers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("typer")
pytest.importorskip("rich")

import nnpack
from nnpack.cli import main, tune
from nnpack.cli.bench import command
from nnpack.cli.bench.layers import Layer
from nnpack.codegen.target import Rates, host_target

if TYPE_CHECKING:
    import pathlib

LAYERS = (
    Layer("Tiny", 4, 8, 10, 3, padding=1),
    Layer("Tiny", 8, 8, 6, 1),
    Layer("Other", 8, 8, 9, 3, stride=2, groups=8),
)
MEASURED = Rates(3.5e9, 2.0, 1e11, 9e10, 1.5e10)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(command, "LAYERS", LAYERS)
    monkeypatch.setattr(command, "ALL_LAYERS", LAYERS)
    monkeypatch.setattr("nnpack.tuning.TURN_SECONDS", 0.0)
    nnpack.forget_wisdom()
    yield
    nnpack.forget_wisdom()


def run(*words: str) -> int:
    return main(["tune", *words])


def known() -> int:
    return len(json.loads(nnpack.export_wisdom())["outcomes"])


def test_layers_are_measured_shown_and_kept(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--seconds", "1e-9", "--threads", "1", "--batch", "2") == 0
    shown = capsys.readouterr().out
    assert all(layer.name in shown for layer in LAYERS)
    assert "batch 2, 1 threads" in shown
    assert known() == len(LAYERS)


def test_some_layers_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--seconds", "1e-9", "--network", "tiny", "--filter", "^1x1") == 0
    assert LAYERS[0].name not in capsys.readouterr().out
    assert known() == 1
    assert run("--filter", "nothing like it") == 2


def test_wisdom_is_exported_imported_and_forgotten(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "wisdom.json"
    run("--seconds", "1e-9", "--filter", "^1x1")
    assert run("--export", str(file)) == 0
    assert run("--forget") == 0
    assert known() == 0
    assert run("--import", str(file)) == 0
    assert "kept 1 outcomes" in capsys.readouterr().out
    assert known() == 1


@pytest.mark.parametrize("option", ["--import", "--export"])
def test_a_file_that_cannot_be_used_is_an_error(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    assert run(option, str(tmp_path / "no" / "such")) == 2
    assert f"{option} {tmp_path}" in capsys.readouterr().err


def test_a_file_without_wisdom_is_an_error(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("{}")
    assert run("--import", str(tmp_path / "file")) == 2
    assert "export_wisdom" in capsys.readouterr().err


def test_calibration_is_kept_until_forgotten(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tune, "measure_rates", lambda _target: MEASURED)
    shipped = host_target().rates
    assert run("--calibrate") == 0
    assert "copies L2, L3, memory at 100, 90, 15 GB/s (measured here)" in capsys.readouterr().out
    assert host_target().rates == MEASURED
    assert run("--forget") == 0
    assert host_target().rates == shipped
