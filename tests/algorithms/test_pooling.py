"""Pools are right on every target and at every edge, and stay inside the arrays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import numpy.typing as npt
import pytest

from nnpack.algorithms.pooling import plan_pooling
from nnpack.codegen.compiler import emit_object
from nnpack.codegen.target import NEON, Target
from nnpack.execution import Program
from nnpack.pool_problem import PoolKind, PoolProblem
from nnpack.runtime.memory import address
from tests import pool_oracle
from tests.guard import Side, guarded_array, guarded_copy, run_guarded
from tests.native import TARGETS, name_of

Pair = tuple[int, int]
Float32Array = npt.NDArray[np.float32]
SIDES: tuple[Side, ...] = ("before", "after")


@dataclass(frozen=True)
class Case:
    """One sliding pool; without a kernel, an adaptive one to ``stride`` outputs."""

    image: Pair
    kernel: Pair | None = (3, 3)
    stride: Pair = (2, 2)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    ceil: bool = False
    count_padding: bool = True
    divisor: int | None = None
    planes: Pair = (1, 2)

    def problem(self, kind: PoolKind, indices: bool = False) -> PoolProblem:
        shape = (*self.planes, *self.image)
        if self.kernel is None:
            return PoolProblem.adaptive_pool2d(kind, shape, self.stride, indices=indices)
        return PoolProblem.pool2d(
            kind,
            shape,
            self.kernel,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            ceil_mode=self.ceil,
            count_padding=self.count_padding,
            divisor=self.divisor,
            indices=indices,
        )

    def maxima(self, x: Float32Array) -> tuple[pool_oracle.Array, pool_oracle.Array]:
        if self.kernel is None:
            return pool_oracle.adaptive_max_pool2d(x, self.stride)
        words = self.kernel, self.stride, self.padding, self.dilation, self.ceil
        return pool_oracle.max_pool2d(x, *words)

    def means(self, x: Float32Array) -> pool_oracle.Array:
        if self.kernel is None:
            return pool_oracle.adaptive_avg_pool2d(x, self.stride)
        words = self.ceil, self.count_padding, self.divisor
        return pool_oracle.avg_pool2d(x, self.kernel, self.stride, self.padding, *words)


def _random(case: Case, *, special: bool) -> Float32Array:
    rng = np.random.default_rng(3)
    x = rng.integers(-9, 9, (*case.planes, *case.image)).astype(np.float32)
    if special:
        for value, share in ((np.inf, 0.02), (-np.inf, 0.3), (np.nan, 0.03)):
            x[rng.random(x.shape) < share] = value
    return x


def _run(problem: PoolProblem, target: Target, x: Float32Array, side: Side) -> list[Float32Array]:
    plan = plan_pooling(problem, target, 1)
    arrays = {
        "x": guarded_copy(x, side),
        "y": guarded_array(problem.y_shape, side),
        "workspace": guarded_array(max(1, plan.workspace_bytes // 4), side),
        "indices": guarded_array(problem.y_shape, side, np.int64),
    }
    for array in arrays.values():
        if array is not arrays["x"]:
            array.fill(-7)
    program = Program(plan.stages, target, 1, 0)
    program.run({name: address(array) for name, array in arrays.items()})
    return [arrays["y"], arrays["indices"]]


def _check(case: Case, target: Target, side: Side) -> None:
    x = _random(case, special=True)
    maxima, places = case.maxima(x)
    (y, _), (again, indices) = (
        _run(case.problem("max", flag), target, x, side) for flag in (False, True)
    )
    np.testing.assert_array_equal(y, maxima, err_msg=f"{case}")
    np.testing.assert_array_equal(again, maxima, err_msg=f"{case}")
    np.testing.assert_array_equal(indices, places, err_msg=f"{case}")
    if case.dilation == (1, 1):
        x = _random(case, special=False)
        mean, _ = _run(case.problem("average"), target, x, side)
        np.testing.assert_allclose(mean, case.means(x), rtol=1e-6, atol=2e-6, err_msg=f"{case}")


def _check_all(cases: list[Case], target: Target, side: Side) -> None:
    def check() -> None:
        for case in cases:
            _check(case, target, side)

    assert run_guarded(check, seconds=150) == 0


WIDTHS = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 40)


def _edges() -> Iterator[Case]:
    for width, (kernel, stride, pad) in product(
        WIDTHS, (((3, 3), 2, 1), ((2, 2), 2, 0), ((3, 3), 1, 1))
    ):
        for ceil, left in ((False, pad), (True, 0)):
            case = Case((5, width), kernel, (stride, stride), (pad, pad, left, pad), ceil=ceil)
            if width + left + pad >= kernel[1]:
                yield case
                yield replace(case, count_padding=False)


def _others() -> Iterator[Case]:
    yield Case((13, 21), (3, 3), (1, 1), (2, 1, 0, 2), ceil=True)
    yield Case((13, 21), (5, 5), (1, 1), (2, 2, 2, 2))
    yield Case((20, 25), (13, 11), (1, 1), (6, 6, 5, 5))  # more taps than are unrolled
    yield Case((20, 25), (9, 9), (3, 4), (4, 4, 4, 4), count_padding=False)
    yield Case((20, 47), (3, 6), (7, 6), (1, 1, 3, 0), ceil=True)  # strides that are not shuffled
    yield Case((20, 47), (2, 3), (2, 3), (0, 1, 2, 1), dilation=(3, 2))
    yield Case((20, 47), (3, 2), (1, 4), (4, 4, 4, 4), dilation=(4, 5))
    yield Case((9, 9), (1, 1), (2, 2))
    yield Case((9, 9), (2, 2), (2, 2), divisor=3)
    yield Case((2, 2), (3, 3), (2, 2), ceil=True)  # a window beyond the image
    yield Case((1, 1), (2, 2), (1, 1), (1, 1, 1, 1), dilation=(2, 1))  # windows without a pixel
    yield Case((7, 7), (7, 7), (1, 1))
    yield Case((150, 90), (2, 2), (2, 2))  # several blocks of rows
    yield from (Case((17, 40), None, outputs) for outputs in ((1, 1), (2, 3), (5, 40), (20, 50)))
    yield from (Case(image, None, (1, 1)) for image in ((1, 1), (7, 7), (8, 8), (3, 67), (20, 20)))
    # Groups of as many planes as there are lanes, and what is left of an image and of a task.
    yield from (Case((7, 7), None, (1, 1), planes=planes) for planes in ((3, 21), (1, 101)))


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("target", TARGETS, ids=name_of)
def test_every_width_stays_inside_the_arrays(target: Target, side: Side) -> None:
    _check_all(list(_edges()), target, side)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("target", TARGETS, ids=name_of)
def test_unusual_windows_stay_inside_the_arrays(target: Target, side: Side) -> None:
    _check_all(list(_others()), target, side)


@pytest.mark.parametrize("kind", ["max", "average"])
@pytest.mark.parametrize("case", [Case((30, 30)), Case((7, 7), None, (1, 1)), Case((9, 9), None)])
def test_compiles_for_neon(kind: PoolKind, case: Case) -> None:
    problems = [case.problem(kind)] + [case.problem("max", indices=True)] * (kind == "max")
    for problem in problems:
        (stage,) = plan_pooling(problem, NEON, 1).stages
        assert emit_object(stage.kernel, NEON)


def test_workspace_does_not_grow_with_the_image() -> None:
    plans = [
        plan_pooling(Case((height, 224)).problem("max"), TARGETS[0], 1) for height in (200, 20_000)
    ]
    assert plans[0].workspace_bytes == plans[1].workspace_bytes < 64 * 1024
