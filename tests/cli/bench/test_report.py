"""The tables, as they are printed."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("rich")

from rich.console import Console

from nnpack.cli.bench.layers import Layer
from nnpack.cli.bench.report import (
    failure_lines,
    layer_line,
    layer_row,
    layer_table,
    significant,
    slow_lines,
    summary_table,
)
from nnpack.cli.bench.results import LayerResult, Measurement
from tests.cli.bench.fakes import DEPTHWISE, SMALL, report_of, timed

if TYPE_CHECKING:
    from rich.table import Table

GFLOP = SMALL.flops(1) / 1e9
RESULT = LayerResult(
    SMALL,
    1,
    (
        timed("nnpack", GFLOP / 200),
        timed("nnpack-out", GFLOP / 250),
        timed("torch", GFLOP / 100),
        timed("mnn", GFLOP / 400, error=1e-3),
        Measurement("ncnn", False, reason="RuntimeError: ncnn answers -100"),
    ),
)
OTHER = LayerResult(
    DEPTHWISE,
    1,
    (timed("nnpack", 1e-3), timed("nnpack-out", 1e-3), timed("torch", 4e-3), timed("mnn", 2e-3)),
)


def printed(table: Table) -> list[list[str]]:
    """The cells of every line that has any."""
    file = io.StringIO()
    Console(file=file, width=200).print(table)
    lines = file.getvalue().replace("┃", "│").splitlines()
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if "│" in line]


def test_a_row_has_our_time_all_speeds_and_the_ratio() -> None:
    row = layer_row(RESULT, [m.contestant for m in RESULT.measurements])
    name, _, *speeds, _, ratio = [cell.plain for cell in row]
    assert name == "3x3 8->6 @7"
    assert speeds == ["200", "250", "100", "400!", "-"]
    assert ratio == "2.00"


def test_the_best_exact_peer_stands_out() -> None:
    row = layer_row(RESULT, [m.contestant for m in RESULT.measurements])
    assert [cell.plain for cell in row if cell.style == "bold"] == ["100"]


def test_the_table_has_a_heading_for_every_network() -> None:
    lines = printed(layer_table(report_of(RESULT, OTHER)))
    assert [line[0] for line in lines] == [
        "layer",
        "TinyNet",
        SMALL.name,
        "OtherNet",
        DEPTHWISE.name,
    ]


def test_the_summary_has_means_by_kind_over_every_peer() -> None:
    heading, *lines = printed(summary_table(report_of(RESULT, OTHER)))
    assert heading == [
        *("kind", "layers", "best exact peer", "frameworks"),
        *("torch", "mnn", "ncnn", "nnpack-out"),
    ]
    assert lines == [
        ["3x3", "1", "2.00", "2.00", "2.00", "0.50!", "-", "2.50"],
        ["depthwise/2", "1", "2.00", "4.00", "4.00", "2.00", "-", "2.00"],
        ["all", "2", "2.00", "2.83", "2.83", "1.00!", "-", "2.24"],
    ]


def test_the_summary_has_a_line_for_the_networks_that_go_by_name() -> None:
    known = LayerResult(Layer("VGG-A", 8, 6, 7, 3), 1, (timed("nnpack", 1.0), timed("mnn", 3.0)))
    lines = printed(summary_table(report_of(RESULT, known)))
    assert ["seven networks", "1", "3.00"] in [line[:3] for line in lines]


def test_slow_layers_are_listed_the_slowest_first() -> None:
    slow = [LayerResult(SMALL, 1, (timed("nnpack", 1.0), timed("mnn", s))) for s in (0.9, 0.5)]
    head, first, second = slow_lines(report_of(RESULT, *slow))
    assert head.startswith("2 of 3 layers below 0.95")
    assert first.endswith("0.50")
    assert second.endswith("0.90")
    assert slow_lines(report_of(RESULT)) == []


def test_a_finished_layer_is_one_line() -> None:
    line = layer_line(RESULT)
    assert SMALL.name in line
    assert "200 GFLOP/s" in line
    assert "best peer torch" in line
    assert line.endswith("ratio 2.00")


def test_a_layer_that_failed_still_has_its_line() -> None:
    failed = LayerResult(SMALL, 1, (Measurement("nnpack", True, reason="no"),))
    assert SMALL.name in layer_line(failed)


def test_reasons_are_listed() -> None:
    report = report_of(RESULT, unavailable={"openvino": "ModuleNotFoundError: openvino"})
    assert failure_lines(report) == [
        "openvino: not available: ModuleNotFoundError: openvino",
        "ncnn: 3x3 8->6 @7: RuntimeError: ncnn answers -100",
    ]


@pytest.mark.parametrize(
    ("value", "text"), [(1234.5, "1234"), (99.94, "99.9"), (5.678, "5.68"), (0.1234, "0.123")]
)
def test_numbers_have_about_three_digits(value: float, text: str) -> None:
    assert significant(value) == text
