"""The bar plot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

pytest.importorskip("rich")

from nnpack.cli.bench.plot import (
    MOST_LAYERS,
    fastest,
    panels,
    present_families,
    save_plot,
    times_as_fast,
)
from nnpack.cli.bench.results import LayerResult, Measurement
from tests.cli.bench.fakes import DEPTHWISE, SMALL, report_of, timed

if TYPE_CHECKING:
    import pathlib

RESULT = LayerResult(
    SMALL,
    1,
    (
        timed("nnpack", 1.0),
        timed("torch", 4.0),
        timed("torch-cl", 1.0, error=1e-2),
        timed("onednn-cl", 3.0),
        timed("mnn", 1.0, error=1e-3),
        Measurement("ncnn", False, reason="no"),
    ),
)


def test_a_family_is_drawn_by_its_fastest_exact_member() -> None:
    names = {family: fastest(RESULT, family) for family in ("nnpack", "torch", "mnn", "ncnn")}
    assert {family: m.contestant for family, m in names.items() if m} == {
        "nnpack": "nnpack",
        "torch": "onednn-cl",
        "mnn": "mnn",
    }


def test_families_that_were_not_timed_have_no_bars() -> None:
    assert present_families(report_of(RESULT)) == ["nnpack", "torch", "mnn"]


def test_panels_are_by_kind_and_not_too_wide() -> None:
    other = LayerResult(DEPTHWISE, 1, (timed("nnpack", 1.0),))
    found = panels(report_of(*[RESULT] * 12, other))
    assert [(title, len(results)) for title, results in found] == [
        ("3x3", 10),
        ("3x3", 2),
        ("depthwise", 1),
    ]


def test_the_file_is_a_png(tmp_path: pathlib.Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "plot.png"
    save_plot(report_of(RESULT, LayerResult(DEPTHWISE, 1, (timed("nnpack", 1.0),))), path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_of_many_layers_the_kinds_are_shown(tmp_path: pathlib.Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "kinds.png"
    other = LayerResult(DEPTHWISE, 1, (timed("nnpack", 1.0),))
    save_plot(report_of(*[RESULT] * MOST_LAYERS, other), path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_ratios_are_geometric_means_over_a_kind() -> None:
    def result(peer: float) -> LayerResult:
        return LayerResult(DEPTHWISE, 1, (timed("nnpack", 1.0), timed("ncnn", peer)))

    report = report_of(result(2.0), result(8.0), RESULT)
    assert times_as_fast(report, DEPTHWISE.kind, "ncnn") == pytest.approx(4.0)
    assert times_as_fast(report, DEPTHWISE.kind, "openvino") == 0.0
