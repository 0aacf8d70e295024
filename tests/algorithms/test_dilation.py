"""Strong dilation: rows of taps that a block of outputs sees only padding through are left out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nnpack
from nnpack.algorithms.cost import skipping_rows, tap_share
from nnpack.algorithms.gemm_tiles import TileChoice, choose_tile, extents_of
from nnpack.algorithms.polyphase import Polyphase
from nnpack.algorithms.segment_plan import rectangle_share, takes_segments
from nnpack.codegen.target import Target, host_target
from nnpack.kernels.gemm import GemmTile
from nnpack.planner import make_plan
from nnpack.problem import Problem, TransposedProblem
from tests import oracle
from tests.algorithms.edges import Case, assert_right, assert_right_when_guarded
from tests.guard import Side
from tests.native import TARGETS, name_of
from tests.plans import Operands, all_survive, integers, runner

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


# Phases of one to six outputs, in one direction or two, that see some or all of their inputs.
PHASES = [
    Case((13, 11), (3, 3), (1, 1), (5, 5, 6, 6), (5, 6), 1, 19, 17, 2),
    Case((6, 20), (3, 2), (1, 1), (7, 0, 9, 3), (4, 9), 2, 3, 5),
    Case((9, 23), (5, 3), (1, 1), (4, 8, 20, 20), (2, 20), 1, 2, 3),
    Case((33, 30), (3, 3), (1, 1), (18, 18, 5, 5), (18, 5), 1, 17, 3, 2),
    Case((2, 1), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1, 5, 40, 3),
    # As many inputs of neighbouring phases as frequencies of one, in one direction and in both.
    Case((1, 4), (1, 4), (1, 1), (0, 0, 12, 12), (1, 4), 1, 8, 8),
    Case((4, 4), (4, 4), (1, 1), (12, 12, 12, 12), (4, 4), 1, 8, 8),
]


@pytest.mark.parametrize("side", ["before", "after"])
def test_whole_phases_stay_inside_the_arrays(side: Side) -> None:
    assert_right_when_guarded(PHASES, "polyphase", side, slack=4)


def test_whole_phases_do_not_depend_on_the_number_of_threads() -> None:
    for case in PHASES[:4]:
        x, weight = case.arrays(np.random.default_rng(6))
        layer = nnpack.Conv2d(weight, algorithm="polyphase", **case.arguments)
        with_threads = [
            nnpack.conv2d(x, weight, algorithm="polyphase", threads=threads, **case.arguments)
            for threads in (1, 2, 3)
        ]
        for y in with_threads:
            np.testing.assert_array_equal(y, layer(x))


def test_padding_is_not_multiplied() -> None:
    """A phase of 2 of 2 pixels takes 3 products, and one of 1 pixel 1."""
    problem = Problem.conv2d((1, 16, 33, 33), (16, 16, 3, 3), padding=18, dilation=18)
    shapes = Polyphase().shapes(problem, 16)
    assert [shape.frequencies for shape in shapes] == [9, 3, 3, 1]


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        (Problem.conv2d((1, 1, 60, 9), (1, 1, 3, 3), padding=4, dilation=4), "fit a tile"),
        (Problem.conv2d((1, 1, 9, 9), (1, 1, 3, 3), padding=4, dilation=4, stride=2), "stride 1"),
        (Problem.conv2d((1, 1, 9, 9), (1, 1, 1, 1)), "two taps"),
        (Problem.conv2d((1, 1, 2, 9), (1, 1, 2, 2), padding=9, dilation=9), "see the image"),
    ],
)
def test_whole_phases_are_refused(problem: Problem, reason: str) -> None:
    assert reason in str(Polyphase().refusal(problem, host_target()))


# Channels enough for the depth to be taken in segments, a tap and some channels each.
DEEP = [
    Case((22, 31), (3, 3), (1, 1), (9, 9, 9, 9), (9, 9), inputs=67, outputs=19),
    Case((20, 40), (3, 2), (1, 1), (9, 9, 9, 0), (9, 9), inputs=64, outputs=33, groups=2),
    Case((33, 29), (2, 5), (2, 1), (0, 13, 26, 3), (13, 13), inputs=130, outputs=5, batch=2),
    Case((5, 5), (3, 3), padding=(1, 1, 1, 1), inputs=9000, outputs=3),  # deep, not dilated
    Case((7, 7), (3, 3), padding=(1, 1, 1, 1), inputs=6000, outputs=17),
]


@pytest.mark.parametrize("side", ["before", "after"])
def test_segments_stay_inside_the_arrays(side: Side) -> None:
    assert all(_is_segmented(case) for case in DEEP)
    assert_right_when_guarded(DEEP, "implicit_gemm", side)


def test_one_tap_is_left_of_a_kernel_wider_than_the_image() -> None:
    case = Case((5, 5), (3, 3), (1, 1), (8, 8, 8, 8), (8, 8), inputs=64, outputs=3)
    assert_right(case, "implicit_gemm")


def _is_segmented(case: Case) -> bool:
    problem = _problem(case)
    return takes_segments(problem, _tile(problem), host_target())


def _tile(problem: Problem) -> TileChoice:
    return choose_tile(extents_of(problem), host_target())


def _problem(case: Case) -> Problem:
    x, weight = case.arrays(np.random.default_rng(0))
    return Problem.conv2d(x.shape, weight.shape, **case.arguments)


@pytest.mark.parametrize("case", DEEP)
def test_segments_with_halves_and_an_epilogue(case: Case) -> None:
    rng = np.random.default_rng(5)
    x, weight = case.arrays(rng)
    weight = weight.astype(np.float16).astype(np.float32)
    bias = rng.standard_normal(weight.shape[:1], dtype=np.float32)
    words = {**case.arguments, "activation": nnpack.Relu(0.1)}
    layer = nnpack.Conv2d(
        weight, bias, algorithm="implicit_gemm", weight_storage="float16", **words
    )
    reference = oracle.conv2d(x, weight, bias=bias, **words)
    residual = rng.standard_normal(reference.shape, dtype=np.float32)
    reference = oracle.conv2d(x, weight, bias=bias, residual=residual, **words)
    assert oracle.max_error(layer(x, residual=residual), reference) < 1e-5


@pytest.mark.parametrize(
    "case",
    [
        DEEP[0],
        # Several segments of each tap, in blocks that several threads would want smaller.
        Case((20, 20), padding=(12,) * 4, dilation=(12, 12), inputs=1500, outputs=130),
    ],
)
def test_segments_do_not_depend_on_the_number_of_threads(case: Case) -> None:
    x, weight = case.arrays(np.random.default_rng(6))
    one, *others = (
        nnpack.conv2d(x, weight, algorithm="implicit_gemm", threads=threads, **case.arguments)
        for threads in (1, 2, 3, 8)
    )
    for y in others:
        np.testing.assert_array_equal(y, one)


def test_rectangles_leave_out_all_padding() -> None:
    single = TileChoice(GemmTile(1, 1), "channels", 1.0)  # whole rows of one pixel waste nothing
    for case in DEEP[:2]:
        problem = _problem(case)
        ones, kernel = np.ones((1, 1, *case.image)), np.ones((1, 1, *case.kernel))
        met = oracle.conv2d(ones, kernel, **{**case.arguments, "groups": 1}).sum()
        of = problem.out_height * problem.out_width * kernel.size
        assert rectangle_share(problem, single, host_target()) == pytest.approx(met / of)


def test_rectangles_smaller_than_tiles_are_not_made() -> None:
    problem = Problem.conv2d((1, 300, 7, 7), (114, 300, 5, 5), padding=2, stride=3)
    assert rectangle_share(problem, _tile(problem), host_target()) > 1


@pytest.mark.parametrize("target", TARGETS, ids=name_of)
def test_rows_longer_than_a_register_stay_inside_their_buffer(target: Target) -> None:
    """Phases of 7 columns in tiles of 6 and the rest; what lies behind a buffer is in use here."""
    rng = np.random.default_rng(9)
    x, weight = integers(rng, (4, 4, 9, 9)), integers(rng, (4, 67, 3, 5))
    words: dict[str, Any] = {"padding": (0, 1, 1, 2), "dilation": 2}
    scale, bias, residual = (integers(rng, shape) for shape in ((67,), (67,), (4, 67, 12, 14)))
    terms: dict[str, Any] = {"scale": scale, "bias": bias, "residual": residual}
    shapes: dict[str, Any] = {f"{name}_shape": array.shape for name, array in terms.items()}
    problem = TransposedProblem.conv_transpose2d(x.shape, weight.shape, **words, **shapes)
    run = runner(make_plan(problem, "winograd_6", target, 1), problem, target)
    expected = oracle.conv_transpose2d(x, weight, **words, **terms)

    def check() -> None:
        y = run(Operands(x, weight, bias, scale, residual), "after")
        assert oracle.max_error(y, expected) < 1e-4

    assert all_survive([check])
