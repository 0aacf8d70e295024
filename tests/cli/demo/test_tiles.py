"""Tiles partition the picture and leave no seams."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnpack.cli.demo import upconv
from nnpack.cli.demo.tiles import Float32, Pixels, Tile, enlarge, plan_tiles
from tests.cli.demo.synthetic import naive_upconv, nearest_doubling, random_layers

EXTENTS = st.integers(1, 40)
NARROW = ((4, 3, 3, 3), *[(4, 4, 3, 3)] * 5, (3, 4, 4, 4))
"""upconv_7 with four channels everywhere: the same geometry at almost no cost."""


def picture(height: int, width: int) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@given(EXTENTS, EXTENTS, st.integers(1, 50))
def test_tiles_partition_the_picture(height: int, width: int, largest: int) -> None:
    covered = np.zeros((height, width), int)
    tiles = plan_tiles(height, width, largest)
    for tile in tiles:
        covered[tile.top : tile.bottom, tile.left : tile.right] += 1
        assert 0 < tile.height <= largest
        assert 0 < tile.width <= largest
    assert (covered == 1).all()
    assert len(tiles) == -(-height // largest) * -(-width // largest)


def test_tiles_are_nearly_equal() -> None:
    assert plan_tiles(7, 3, 3) == (Tile(0, 0, 2, 3), Tile(2, 0, 4, 3), Tile(4, 0, 7, 3))


@pytest.mark.parametrize("largest", [1, 5, 16, 22])
def test_a_tiled_picture_equals_the_untiled_one(largest: int) -> None:
    layers = random_layers(NARROW)

    def network(planes: Float32) -> Float32:
        values = naive_upconv(layers, planes - np.float32(0.5))
        return np.float32(0.5) + np.float32(10) * values

    run = partial(enlarge, picture(23, 31), network, border=upconv.BORDER, scale=upconv.SCALE)
    whole = run(largest=31)
    assert whole.std() > 30  # the network is no constant that would hide seams
    np.testing.assert_array_equal(run(largest=largest), whole)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_pixels_keep_their_places_and_values(height: int, width: int, largest: int) -> None:
    pixels = picture(height, width)
    enlarged = enlarge(
        pixels, nearest_doubling, border=upconv.BORDER, scale=upconv.SCALE, largest=largest
    )
    np.testing.assert_array_equal(enlarged, pixels.repeat(2, axis=0).repeat(2, axis=1))


def test_the_picture_continues_with_its_edge_pixels() -> None:
    read: list[Float32] = []

    def network(planes: Float32) -> Float32:
        read.append(planes)
        return nearest_doubling(planes)

    enlarge(
        picture(4, 5),
        network,
        border=upconv.BORDER,
        scale=upconv.SCALE,
        largest=9,
    )
    (planes,) = read
    assert planes.shape == (3, 4 + 2 * upconv.BORDER, 5 + 2 * upconv.BORDER)
    assert planes.flags.c_contiguous
    assert (planes[:, :, 0] == planes[:, :, upconv.BORDER]).all()
    assert (planes[:, 0] == planes[:, upconv.BORDER]).all()


def test_levels_beyond_black_and_white_are_clipped() -> None:
    def too_bright(planes: Float32) -> Float32:
        return np.float32(3) * nearest_doubling(planes) - np.float32(1)

    enlarged = enlarge(
        np.array([[[0, 128, 255]]], np.uint8),
        too_bright,
        border=upconv.BORDER,
        scale=upconv.SCALE,
        largest=1,
    )
    np.testing.assert_array_equal(enlarged[0, 0], [0, 129, 255])


def test_done_is_told_every_tile_in_order() -> None:
    told: list[Tile] = []
    enlarge(
        picture(20, 9),
        nearest_doubling,
        border=upconv.BORDER,
        scale=upconv.SCALE,
        largest=9,
        done=told.append,
    )
    assert tuple(told) == plan_tiles(20, 9, 9)
