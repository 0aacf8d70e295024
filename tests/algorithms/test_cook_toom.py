"""F(m, r) down the columns is right at every edge, and stays inside arrays and workspace."""

from __future__ import annotations

import numpy as np
import pytest

import nnpack
from nnpack.algorithms.cook_toom import CookToom
from nnpack.codegen.target import Target
from nnpack.problem import Problem
from tests.algorithms.edges import Case, assert_right, assert_right_when_guarded
from tests.guard import Side
from tests.native import TARGETS, name_of

SIDES: tuple[Side, ...] = ("before", "after")

# Round one, two and three vectors of every target; direct summation is up to so much better.
WIDTHS = (1, 3, 4, 7, 8, 15, 16, 17, 31, 33, 49)
SLACK = 20.0


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("m", [2, 3, 4])
def test_every_width_stays_inside_the_arrays(m: int, side: Side) -> None:
    cases = [
        Case((4, width), stride=(stride, stride), padding=(1, 1, pad, pad), inputs=2, outputs=3)
        for width in WIDTHS
        for stride, pad in ((1, 0), (1, 1), (2, 1))
    ]
    assert_right_when_guarded(cases, f"cook_toom_{m}", side, SLACK)


@pytest.mark.parametrize("side", SIDES)
def test_every_kernel_stays_inside_the_arrays(side: Side) -> None:
    cases = [
        Case((9, 21), kernel, stride, padding, groups=2, inputs=3, outputs=5, batch=2)
        for kernel in ((2, 1), (3, 1), (4, 2), (5, 5))
        for stride in ((1, 1), (1, 3), (2, 2))
        for padding in ((0, 0, 0, 0), (4, 0, 7, 1))
        if kernel[0] > stride[0]
    ]
    assert_right_when_guarded(cases, "cook_toom_3", side, SLACK)


@pytest.mark.parametrize("outputs", [1, 2, 4, 5, 6, 11])
@pytest.mark.parametrize("height", [1, 2, 5, 8])
def test_every_number_of_output_channels_and_rows(outputs: int, height: int) -> None:
    case = Case((height, 19), padding=(1, 1, 1, 1), inputs=3, outputs=outputs)
    assert_right(case, "cook_toom_4", slack=SLACK)


@pytest.mark.parametrize("target", TARGETS, ids=name_of)
def test_every_target_has_tiles_for_the_first_layers_of_networks(target: Target) -> None:
    for stride in (1, 2):
        problem = Problem.conv2d((1, 3, 224, 224), (32, 3, 3, 3), padding=1, stride=stride)
        for m in (2, 3, 4):
            assert CookToom(m).refusal(problem, target) is None


@pytest.mark.parametrize("statistics", [False, True])
def test_results_do_not_depend_on_the_number_of_threads(statistics: bool) -> None:
    rng = np.random.default_rng(4)
    x = rng.standard_normal((2, 3, 61, 40), np.float32)
    weight = rng.standard_normal((13, 3, 3, 3), np.float32)
    one, *others = (
        nnpack.conv2d(
            x,
            weight,
            padding=1,
            algorithm="cook_toom_4",
            threads=threads,
            statistics=statistics,  # type: ignore[call-overload]
        )
        for threads in (1, 2, 3, 8)
    )
    for y in others:
        for found, expected in zip(y, one, strict=True):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("kernel", "arguments", "reason"),
    [
        ((1, 3), {}, "two rows of taps a phase of the stride, got 1"),
        ((3, 3), {"stride": 3}, "two rows of taps a phase of the stride, got 3"),
        ((3, 3), {"dilation": 2}, "dilation 1"),
        ((12, 12), {"stride": 5}, "strides of at most 4"),
        ((9, 1), {}, "no tiles of 4 outputs for 9 taps"),
        ((7, 41), {"padding": 20}, "can be unrolled"),
    ],
)
def test_what_it_refuses(kernel: tuple[int, int], arguments: dict[str, int], reason: str) -> None:
    x, weight = np.zeros((1, 2, 30, 30), np.float32), np.zeros((3, 2, *kernel), np.float32)
    with pytest.raises(nnpack.AlgorithmError, match=reason):
        nnpack.conv2d(x, weight, algorithm="cook_toom_4", **arguments)  # type: ignore[call-overload]
