"""Depthwise convolution is right at every edge, and stays inside the arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nnpack
from nnpack.algorithms.depthwise import Depthwise
from nnpack.codegen.compiler import emit_object
from nnpack.codegen.target import NEON, host_target
from nnpack.problem import Problem
from tests import oracle
from tests.algorithms.edges import Case, assert_right, assert_right_when_guarded
from tests.guard import Side

SIDES: tuple[Side, ...] = ("before", "after")
WIDTHS = (1, 2, 3, 4, 5, 7, 8, 9, 14, 15, 16, 17, 31, 32, 33, 48, 49, 50, 64, 65)


@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("side", SIDES)
def test_every_width_stays_inside_the_arrays(side: Side, stride: int) -> None:
    cases = [
        Case((3, width), stride=(1, stride), padding=(1, 1, *sides), groups=2)
        for width in WIDTHS
        for sides in ((0, 0), (1, 1), (2, 0))
    ]
    assert_right_when_guarded(cases, "depthwise", side)


@pytest.mark.parametrize("side", SIDES)
def test_every_height_stays_inside_the_arrays(side: Side) -> None:
    cases = [
        Case((height, 9), stride=(stride, 1), padding=(pad, pad, 1, 1), groups=2)
        for height in range(1, 20)
        for stride in (1, 2)
        for pad in (0, 1)
    ]
    assert_right_when_guarded(cases, "depthwise", side)


@pytest.mark.parametrize("side", SIDES)
def test_every_kernel_stays_inside_the_arrays(side: Side) -> None:
    cases = [
        Case((17, 37), kernel, stride, padding, dilation, groups=3, batch=2)
        for kernel in ((1, 1), (1, 4), (5, 1), (2, 3), (5, 5), (7, 6))
        for stride, dilation in (((1, 1), (1, 1)), ((2, 1), (4, 2)), ((3, 2), (2, 3)))
        for padding in ((0, 0, 0, 0), (4, 0, 9, 1))
    ]
    assert_right_when_guarded(cases, "depthwise", side)


@pytest.mark.parametrize("side", SIDES)
def test_rows_of_many_taps_stay_inside_the_arrays(side: Side) -> None:
    """Rows of one vector: each row of input that there is is a block of its own."""
    cases = [
        Case((14, 14), (5, 5), padding=(2, 2, 2, 2), groups=3),
        Case((3, 12), (5, 5), padding=(9, 2, 0, 4), groups=2),  # rows of outputs that see nothing
        Case((9, 16), (5, 7), padding=(0, 4, 6, 0), groups=2, batch=2),
        Case((13, 27), (5, 5), (2, 2), padding=(2, 2, 2, 2), groups=3),
        Case((16, 11), (7, 7), padding=(3, 3, 3, 3), groups=2),
    ]
    assert_right_when_guarded(cases, "depthwise", side)


@pytest.mark.parametrize(
    "case",
    [
        Case((7, 7), (7, 7), padding=(3, 3, 3, 3), groups=33),
        Case((20, 40), (9, 9), padding=(4, 4, 4, 4), groups=2),
        Case((14, 14), padding=(1, 1, 1, 1), groups=5, outputs=3, batch=2),  # a multiplier of 3
        Case((3, 5), padding=(9, 8, 40, 7), groups=2),  # far more padding than image
        Case((5, 30), dilation=(9, 9), padding=(9, 9, 9, 9), groups=2),  # dilated beyond the image
        Case((40, 20), (3, 3), (1, 1), (6, 6, 6, 6), (6, 6), groups=2),
        Case((600, 70), padding=(1, 1, 1, 1), groups=1),  # several bands
    ],
)
def test_unusual_problems(case: Case) -> None:
    assert_right(case, "depthwise")


@pytest.mark.parametrize("activation", [None, nnpack.Relu(), nnpack.Elu(), nnpack.Clip(-1, 2)])
def test_epilogues(activation: Any) -> None:
    rng = np.random.default_rng(2)
    bias, scale = rng.standard_normal((2, 6), dtype=np.float32)
    case = Case((11, 35), padding=(1, 1, 1, 1), groups=3, outputs=2)
    assert_right(case, "depthwise", activation=activation)
    x, weight = case.arrays(rng)
    more = {**case.arguments, "scale": scale, "activation": activation}
    y = nnpack.conv2d(x, weight, bias, algorithm="depthwise", **more)
    assert oracle.max_error(y, oracle.conv2d(x, weight, bias, **more)) < 1e-5


@pytest.mark.parametrize(
    "case",
    [
        Case((90, 33), (5, 5), padding=(2, 2, 2, 2), groups=3),
        Case((14, 14), padding=(1, 1, 1, 1), groups=4),
        Case((29, 60), (3, 3), (2, 2), (1, 1, 1, 1), groups=2),
    ],
)
def test_results_do_not_depend_on_the_number_of_threads(case: Case) -> None:
    x, weight = case.arrays(np.random.default_rng(4))
    one, *others = (
        nnpack.conv2d(x, weight, algorithm="depthwise", threads=threads, **case.arguments)
        for threads in (1, 2, 3, 8)
    )
    for y in others:
        np.testing.assert_array_equal(y, one)


@pytest.mark.parametrize(
    ("weight", "arguments", "reason"),
    [
        ((6, 3, 3, 3), {"groups": 2}, "groups=6, one a channel, got 2"),
        ((6, 1, 13, 13), {"groups": 6}, "at most 128 taps, got 13x13"),
        ((6, 1, 3, 3), {"groups": 6, "stride": 5}, "strides of at most 4"),
    ],
)
def test_what_it_refuses(weight: tuple[int, ...], arguments: dict[str, int], reason: str) -> None:
    x, w = np.zeros((1, 6, 20, 20), np.float32), np.zeros(weight, np.float32)
    with pytest.raises(nnpack.AlgorithmError, match=reason):
        nnpack.conv2d(x, w, algorithm="depthwise", **arguments)  # type: ignore[call-overload]


def test_workspace_is_a_row_a_thread() -> None:
    problem = Problem.conv2d((64, 32, 500, 112), (32, 1, 3, 3), groups=32)
    assert Depthwise().build(problem, host_target(), 2).workspace_bytes < 2 * 4 * 512


def test_compiles_for_neon() -> None:
    problem = Problem.conv2d((1, 8, 32, 32), (8, 1, 3, 3), groups=8, stride=2, padding=1)
    (stage,) = Depthwise().build(problem, NEON, 1).stages
    assert emit_object(stage.kernel, NEON)
