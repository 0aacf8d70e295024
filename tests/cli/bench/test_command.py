"""``nnpack bench`` from end to end, with a fake library and fake peers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("typer")
pytest.importorskip("rich")

import nnpack
from nnpack.cli import main
from nnpack.cli.bench import command, comparison
from nnpack.cli.bench.contestant import Contestant, Operands, Prepared
from nnpack.cli.bench.layers import Layer
from nnpack.cli.bench.results import LayerResult, from_json
from nnpack.cli.bench.session import measure_layer
from tests.cli.bench.fakes import (
    LAYERS,
    OBLONG,
    FakeConv2d,
    broken_peer,
    fake_conv2d,
    fake_peer,
)

if TYPE_CHECKING:
    import pathlib


class InProcess:
    """Measures here and now."""

    def measure(self, *words: Any) -> LayerResult:
        return measure_layer(*words)

    def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(nnpack.__dict__, "Conv2d", FakeConv2d)
    monkeypatch.setitem(nnpack.__dict__, "conv2d", fake_conv2d)
    peers = (
        fake_peer("torch"),
        fake_peer("mnn", 1e-3),
        broken_peer("ncnn"),
        fake_peer("openvino", packages=("no_such_package",)),
    )
    monkeypatch.setattr(command, "PEERS", peers)
    monkeypatch.setattr(command, "LAYERS", LAYERS)
    monkeypatch.setattr(command, "ALL_LAYERS", (*LAYERS, OBLONG))
    # What is patched here is not patched in another process.
    monkeypatch.setattr(comparison, "make_measurer", InProcess)


def bench(*words: str) -> int:
    return main(["bench", "--rounds", "1", "--threads", "1", *words])


def test_every_layer_is_measured_and_written(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "report.json"
    assert bench("--batch", "2", "--json", str(path)) == 0
    report = from_json(path.read_text())
    assert (report.batch, report.threads) == (2, 1)
    assert report.contestants == (
        "nnpack",
        "nnpack-out",
        "nnpack-cold",
        "torch",
        "mnn",
        "ncnn",
    )
    assert list(report.unavailable) == ["openvino"]
    assert [result.layer for result in report.results] == list(LAYERS)
    shown = capsys.readouterr().out
    assert all(layer.name in shown for layer in LAYERS)
    assert "speed-up in geometric mean" in shown
    assert "NotImplementedError: no first large today" in shown


def test_layers_and_peers_can_be_chosen(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "report.json"
    words = ("--filter", "3x3", "--network", "tiny", "--peers", "mnn,torch")
    assert bench(*words, "--json", str(path)) == 0
    report = from_json(path.read_text())
    assert [result.layer for result in report.results] == [LAYERS[0]]
    assert report.contestants[3:] == ("mnn", "torch")


def test_all_layers_are_those_of_the_long_list_with_packed_weights_only(
    tmp_path: pathlib.Path,
) -> None:
    path = tmp_path / "report.json"
    assert bench("--all", "--peers", "torch", "--json", str(path)) == 0
    report = from_json(path.read_text())
    assert [result.layer for result in report.results] == [*LAYERS, OBLONG]
    assert report.contestants == ("nnpack", "torch")


def test_a_kind_is_looked_for_in_the_long_list(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "report.json"
    assert bench("--kind", "dilated 1x3", "--peers", "none", "--json", str(path)) == 0
    assert [result.layer for result in from_json(path.read_text()).results] == [OBLONG]


def test_a_run_is_taken_up_again(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "report.json"
    words = ("--peers", "none", "--json", str(path), "--resume")
    assert bench("--filter", "3x3 8", *words) == 0
    first = from_json(path.read_text()).results[0]
    assert bench(*words) == 0
    report = from_json(path.read_text())
    assert report.results[0] == first
    assert [result.layer for result in report.results] == list(LAYERS)
    assert bench("--batch", "2", *words) == 2
    assert "was measured with batch=1" in " ".join(capsys.readouterr().err.split())


def test_without_peers_we_are_timed_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("--peers", "none") == 0
    assert "best peer" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--filter", "17x17"), "no layer matches"),
        (("--filter", "(3x3"), "no regular expression"),
        (("--peers", "caffe"), "no peer 'caffe'"),
        (("--batch", "0"), "--batch"),
        (("--json", "/no/such/folder/report.json"), "cannot write"),
    ],
)
def test_bad_options_are_refused_before_anything_runs(
    words: tuple[str, ...], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(*words) == 2
    said = capsys.readouterr().err.replace("│", "")
    assert complaint in " ".join(said.split())


def test_a_wrong_output_of_ours_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(
        nnpack.__dict__, "conv2d", lambda *arrays, **options: fake_conv2d(*arrays, **options) * 1.01
    )
    assert bench("--filter", "3x3 8") == 1
    assert "WRONG  3x3 8->6 @7: nnpack-cold: error 1.0e-02" in capsys.readouterr().out


def test_an_interrupt_keeps_what_was_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    def prepare(layer: Layer, operands: Operands, threads: int) -> Prepared:
        if layer == LAYERS[1]:
            raise KeyboardInterrupt
        return fake_peer("torch").prepare(layer, operands, threads)

    monkeypatch.setattr(command, "PEERS", (Contestant("torch", (), prepare),))
    path = tmp_path / "report.json"
    assert bench("--json", str(path)) == 130
    assert len(from_json(path.read_text()).results) == 1


def test_the_threads_of_the_library_are_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    class Recorder(FakeConv2d):
        def __init__(self, weight: Any, bias: Any, **options: Any) -> None:
            seen.append(options["threads"])
            super().__init__(weight, bias, **options)

    monkeypatch.setitem(nnpack.__dict__, "Conv2d", Recorder)
    monkeypatch.setitem(nnpack.__dict__, "get_num_threads", lambda: 1)
    assert main(["bench", "--rounds", "1", "--peers", "none", "--filter", "3x3 8"]) == 0
    assert set(seen) == {1}
