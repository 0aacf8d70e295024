"""A picture of any size through a network of unpadded layers, in tiles, without seams.

A network of unpadded layers needs ``border`` more pixels on every side than it enlarges. The whole
picture is extended by its edge pixels once; tiles are then cut from the extended picture, each
with its border, so every output pixel is computed from the same inputs as without tiles, and only
the border is computed twice.

    extended picture     0 .......................... width + 2 border
    read by tile i       left .............. right + 2 border
    it enlarges                 left .. right          (in pixels of the picture)
    it writes             scale * left .. scale * right
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise, product
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Float32", "Network", "Pixels", "Tile", "enlarge", "plan_tiles"]

Float32: TypeAlias = NDArray[np.float32]
Pixels: TypeAlias = NDArray[np.uint8]
Network: TypeAlias = Callable[[Float32], Float32]


@dataclass(frozen=True, slots=True)
class Tile:
    """The rectangle of the picture that one run of the network enlarges, in pixels."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        """Rows of the picture."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Columns of the picture."""
        return self.right - self.left


def plan_tiles(height: int, width: int, largest: int) -> tuple[Tile, ...]:
    """Choose the fewest tiles of at most ``largest`` x ``largest`` pixels that cover the picture.

    They partition it, row by row, and differ by at most one pixel in each direction: a last tile
    of leftovers would be nearly all border.
    """
    rows, columns = _split(height, largest), _split(width, largest)
    return tuple(
        Tile(top, left, bottom, right)
        for (top, bottom), (left, right) in product(pairwise(rows), pairwise(columns))
    )


def _split(extent: int, largest: int) -> list[int]:
    """Bounds of the fewest nearly equal pieces, none longer than ``largest``."""
    count = -(-extent // largest)
    return [extent * i // count for i in range(count + 1)]


def enlarge(
    pixels: Pixels,
    network: Network,
    *,
    border: int,
    scale: int,
    largest: int,
    done: Callable[[Tile], None] = lambda _: None,
) -> Pixels:
    """``(h, w, 3)`` uint8 to ``(scale * h, scale * w, 3)`` uint8; calls ``done`` after each tile.

    ``network`` maps ``(3, h + 2 border, w + 2 border)`` float32 in [0, 1] to
    ``(3, scale * h, scale * w)``, for any h and w.
    """
    height, width, channels = pixels.shape
    extended = np.pad(pixels, ((border, border), (border, border), (0, 0)), mode="edge")
    result = np.empty((scale * height, scale * width, channels), np.uint8)
    for tile in plan_tiles(height, width, largest):
        rows = slice(scale * tile.top, scale * tile.bottom)
        columns = slice(scale * tile.left, scale * tile.right)
        result[rows, columns] = _to_pixels(network(_to_planes(_source(extended, tile, border))))
        done(tile)
    return result


def _source(extended: Pixels, tile: Tile, border: int) -> Pixels:
    """Cut out the tile with its border, which begins where it does: ``extended`` is shifted."""
    return extended[tile.top : tile.bottom + 2 * border, tile.left : tile.right + 2 * border]


def _to_planes(pixels: Pixels) -> Float32:
    """``(h, w, c)`` of 0..255 to contiguous ``(c, h, w)`` of 0..1."""
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1), np.float32)
    planes /= 255
    return planes


def _to_pixels(planes: Float32) -> Pixels:
    """``(c, h, w)`` of 0..1 to ``(h, w, c)`` of 0..255, rounded to nearest and clipped."""
    levels: Pixels = np.rint(planes * np.float32(255)).clip(0, 255).astype(np.uint8)
    return levels.transpose(1, 2, 0)
