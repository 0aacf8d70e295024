"""Pictures are read, written, halved and compared."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nnpack.cli.demo import picture
from nnpack.cli.demo.errors import PictureError
from nnpack.cli.demo.tiles import Pixels


def noise(height: int, width: int) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_a_written_picture_reads_back(tmp_path: Path) -> None:
    pixels = noise(5, 7)
    picture.write_picture(tmp_path / "a.png", pixels)
    np.testing.assert_array_equal(picture.read_picture(tmp_path / "a.png"), pixels)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_every_kind_of_picture_is_read_as_three_colours(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.tiff"
    Image.new(mode, (4, 3)).save(path)
    pixels = picture.read_picture(path)
    assert pixels.shape == (3, 4, 3)
    assert pixels.dtype == np.uint8


def test_a_photograph_taken_sideways_is_turned_upright(tmp_path: Path) -> None:
    image, exif = Image.fromarray(noise(4, 6)), Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.png", exif=exif)
    assert picture.read_picture(tmp_path / "a.png").shape == (6, 4, 3)


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n damaged"])
def test_what_is_no_picture_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(PictureError, match="cannot read the picture"):
        picture.read_picture(tmp_path / "a.png")


def test_a_truncated_picture_is_refused(tmp_path: Path) -> None:
    picture.write_picture(tmp_path / "a.png", noise(50, 50))
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(PictureError, match="cannot read the picture"):
        picture.read_picture(tmp_path / "a.png")


def test_a_picture_that_would_fill_the_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture.write_picture(tmp_path / "a.png", noise(50, 50))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    with pytest.raises(PictureError, match="exceeds limit"):
        picture.read_picture(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["missing/a.png", "a.unknown", "a", "."])
def test_what_cannot_be_written_is_told_before_the_work(tmp_path: Path, name: str) -> None:
    with pytest.raises(PictureError, match="cannot write"):
        picture.check_writable(tmp_path / name)


def test_an_odd_last_row_and_column_are_dropped_before_halving() -> None:
    assert picture.even(noise(5, 7)).shape == (4, 6, 3)
    assert picture.halve(picture.even(noise(5, 7))).shape == (2, 3, 3)
    with pytest.raises(PictureError, match="7x1 pixels cannot be halved"):
        picture.even(noise(1, 7))


def test_a_flat_picture_survives_halving_and_doubling() -> None:
    flat = np.full((8, 6, 3), (10, 200, 30), np.uint8)
    np.testing.assert_array_equal(picture.double(picture.halve(flat)), flat)


def test_psnr_is_that_of_the_definition() -> None:
    pixels = np.full((4, 4, 3), 100, np.uint8)
    assert picture.psnr(pixels, pixels) == math.inf
    assert picture.psnr(pixels + np.uint8(1), pixels) == pytest.approx(48.13, abs=0.01)
    # One level of 255 is 219 / 255 of a level of luma.
    assert picture.luma_psnr(pixels + np.uint8(1), pixels) == pytest.approx(49.45, abs=0.01)


@pytest.mark.parametrize("size", [(3, 5), (400, 200)])
def test_a_comparison_shows_the_same_detail_of_each(size: tuple[int, int]) -> None:
    black, white = np.zeros((*size, 3), np.uint8), np.full((*size, 3), 255, np.uint8)
    sheet = picture.compare({"a": black, "b": white})
    width = sheet.shape[1] // 2
    assert width == 2 * min(size[1], 150)
    assert (sheet[-1, :width] == 0).all()
    assert (sheet[-1, width:] == 255).all()


def test_sixteen_bits_a_sample_are_scaled_and_floats_refused(tmp_path: Path) -> None:
    path = tmp_path / "grey.png"
    Image.fromarray(np.full((2, 3), 40000, np.uint16)).save(path)
    assert (picture.read_picture(path) == 40000 // 257).all()
    path = tmp_path / "floats.tiff"
    Image.fromarray(np.full((2, 3), 0.5, np.float32)).save(path)
    with pytest.raises(PictureError, match="floats"):
        picture.read_picture(path)
