"""NNPACK_VERBOSE: one line of CSV for each plan, refusal, measurement and call."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import nnpack
from nnpack import tuning, verbose
from nnpack.execution import ReportedProgram
from nnpack.settings import Settings

SHAPE = "x1x2x9x7 w3x2x3x3 s1x1 p0x0x0x0 d1x1 g1"


@pytest.fixture(autouse=True)
def nothing_planned(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(verbose, "get_settings", lambda: Settings(verbose=True))
    nnpack.forget_wisdom()
    yield
    nnpack.forget_wisdom()


def _lines(capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    lines = list(csv.reader(capsys.readouterr().err.splitlines()))
    assert all(len(line) == 8 and line[0] == "nnpack" for line in lines)
    return lines


def _arrays() -> tuple[Any, Any]:
    return np.ones((1, 2, 9, 7), np.float32), np.ones((3, 2, 3, 3), np.float32)


def test_a_plan_its_refusals_and_each_call_have_a_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    x, weight = _arrays()
    layer = nnpack.Conv2d(weight, threads=1)
    for _ in range(2):
        layer(x)
    lines = _lines(capsys)
    events = [line[1] for line in lines]
    assert events == ["refused"] * (len(lines) - 3) + ["plan", "call", "call"]
    assert {(line[2], line[5], line[6]) for line in lines} == {("conv2d", SHAPE, "1")}
    refusals = {line[3]: line[4] for line in lines if line[1] == "refused"}
    assert refusals["pointwise"] == "needs a 1x1 kernel, got 3x3"
    assert len({tuple(line[3:5]) for line in lines[-3:]}) == 1
    assert lines[-3][3] == layer.explain(x.shape).chosen
    assert all(float(line[7]) >= 0 for line in lines[-3:])


def test_functions_have_their_lines_too(capsys: pytest.CaptureFixture[str]) -> None:
    x, weight = _arrays()
    nnpack.conv2d(x, weight, threads=1)
    nnpack.conv2d(x, weight, threads=1)
    assert [line[1] for line in _lines(capsys)][-3:] == ["plan", "call", "call"]


def test_transposed_convolutions_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    x, _ = _arrays()
    nnpack.conv_transpose2d(x, np.ones((2, 3, 3, 3), np.float32), threads=1)
    assert {line[2] for line in _lines(capsys)} == {"conv_transpose2d"}


def test_measurements_have_lines_and_plans_say_that_they_follow_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "TURN_SECONDS", 0.0)
    x, weight = _arrays()
    layer = nnpack.Conv2d(weight, threads=1)
    layer.tune(x.shape, seconds=1e-9)
    layer(x)
    lines = _lines(capsys)
    # What is measured twice, beside its variants too, keeps the lesser time.
    measured = {(line[3], line[7]) for line in lines if line[1] == "tune"}
    (followed,) = (line for line in lines if line[1] == "wisdom")
    assert (followed[3], followed[7]) in measured


def test_nothing_is_said_and_no_call_is_timed_otherwise(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verbose, "get_settings", Settings)
    x, weight = _arrays()
    layer = nnpack.Conv2d(weight, threads=1)
    layer(x)
    (prepared,) = layer._weights.prepared.values()
    assert not isinstance(prepared.program, ReportedProgram)
    assert capsys.readouterr().err == ""


def test_whatever_else_is_computed_has_a_line_a_call(capsys: pytest.CaptureFixture[str]) -> None:
    x = np.ones((1, 2, 9, 7), np.float32)
    # Of sizes that nothing else asks for: a program that is kept reports as when it was made.
    nnpack.max_pool2d(x[:, :, :, :5], 3, threads=1)
    nnpack.softmax(np.ones((3, 1237), np.float32), threads=1)
    nnpack.conv2d_weight_gradient(x, np.ones((1, 3, 7, 5), np.float32), (3, 2, 3, 3), threads=1)
    nnpack.activation_gradient(x[0, 0, 0], x[0, 0, 0], nnpack.Mish(), threads=1)
    nnpack.Linear(x[0, 0], threads=1)(x)
    lines = [line for line in _lines(capsys) if line[1] == "call"]
    names = ["pool", "softmax", "weight_gradient", "activation_gradient", "product"]
    assert [line[2] for line in lines] == names
    assert "1237" in lines[1][5]
    assert lines[2][5].startswith(SHAPE)


def test_a_network_has_one_line_a_call(capsys: pytest.CaptureFixture[str]) -> None:
    x, weight = _arrays()
    network = nnpack.Network([nnpack.Conv2d(weight)], threads=1)
    network(x)
    network(x)
    lines = [line for line in _lines(capsys) if line[1] == "call"]
    assert [line[2] for line in lines] == ["network"] * 2
    assert lines[0][5] == "layers=1 x=1x2x9x7"


def test_no_standard_error_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)
    nnpack.softmax(np.ones((3, 1239), np.float32), threads=1)
