"""Matrix-product stages at every edge of their tiles, all memory ending at forbidden pages.

Data are small integers, so that every result is exact whatever the order of summation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pytest

from nnpack.algorithms.gemm_plan import gemm_plan
from nnpack.algorithms.gemm_tiles import TileChoice, tile_menu
from nnpack.codegen.target import Target
from nnpack.errors import RegisterPressureError
from nnpack.kernels.convolve import Lanes
from nnpack.kernels.gemm import GemmTile
from nnpack.problem import Problem
from tests import oracle
from tests.guard import Side
from tests.native import TARGETS, name_of
from tests.plans import Operands, all_survive, integers, runner

pytestmark = pytest.mark.parametrize("target", TARGETS, ids=name_of)

TINY = GemmTile(3, 2)
SIDES: tuple[Side, ...] = ("before", "after")


def _tiles(target: Target) -> list[GemmTile]:
    """The narrowest and the widest tile, and those with the least and the most rows; a tiny one."""
    menu = tile_menu(target)
    found = [
        choose(menu, key=key)
        for key in (lambda t: (t.nv, t.mr), lambda t: (t.mr, t.nv))
        for choose in (min, max)
    ]
    return list(dict.fromkeys([*found, TINY]))


def _check(problem: Problem, choice: TileChoice, target: Target, packed: bool, side: Side) -> None:
    plan = gemm_plan("test", problem, target, 1, choice, packed)
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


def _edges(choice: TileChoice, lanes: int, packed: bool) -> Iterator[Problem]:
    """Every number of pixels up to more than a strip, of channels up to more than a panel."""
    turned = choice.lanes == "channels"
    rows, columns = choice.tile.mr, choice.tile.nv * lanes
    strip, panel = (rows, columns) if turned else (columns, rows)
    least = strip if turned and not packed else 1
    for pixels in range(least, strip + least + 1):
        # All channels for the last few pixels, else every third: they are independent.
        step = 1 if pixels > strip - 2 else 3
        for channels in range(1 + pixels % step, panel + 2, step):
            yield Problem.conv2d((1, 2, 1, pixels), (channels, 2, 1, 1))


@pytest.mark.parametrize("lanes", ["pixels", "channels"])
@pytest.mark.parametrize("packed", [False, True], ids=["in place", "packed"])
def test_products_are_exact_at_every_edge(target: Target, lanes: Lanes, packed: bool) -> None:
    for number, tile in enumerate(_tiles(target)):
        if lanes == "channels" and tile.mr > target.lanes:
            continue
        choice = TileChoice(tile, lanes, 0)
        problems = list(_edges(choice, target.lanes, packed))
        _check(problems[0], choice, target, packed, "after")  # compiled here, for the child too
        side = SIDES[number % 2]
        checks = (partial(_check, problem, choice, target, packed, side) for problem in problems)
        assert all_survive(checks)


def _shapes() -> Iterator[Callable[[], Problem]]:
    """Packed patches: borders on all sides, strides shuffled and gathered, dilation, groups."""
    for stride in range(1, 7):
        for kernel in (1, 2, 3, 5):
            yield partial(
                Problem.conv2d,
                (2, 4, 7, 11 + 3 * stride),
                (6, 2, kernel, kernel),
                groups=2,
                stride=stride,
                padding=(kernel, 0, kernel // 2, kernel + 1),
            )
    yield partial(Problem.conv2d, (1, 1, 1, 1), (1, 1, 3, 3), padding=1)
    yield partial(Problem.conv2d, (1, 3, 40, 3), (5, 3, 3, 1), padding=(0, 0, 4, 5))
    yield partial(Problem.conv2d, (1, 3, 3, 70), (5, 3, 1, 7), dilation=(1, 3), padding="same")
    yield partial(Problem.conv2d, (1, 2, 9, 9), (3, 2, 3, 3), dilation=4, padding=4)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("lanes", ["pixels", "channels"])
def test_patches_are_packed_with_borders_strides_and_dilation(
    target: Target, side: Side, lanes: Lanes
) -> None:
    choice = TileChoice(TINY if lanes == "channels" else tile_menu(target)[0], lanes, 0)
    problems = [make() for make in _shapes()]
    for problem in {p.stride: p for p in problems}.values():
        _check(problem, choice, target, True, side)
    checks = (partial(_check, problem, choice, target, True, side) for problem in problems)
    assert all_survive(checks)


def test_a_tile_that_does_not_fit_the_registers_is_refused(target: Target) -> None:
    for tile in tile_menu(target):
        tile.check(target)
    with pytest.raises(RegisterPressureError, match=rf"vector registers, {target.name} has"):
        GemmTile(target.registers, 1).check(target)
