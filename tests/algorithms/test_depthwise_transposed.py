"""Transposed depthwise convolution as a whole is right at every edge, inside the arrays."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

import nnpack
from nnpack.algorithms.depthwise_transposed import TransposedDepthwise
from nnpack.codegen.target import X86_64, Target, host_target
from nnpack.planner import explain, make_plan, writes_early
from nnpack.problem import TransposedProblem
from tests import oracle
from tests.guard import Side
from tests.native import TARGETS, name_of
from tests.plans import Operands, all_survive, integers, runner

# Extents of x, kernel, stride, padding, output padding, channels a group.
Case = tuple[Any, Any, Any, Any, Any, int]
CASES: list[Case] = [
    ((9, 11), (3, 3), (2, 2), 1, 1, 1),
    ((14, 14), (5, 5), (2, 2), 2, (1, 0), 1),
    ((3, 40), (3, 3), (2, 2), 1, 0, 2),
    ((7, 33), (7, 7), (3, 3), 2, 1, 1),
    ((7, 40), (4, 2), (3, 4), 0, 2, 1),
    ((5, 6), (1, 1), (2, 2), 0, 1, 2),
    ((8, 9), (3, 1), (1, 2), (1, 0), 0, 1),
    ((8, 18), (2, 5), (4, 3), (0, 1, 3, 6), 0, 1),
    ((1, 1), (3, 3), (2, 2), 1, 1, 1),
    ((6, 31), (3, 3), (2, 1), 1, (1, 0), 1),
]
EPILOGUES: list[dict[str, Any]] = [
    {},
    {"bias_shape": None, "activation": nnpack.Relu(0.1)},
    {"residual_shape": None},
]


def _stated(case: Case, batch: int, groups: int, **more: Any) -> TransposedProblem:
    image, kernel, stride, padding, output_padding, multiplier = case
    return TransposedProblem.conv_transpose2d(
        (batch, groups, *image),
        (groups, multiplier, *kernel),
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        groups=groups,
        **more,
    )


def _check(target: Target, case: Case, epilogue: dict[str, Any]) -> None:
    rng = np.random.default_rng(2)
    plain = _stated(case, 2, 3)
    shapes = {"bias_shape": (plain.out_channels,), "residual_shape": plain.y_shape}
    problem = _stated(case, 2, 3, **{k: v or shapes[k] for k, v in epilogue.items()})
    algorithm = TransposedDepthwise()
    assert algorithm.refusal(problem, target) is None
    run = runner(algorithm.build(problem, target, 1), problem, target)
    x, weight = integers(rng, problem.x_shape), integers(rng, problem.weight_shape)
    bias = integers(rng, shapes["bias_shape"]) if "bias_shape" in epilogue else None
    residual = integers(rng, plain.y_shape) if "residual_shape" in epilogue else None
    expected = oracle.conv_transpose2d(
        x,
        weight,
        bias,
        stride=case[2],
        padding=case[3],
        output_padding=case[4],
        groups=3,
        activation=epilogue.get("activation"),
        residual=residual,
    )
    operands = Operands(x, weight, bias, residual=residual)
    sides: tuple[Side, ...] = ("before", "after")
    for side in sides:
        y = run(operands.guarded(side), side)
        np.testing.assert_allclose(y, expected, rtol=1e-6)


@pytest.mark.parametrize("target", [t for t in TARGETS if t.masks], ids=name_of)
@pytest.mark.parametrize("epilogue", EPILOGUES, ids=["plain", "activated", "residual"])
def test_every_edge_stays_inside_the_arrays(target: Target, epilogue: dict[str, Any]) -> None:
    assert all_survive(partial(_check, target, case, epilogue) for case in CASES)


def test_it_is_used_where_it_applies_and_phases_elsewhere() -> None:
    """A choice by name leaves the phases to whoever is named."""
    target = next((t for t in TARGETS if t.masks), None)
    if target is None:
        pytest.skip("no target with masks runs here")
    problem = _stated(CASES[0], 2, 3)
    assert "at once" in make_plan(problem, "auto", target, 1).detail
    assert "at once" in make_plan(problem, "depthwise", target, 1).detail
    assert make_plan(problem, "direct", target, 1).algorithm == "direct"
    explanation = explain(problem, "auto", target, 1)
    assert explanation.chosen == "depthwise"
    assert "at once" in str(explanation)


def test_the_input_gradient_of_a_strided_depthwise_convolution_may_be_accumulated() -> None:
    rng = np.random.default_rng(3)
    grad, weight = integers(rng, (2, 5, 7, 6)), integers(rng, (5, 1, 3, 3))
    words: dict[str, Any] = {"stride": 2, "padding": 1, "groups": 5}
    plain = nnpack.conv2d_input_gradient(grad, weight, (2, 5, 14, 12), threads=1, **words)
    for threads in (1, 2, 3):
        out = np.full(plain.shape, 3.0, np.float32)
        nnpack.conv2d_input_gradient(
            grad, weight, plain.shape, out=out, accumulate=True, threads=threads, **words
        )
        np.testing.assert_array_equal(out, plain + 3)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"groups": 1, "weight": (3, 1, 3, 3)}, "one a channel"),
        ({"stride": 1}, "a stride of 2 to 4"),
        ({"stride": 5}, "a stride of 2 to 4"),
        ({"dilation": 2}, "no dilation"),
        ({"weight": (3, 1, 9, 9)}, "at most 64 taps"),
    ],
)
def test_what_it_cannot_do_is_said(change: dict[str, Any], reason: str) -> None:
    words: dict[str, Any] = {"groups": 3, "stride": 2, "weight": (3, 1, 3, 3), **change}
    weight = words.pop("weight")
    problem = TransposedProblem.conv_transpose2d((1, 3, 9, 9), weight, **words)
    refusal = TransposedDepthwise().refusal(problem, TARGETS[0])
    assert refusal is not None
    assert reason in refusal


def test_without_masks_phases_are_computed_one_by_one() -> None:
    refusal = TransposedDepthwise().refusal(_stated(CASES[0], 1, 3), X86_64)
    assert refusal is not None
    assert "masks" in refusal


def test_a_result_with_gaps_is_written_over_its_residual_once() -> None:
    """Phase by phase gaps are filled first; as a whole each output is read, then written.

    So are whole rows, as which phases with strides of 2 to 4 are interleaved.
    """
    rng = np.random.default_rng(4)
    for stride, groups, early in ((5, 2, True), (2, 2, False), (2, 4, False)):
        words: Any = {"stride": stride, "output_padding": 1, "groups": groups}
        problem = TransposedProblem.conv_transpose2d((2, 4, 5, 6), (4, 3, 1, 1), **words)
        assert writes_early(problem, "auto", host_target()) == early
        x = rng.standard_normal(problem.x_shape, np.float32)
        weight = rng.standard_normal(problem.weight_shape, np.float32)
        residual = rng.standard_normal(problem.y_shape, np.float32)
        expected = nnpack.conv_transpose2d(x, weight, residual=residual, **words)
        y = nnpack.conv_transpose2d(x, weight, residual=residual, out=residual, **words)
        np.testing.assert_array_equal(y, expected)
