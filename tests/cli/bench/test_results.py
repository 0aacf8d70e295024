"""Medians, ratios, geometric means, and the way through JSON."""

from __future__ import annotations

import json

import pytest

from nnpack.cli.bench.results import (
    FORMAT,
    LayerResult,
    Measurement,
    from_json,
    geometric_mean,
    mean_speedup,
    merge,
    to_json,
)
from tests.cli.bench.fakes import DEPTHWISE, OBLONG, SMALL, STRIDED, report_of, timed


def test_geometric_mean() -> None:
    assert geometric_mean([2.0, 8.0]) == pytest.approx(4.0)
    assert geometric_mean([]) is None


def test_the_time_of_a_contestant_is_the_median_of_its_rounds() -> None:
    assert timed("ncnn", 0.5, 0.1, 0.2).seconds == 0.2
    assert Measurement("ncnn", False).seconds is None


def test_effective_speed_counts_the_operations_of_direct_convolution() -> None:
    result = LayerResult(SMALL, 2, (timed("nnpack", 1e-3),))
    assert result.gflops("nnpack") == pytest.approx(SMALL.flops(2) / 1e6)
    assert result.gflops("absent") is None


def test_the_best_peer_is_exact_and_not_ours() -> None:
    result = LayerResult(
        SMALL,
        1,
        (
            timed("nnpack", 1.0),
            timed("nnpack-out", 0.5),
            timed("mnn", 0.8, error=6e-4),
            timed("ncnn", 2.0),
            timed("torch", 3.0),
            Measurement("openvino", False, reason="absent-minded"),
        ),
    )
    best = result.best_peer
    assert best is not None
    assert best.contestant == "ncnn"
    assert result.speedup("nnpack") == 2.0
    assert result.speedup("nnpack", "torch") == 3.0
    assert result.speedup("nnpack", "mnn") == pytest.approx(0.8)
    assert result.speedup("nnpack", "openvino") is None


def test_without_exact_peers_there_is_no_ratio() -> None:
    result = LayerResult(SMALL, 1, (timed("nnpack", 1.0), timed("mnn", 2.0, error=1e-3)))
    assert result.best_peer is None
    assert result.speedup("nnpack") is None


def test_means_are_by_kind_and_over_all() -> None:
    report = report_of(
        LayerResult(SMALL, 1, (timed("nnpack", 1.0), timed("torch", 2.0))),
        LayerResult(SMALL, 1, (timed("nnpack", 1.0), timed("torch", 8.0))),
        LayerResult(DEPTHWISE, 1, (timed("nnpack", 1.0), timed("torch", 0.5))),
        LayerResult(STRIDED, 1, (timed("nnpack", 1.0), Measurement("torch", False, reason="no"))),
    )
    assert report.kinds == ("3x3", "depthwise/2", "first large")
    assert report.mean_speedup("nnpack", kind="3x3") == pytest.approx(4.0)
    assert report.mean_speedup("nnpack", "torch", "depthwise/2") == pytest.approx(0.5)
    assert report.mean_speedup("nnpack", kind="first large") is None
    assert report.mean_speedup("nnpack") == pytest.approx(2.0)


def test_our_own_failures_are_faults_and_those_of_peers_are_not() -> None:
    report = report_of(
        LayerResult(
            SMALL,
            1,
            (
                timed("nnpack", 1.0, error=2e-3),
                Measurement("nnpack-cold", True, reason="ProblemError: no"),
                timed("mnn", 1.0, error=2e-3),
                Measurement("torch", False, reason="gone"),
            ),
        )
    )
    assert report.faults() == [
        "3x3 8->6 @7: nnpack: error 2.0e-03",
        "3x3 8->6 @7: nnpack-cold: ProblemError: no",
    ]


def test_a_report_survives_json() -> None:
    report = report_of(
        LayerResult(SMALL, 4, (timed("nnpack", 0.25, 0.5), timed("mnn", 1.0, error=1e-3))),
        LayerResult(
            DEPTHWISE,
            4,
            (
                timed("nnpack", 0.125),
                Measurement("mnn", False, error=float("inf"), reason="wrong output"),
            ),
        ),
        unavailable={"torch": "ModuleNotFoundError: No module named 'torch'"},
    )
    assert from_json(to_json(report)) == report


def test_pairs_survive_json_too() -> None:
    report = report_of(LayerResult(OBLONG, 1, (timed("nnpack", 0.25),)))
    assert from_json(to_json(report)) == report


def test_the_best_of_some_peers_counts_where_they_are_named() -> None:
    peers = timed("torch", 4.0), timed("ncnn", 2.0), timed("mnn", 1.0, error=1e-3)
    result = LayerResult(SMALL, 1, (timed("nnpack", 1.0), *peers))
    assert result.speedup("nnpack", ("torch", "openvino")) == 4.0
    assert result.speedup("nnpack", ("mnn", "openvino")) is None
    assert mean_speedup([result], "nnpack", ("torch", "ncnn")) == pytest.approx(2.0)


def test_a_report_is_completed_by_a_former_one() -> None:
    former = report_of(LayerResult(SMALL, 1, (timed("nnpack", 1.0), timed("mnn", 1.0))))
    report = report_of(LayerResult(DEPTHWISE, 1, (timed("nnpack", 1.0), timed("torch", 1.0))))
    merged = merge(report, former)
    assert [result.layer for result in merged.results] == [SMALL, DEPTHWISE]
    assert merged.contestants == ("nnpack", "torch", "mnn")


@pytest.mark.parametrize("change", [{"batch": 2}, {"threads": 1}, {"machine": {}}])
def test_reports_of_other_settings_do_not_mix(change: dict[str, object]) -> None:
    result = LayerResult(SMALL, 1, (timed("nnpack", 1.0),))
    with pytest.raises(ValueError, match="was measured"):
        merge(report_of(result), report_of(result, **change))


def test_the_file_has_the_derived_figures_too() -> None:
    report = report_of(LayerResult(SMALL, 1, (timed("nnpack", 1e-3, 3e-3, 2e-3),)))
    (entry,) = json.loads(to_json(report))["results"]
    assert entry["layer"]["name"] == SMALL.name
    assert entry["layer"]["kind"] == "3x3"
    assert entry["measurements"][0]["seconds"] == 2e-3
    assert entry["measurements"][0]["gflops"] == pytest.approx(SMALL.flops(1) / 2e6)


@pytest.mark.parametrize("text", ['{"format": 99}', "[]", "3"])
def test_other_files_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a report"):
        from_json(text)


@pytest.mark.parametrize("rest", ["", ', "results": 3', ', "results": [[]]'])
def test_damaged_reports_are_refused(rest: str) -> None:
    with pytest.raises(ValueError, match="damaged"):
        from_json(f'{{"format": {FORMAT}{rest}}}')
