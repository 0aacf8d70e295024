"""Strong dilation: rows of taps that a block of outputs sees only padding through are left out."""

from __future__ import annotations

import numpy as np
import pytest

from nnpack.algorithms.cost import skipping_rows, tap_share
from nnpack.problem import Problem
from tests.algorithms.edges import Case, assert_right, assert_right_when_guarded
from tests.guard import Side

ALGORITHMS = ("direct", "implicit_gemm")

# Dilations up to beyond the image, with strides, even kernels and padding on one side only.
CASES = [
    Case((height, 19), kernel, (stride, 1), (top, bottom, 3, 2), (dilation, 2), 1, 3, 5, 2)
    for height in (1, 7, 20)
    for kernel in ((2, 2), (3, 1), (5, 3))
    for dilation in (3, 8, 21)
    for top, bottom in ((dilation, dilation), (2 * dilation, 0), (0, 4 * dilation + 1))
    for stride in (1, 2, 5)
]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("side", ["before", "after"])
def test_every_dilation_stays_inside_the_arrays(algorithm: str, side: Side) -> None:
    assert_right_when_guarded(CASES, algorithm, side)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_many_channels(algorithm: str) -> None:
    assert_right(
        Case((24, 23), padding=(12,) * 4, dilation=(12, 12), inputs=90, outputs=40), algorithm
    )


def test_the_share_of_taps_is_what_a_count_over_all_pixels_gives() -> None:
    for dilation, height, stride in [(2, 9, 1), (5, 13, 2), (9, 7, 1), (30, 20, 3)]:
        problem = Problem.conv2d(
            (1, 1, height, 8),
            (1, 1, 3, 1),
            padding=(dilation, dilation, 0, 0),
            dilation=dilation,
            stride=stride,
        )
        rows = np.arange(problem.out_height)[:, None] * stride - dilation
        places = rows + np.arange(3) * dilation
        meets = (places >= 0) & (places < height)
        assert tap_share(problem, 1) == pytest.approx(meets.mean())
        assert tap_share(problem, skipping_rows(problem)) <= 1.0
