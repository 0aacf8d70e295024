"""Direct convolution with channels in the lanes, at every edge of its tiles, between guard pages.

Data are small integers, so that every result is exact whatever the order of summation.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest

from nnpack.algorithms.window_channels import ChannelsChoice, channels_plan, choose_channels
from nnpack.codegen.target import NEON, Target, host_target
from nnpack.problem import Problem
from tests import oracle
from tests.guard import Side
from tests.native import TARGETS, name_of
from tests.plans import Operands, all_survive, integers, runner

SIDES: tuple[Side, ...] = ("before", "after")


def _check(problem: Problem, choice: ChannelsChoice, target: Target, side: Side) -> None:
    plan = channels_plan("test", problem, target, 1, choice)
    rng = np.random.default_rng(problem.out_channels * 1000 + problem.width)
    operands = Operands(integers(rng, problem.x_shape), integers(rng, problem.weight_shape))
    y = runner(plan, problem, target)(operands.guarded(side), side)
    expected = oracle.conv2d(
        operands.x,
        operands.weight,
        stride=problem.stride,
        padding=problem.padding,
        dilation=problem.dilation,
        groups=problem.groups,
    )
    np.testing.assert_array_equal(y, expected, err_msg=f"{problem} {choice} {side}")


def _tiles(lanes: int) -> Iterator[tuple[ChannelsChoice, Problem]]:
    """Parts of rows, several rows, rests of both; every rest of a panel; in place and copied."""
    for rows, columns, height, width in ((1, 3, 2, 8), (2, 2, 5, 2), (3, 1, 3, 1), (1, 4, 1, 4)):
        for channels in (1, lanes, lanes + 1, 2 * lanes, 3 * lanes - 1):
            choice = ChannelsChoice(rows, columns, 2, lanes, 0.0)
            for padding in (0, 1):
                image = height + 2 - 2 * padding, width + 2 - 2 * padding
                shape = (2 * channels, 2, 3, 3)
                yield choice, Problem.conv2d((1, 4, *image), shape, padding=padding, groups=2)


@pytest.mark.parametrize("target", TARGETS, ids=name_of)
def test_tiles_are_exact_at_every_edge(target: Target) -> None:
    cases = [case for lanes in {target.lanes, 4} for case in _tiles(lanes)]
    _check(cases[0][1], cases[0][0], target, "after")
    checks = (
        partial(_check, problem, choice, target, SIDES[number % 2])
        for number, (choice, problem) in enumerate(cases)
    )
    assert all_survive(checks)


def _shapes() -> Iterator[Problem]:
    """Borders on all sides, strides and dilations, taps beyond the image, rows of many vectors."""
    for stride, dilation in (
        ((1, 1), (1, 1)),
        ((2, 3), (1, 1)),
        ((3, 1), (2, 3)),
        ((1, 5), (9, 9)),
    ):
        for kernel in ((1, 1), (2, 3), (5, 4)):
            for padding in ((0, 0, 0, 0), (3, 0, 1, 7)):
                spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
                image = spans[0] + 6, spans[1] + 13
                yield Problem.conv2d(
                    (2, 6, *image),
                    (10, 3, *kernel),
                    groups=2,
                    stride=stride,
                    dilation=dilation,
                    padding=padding,
                )
    yield Problem.conv2d((1, 3, 3, 5), (9, 3, 3, 3), padding=(9, 8, 40, 7))
    yield Problem.conv2d((1, 6, 2, 1500), (5, 6, 3, 3), padding=1)


@pytest.mark.parametrize("target", TARGETS, ids=name_of)
@pytest.mark.parametrize("side", SIDES)
def test_borders_strides_and_dilation(target: Target, side: Side) -> None:
    cases = [(problem, choose_channels(problem, target)) for problem in _shapes()]
    checks = [partial(_check, problem, c, target, side) for problem, c in cases if c is not None]
    assert len(checks) == len(cases)
    assert all_survive(checks)


def test_threads_share_rows_and_panels_of_one_image() -> None:
    target = host_target()
    problem = Problem.conv2d((1, 8, 30, 30), (100, 8, 3, 3), padding=1)
    choice = choose_channels(problem, target)
    assert choice is not None
    rng = np.random.default_rng(0)
    operands = Operands(integers(rng, problem.x_shape), integers(rng, problem.weight_shape))
    plans = [channels_plan("test", problem, target, threads, choice) for threads in (1, 2, 5)]
    assert plans[0].stages[0].tasks == 1
    assert all(plan.stages[0].tasks >= 2 * plan.threads for plan in plans[1:])
    one, *others = (runner(plan, problem, target)(operands, "after") for plan in plans)
    for y in others:
        np.testing.assert_array_equal(y, one)


def test_workspace_is_bounded() -> None:
    target = host_target()
    problem = Problem.conv2d((64, 64, 224, 112), (64, 64, 3, 3), padding=1)
    choice = choose_channels(problem, target)
    assert choice is not None
    assert channels_plan("test", problem, target, 1, choice).workspace_bytes <= target.caches.l2


def test_a_tile_is_chosen_for_every_width_on_neon() -> None:
    for width in range(1, 60):
        problem = Problem.conv2d((1, 8, 9, width), (20, 8, 3, 3), padding=1)
        choice = choose_channels(problem, NEON)
        assert choice is not None
        choice.tile.check(NEON)
