"""Padding, resampling and concatenation as values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any, Literal

from nnpack.arguments import as_number, as_pair, check_one_of
from nnpack.errors import DtypeError, ProblemError
from nnpack.frozen import dataclass
from nnpack.geometry import Padding, Pair

__all__ = [
    "AxisKind",
    "ConcatProblem",
    "Interpolation",
    "PadMode",
    "PadProblem",
    "ResampleProblem",
    "check_pad_mode",
    "resampled_size",
]

PadMode = Literal["constant", "reflect", "replicate"]
Interpolation = Literal["nearest", "bilinear"]
AxisKind = Literal["nearest", "bilinear", "corners", "reflect", "replicate"]
"""How places along an axis depend on each other; "corners" is bilinear between the corners."""

_MAX_ELEMENTS = 2**45
# Places along a row are i32 in the tables of columns.
_MAX_EXTENT = 2**31 - 1


@dataclass(frozen=True)
class PadProblem:
    """``planes`` images within borders of ``value``."""

    planes: int
    height: int
    width: int
    padding: Padding
    value: float


@dataclass(frozen=True)
class ResampleProblem:
    """``planes`` images to others whose pixels depend on places of the former, as ``kind`` says.

    ``padding`` is (before, after) of rows and of columns where kind has borders. ``gradient``:
    the transpose, from images of the outputs' size to those of the inputs'.
    """

    planes: int
    image: Pair
    outputs: Pair
    kind: AxisKind
    padding: Padding = (0, 0, 0, 0)
    gradient: bool = False


@dataclass(frozen=True)
class ConcatProblem:
    """Arrays one behind the other in each of ``rows`` rows: floats of each, and which are moved."""

    rows: int
    widths: tuple[int, ...]
    moved: tuple[bool, ...]


def check_pad_mode(mode: PadMode, padding: Padding, image: Pair) -> PadMode:
    """``mode`` if such borders can be made. Raises ProblemError."""
    check_one_of("mode", mode, ("constant", "reflect", "replicate"))
    if mode == "reflect" and (max(padding[:2]) >= image[0] or max(padding[2:]) >= image[1]):
        raise ProblemError(
            f"padding={padding} must be less than the {image[0]}x{image[1]} pixels that it "
            'reflects; use mode="replicate"'
        )
    outputs = image[0] + sum(padding[:2]), image[1] + sum(padding[2:])
    _check_outputs(outputs)
    return mode


def resampled_size(image: Pair, scale_factor: Any, size: Any) -> Pair:
    """The rows and columns asked for by one of ``scale_factor`` and ``size``.

    Raises ProblemError or DtypeError.
    """
    if (scale_factor is None) == (size is None):
        raise ProblemError("give either scale_factor or size")
    if size is not None:
        outputs = as_pair("size", size, least=1)
    else:
        factors = _as_factors(scale_factor)
        rows, columns = (n * factor for n, factor in zip(image, factors, strict=True))
        if not (1 <= rows <= _MAX_EXTENT and 1 <= columns <= _MAX_EXTENT):
            raise ProblemError(
                f"scale_factor={scale_factor!r} makes {rows:g}x{columns:g} pixels of "
                f"{image[0]}x{image[1]}; there must be from 1 to {_MAX_EXTENT} each way"
            )
        outputs = math.floor(rows), math.floor(columns)
    _check_outputs(outputs)
    return outputs


def _as_factors(scale_factor: Any) -> tuple[float, float]:
    items = (scale_factor,) * 2 if isinstance(scale_factor, Real) else scale_factor
    if not isinstance(items, Sequence) or isinstance(items, str) or len(items) != 2:
        raise DtypeError(f"scale_factor={scale_factor!r} must be a number or a pair (h, w)")
    return as_number("scale_factor", items[0]), as_number("scale_factor", items[1])


def _check_outputs(outputs: Pair) -> None:
    if max(outputs) > _MAX_EXTENT or math.prod(outputs) >= _MAX_ELEMENTS:
        raise ProblemError(f"{outputs[0]}x{outputs[1]} pixels are too many; make fewer")
