"""Direct convolution is right at every edge, and stays inside the arrays and its workspace."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nnpack
from nnpack.algorithms.direct import Direct
from nnpack.codegen.compiler import emit_object
from nnpack.codegen.target import NEON, host_target
from nnpack.problem import Problem
from tests import oracle
from tests.algorithms.edges import Case, assert_right, assert_right_when_guarded
from tests.guard import Side

SIDES: tuple[Side, ...] = ("before", "after")

# Round one, two and three vectors of every target.
WIDTHS = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 49, 55)


@pytest.mark.parametrize("side", SIDES)
def test_every_width_stays_inside_the_arrays(side: Side) -> None:
    cases = [
        Case((3, width), stride=(1, stride), padding=(1, 1, pad, pad), inputs=2, outputs=3)
        for width in WIDTHS
        for stride in (1, 2, 3)
        for pad in (0, 1)
    ]
    assert_right_when_guarded(cases, "direct", side)


@pytest.mark.parametrize("side", SIDES)
def test_every_kernel_stays_inside_the_arrays(side: Side) -> None:
    cases = [
        Case((9, 21), kernel, stride, padding, dilation, 2, 3, 5, 2)
        for kernel in ((1, 1), (1, 4), (4, 1), (2, 3), (5, 5))
        for stride, dilation in (((1, 1), (1, 1)), ((2, 5), (1, 1)), ((1, 2), (2, 3)))
        for padding in ((0, 0, 0, 0), (4, 0, 7, 1))
    ]
    assert_right_when_guarded(cases, "direct", side)


@pytest.mark.parametrize("outputs", range(1, 34))
def test_every_number_of_output_channels(outputs: int) -> None:
    assert_right(Case((6, 19), padding=(1, 1, 1, 1), inputs=3, outputs=outputs), "direct")


@pytest.mark.parametrize(
    "case",
    [
        Case((20, 20), dilation=(9, 9), padding=(9, 9, 9, 9), inputs=2, outputs=2),
        Case((7, 40), (2, 2), (5, 6), (0, 3, 30, 2), inputs=3, outputs=4),
        Case((64, 64), (11, 11), (4, 4), (2, 2, 2, 2), inputs=3, outputs=8),
        Case((3, 5), padding=(9, 8, 40, 7), inputs=1, outputs=1),
        Case((2, 3000), padding=(1, 1, 1, 1), inputs=70, outputs=2),  # a row in several blocks
        Case((40, 40), inputs=300, outputs=3),  # few rows a block
    ],
)
def test_unusual_problems(case: Case) -> None:
    assert_right(case, "direct")


@pytest.mark.parametrize(
    "epilogue",
    [
        {"activation": nnpack.Relu()},
        {"bias": True, "activation": nnpack.Elu()},
        {"bias": True, "scale": True, "activation": nnpack.Clip(-1, 2)},
    ],
)
def test_epilogues(epilogue: dict[str, Any]) -> None:
    rng = np.random.default_rng(2)
    vectors: dict[str, Any] = {
        name: rng.standard_normal(17, dtype=np.float32) if value is True else value
        for name, value in epilogue.items()
    }
    case = Case((11, 35), padding=(1, 1, 1, 1), inputs=3, outputs=17)
    x, weight = case.arrays(rng)
    y = nnpack.conv2d(x, weight, algorithm="direct", **case.arguments, **vectors)
    reference = oracle.conv2d(x, weight, **case.arguments, **vectors)
    assert oracle.max_error(y, reference) < 1e-5


def test_outputs_with_a_stride_of_their_own() -> None:
    """A transposed convolution stores each of its phases into every second pixel."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((2, 3, 9, 21), dtype=np.float32)
    weight = rng.standard_normal((3, 5, 4, 4), dtype=np.float32)
    y = nnpack.conv_transpose2d(x, weight, stride=2, algorithm="direct")
    assert oracle.max_error(y, oracle.conv_transpose2d(x, weight, stride=2)) < 1e-5


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    case = Case((30, 57), padding=(1, 1, 1, 1), inputs=3, outputs=24, batch=2)
    x, weight = case.arrays(np.random.default_rng(4))
    one, *others = (
        nnpack.conv2d(x, weight, algorithm="direct", threads=threads, **case.arguments)
        for threads in (1, 2, 3, 8)
    )
    for y in others:
        np.testing.assert_array_equal(y, one)


def test_workspace_grows_neither_with_the_batch_nor_with_the_height() -> None:
    def workspace(batch: int, height: int) -> int:
        problem = Problem.conv2d((batch, 3, height, 224), (64, 3, 3, 3), padding=1)
        return Direct().build(problem, host_target(), 1).workspace_bytes

    assert max(workspace(1, 1000), workspace(64, 4000)) <= host_target().caches.l2


def test_compiles_for_neon() -> None:
    problem = Problem.conv2d((1, 3, 32, 32), (8, 3, 3, 3), stride=2)
    (stage,) = Direct().build(problem, NEON, 1).stages
    assert emit_object(stage.kernel, NEON)
