"""``nnpack demo`` from its options to the pictures it writes; the network is a stand-in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from nnpack.cli.demo import command, obtaining, picture, upconv, weights
from nnpack.cli.demo.errors import DemoError, NcnnFormatError, PictureError, WeightsError
from nnpack.settings import Settings
from tests.cli.demo.synthetic import nearest_doubling, random_layers, weight_file

WEIGHTS = weight_file(random_layers(upconv.SHAPES))


@pytest.fixture(autouse=True)
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No network of either kind: pixels are repeated, and a download is an error."""

    def offline(*_: object) -> bytes:
        raise WeightsError("offline")

    monkeypatch.setattr(upconv.Upconv7, "from_weights", lambda *_, **__: nearest_doubling)
    monkeypatch.setattr(weights, "_download", offline)
    monkeypatch.setattr(obtaining, "get_settings", lambda: Settings(cache_dir=tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.bin").write_bytes(WEIGHTS)


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (41, 61, 3), np.uint8)
    picture.write_picture(path, pixels)
    return path


def run(*words: object) -> str:
    """What the command prints; raises what it raises."""
    application = typer.Typer()
    application.command()(command.demo)
    result = CliRunner().invoke(application, [str(word) for word in words])
    if isinstance(result.exception, DemoError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return str(result.output)


def test_a_picture_of_the_users_is_enlarged_as_it_is(photograph: Path) -> None:
    output = run(photograph, "--weights", "mine.bin", "--tile", 16)
    enlarged = picture.read_picture(Path("photo-2x.png"))
    original = picture.read_picture(photograph)
    np.testing.assert_array_equal(enlarged, original.repeat(2, axis=0).repeat(2, axis=1))
    assert "wrote photo-2x.png" in output
    assert "effective GFLOP/s" in output
    assert "12/12 tiles" in output
    assert "PSNR" not in output


def test_evaluate_halves_it_and_measures_against_the_original(photograph: Path) -> None:
    output = run(photograph, "--weights", "mine.bin", "--evaluate", "-o", "out.png")
    assert picture.read_picture(Path("out.png")).shape == (40, 60, 3)
    assert "PSNR" in output
    assert "bicubic" in output


def test_without_a_picture_the_sample_is_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = np.zeros((32, 33, 3), np.uint8)
    monkeypatch.setattr(picture, "sample_picture", lambda: sample)
    output = run("--weights", "mine.bin")
    assert picture.read_picture(Path("chelsea-2x.png")).shape == (32, 32, 3)
    assert "PSNR" in output


def test_the_comparison_shows_the_original_where_there_is_one(photograph: Path) -> None:
    options = (photograph, "--weights", "mine.bin", "--comparison", "detail.png")
    run(*options)
    assert picture.read_picture(Path("detail.png")).shape[1] == 2 * 2 * 122
    run(*options, "--evaluate")
    assert picture.read_picture(Path("detail.png")).shape[1] == 3 * 2 * 60


def test_weights_it_does_not_know_are_mentioned(photograph: Path) -> None:
    assert "none of the weight files this demo knows" in run(photograph, "--weights", "mine.bin")


def test_cached_weights_need_no_download(photograph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path("cache/weights")
    folder.mkdir(parents=True)
    monkeypatch.setattr(weights.Model, "accepts", lambda _, data: data == WEIGHTS)
    (folder / weights.MODELS[2].file).write_bytes(WEIGHTS)
    assert "wrote" in run(photograph, "--denoise", 2)
    with pytest.raises(WeightsError, match="offline"):
        run(photograph, "--denoise", 3)


def test_an_output_that_cannot_be_written_is_told_first(photograph: Path) -> None:
    with pytest.raises(PictureError, match="missing"):
        run(photograph, "--weights", "missing.bin", "-o", "missing/out.png")


def test_malformed_weights_are_refused(photograph: Path) -> None:
    Path("mine.bin").write_bytes(WEIGHTS[:1000])
    with pytest.raises(NcnnFormatError, match="is the file complete"):
        run(photograph, "--weights", "mine.bin")
    assert not Path("photo-2x.png").exists()


@pytest.mark.parametrize("option", [("--denoise", 4), ("--tile", 0), ("--threads", 0)])
def test_options_out_of_range_are_refused(photograph: Path, option: tuple[str, int]) -> None:
    with pytest.raises(AssertionError, match="Invalid value"):
        run(photograph, *option)
