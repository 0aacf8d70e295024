"""Photographs: read, written, halved, enlarged by bicubic interpolation, and compared.

The only place of the demo that imports Pillow and scikit-image. A picture is an ``(h, w, 3)``
uint8 array, red first.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps

from nnpack.cli.demo.errors import PictureError
from nnpack.cli.demo.tiles import Pixels

__all__ = [
    "centre_square",
    "check_writable",
    "compare",
    "double",
    "even",
    "halve",
    "luma_psnr",
    "psnr",
    "read_picture",
    "sample_picture",
    "write_picture",
]

_CROP = 150
_MAGNIFY = 2
_CAPTION_HEIGHT = 28
# ITU-R BT.601, 8 bits: 219 levels from black to white.
_LUMA = np.array([65.481, 128.553, 24.966]) / 255


def sample_picture() -> Pixels:
    """``chelsea``, a cat photographed by Stéfan van der Walt (CC0), from scikit-image."""
    from skimage import data

    return np.asarray(data.chelsea(), np.uint8)


def read_picture(path: Path) -> Pixels:
    """Read a picture, upright, without its transparency. Raises PictureError."""
    try:
        with warnings.catch_warnings():
            # A few bytes may unpack to a picture larger than memory: Pillow only warns at first.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                upright = _eight_bit(ImageOps.exif_transpose(image)).convert("RGB")
    except (OSError, SyntaxError, ValueError, Warning, Image.DecompressionBombError) as error:
        raise PictureError(f"cannot read the picture {path}: {error}") from error
    return np.asarray(upright)


def _eight_bit(image: Image.Image) -> Image.Image:
    """The picture with 8 bits a sample: Pillow itself would clip 16-bit ones to white."""
    if image.mode.startswith("I;16") or image.mode == "I":
        samples = np.asarray(image).astype(np.int64) // 257
        return Image.fromarray(samples.clip(0, 255).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("it holds floats, whose range is not known; save it with 8 or 16 bits")
    return image


def check_writable(path: Path) -> None:
    """Say before the work, not after it, that a picture cannot be written there."""
    if not path.parent.is_dir():
        raise PictureError(f"cannot write {path}: there is no folder {path.parent}")
    if path.is_dir():
        raise PictureError(f"cannot write {path}: it is a folder")
    if path.suffix.lower() not in Image.registered_extensions():
        raise PictureError(f"cannot write {path}: name it .png (or .jpg, .webp, .tiff)")


def write_picture(path: Path, pixels: Pixels) -> None:
    """Write the picture in the format that the file's name tells. Raises PictureError."""
    try:
        Image.fromarray(pixels).save(path)
    except (OSError, ValueError) as error:
        raise PictureError(f"cannot write {path}: {error}") from error


def even(pixels: Pixels) -> Pixels:
    """Drop an odd last row and column, so that the picture can be halved exactly."""
    height, width, _ = pixels.shape
    if min(height, width) < 2:
        raise PictureError(f"a picture of {width}x{height} pixels cannot be halved")
    return pixels[: height // 2 * 2, : width // 2 * 2]


def centre_square(pixels: Pixels, side: int) -> Pixels:
    """The largest square in the middle of a picture, (side, side, 3) by bicubic interpolation."""
    height, width, _ = pixels.shape
    extent = min(height, width)
    top, left = (height - extent) // 2, (width - extent) // 2
    square = Image.fromarray(pixels[top : top + extent, left : left + extent])
    return np.asarray(square.resize((side, side), Image.Resampling.BICUBIC))


def halve(pixels: Pixels) -> Pixels:
    """Half the size by antialiased bicubic reduction, as super-resolution is usually measured."""
    height, width, _ = pixels.shape
    return _resize(pixels, width // 2, height // 2)


def double(pixels: Pixels) -> Pixels:
    """Twice the size by bicubic interpolation: what the network has to beat."""
    height, width, _ = pixels.shape
    return _resize(pixels, 2 * width, 2 * height)


def psnr(pixels: Pixels, reference: Pixels) -> float:
    """Peak signal-to-noise ratio over red, green and blue, in dB; infinite when equal."""
    return _decibels(pixels.astype(np.float64), reference.astype(np.float64))


def luma_psnr(pixels: Pixels, reference: Pixels) -> float:
    """Return the PSNR of the brightness (Y of BT.601) alone, the figure papers give, in dB."""
    return _decibels(pixels @ _LUMA, reference @ _LUMA)


def compare(pictures: dict[str, Pixels]) -> Pixels:
    """Show the middle of pictures of one size, magnified, side by side under their names."""
    crops = {name: _middle(pixels) for name, pixels in pictures.items()}
    height, width, _ = next(iter(crops.values())).shape
    width, height = _MAGNIFY * width, _MAGNIFY * height
    sheet = Image.new("RGB", (width * len(crops), height + _CAPTION_HEIGHT), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=16)
    for index, (name, crop) in enumerate(crops.items()):
        magnified = Image.fromarray(crop).resize((width, height), Image.Resampling.NEAREST)
        sheet.paste(magnified, (index * width, _CAPTION_HEIGHT))
        draw.text((index * width + 6, 5), name, fill="black", font=font)
    return np.asarray(sheet)


def _middle(pixels: Pixels) -> Pixels:
    height, width, _ = pixels.shape
    top, left = max(0, height - _CROP) // 2, max(0, width - _CROP) // 2
    return np.ascontiguousarray(pixels[top : top + _CROP, left : left + _CROP])


def _decibels(values: NDArray[Any], reference: NDArray[Any]) -> float:
    error = float(np.mean(np.square(values - reference)))
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def _resize(pixels: Pixels, width: int, height: int) -> Pixels:
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
