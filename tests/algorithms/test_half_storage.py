"""Weights kept in half precision: exact where they are packed, within bounds where transformed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnpack.algorithms.base import Algorithm
from nnpack.algorithms.cook_toom import CookToom
from nnpack.algorithms.storage import MAX_ROUNDING
from nnpack.algorithms.table import ALGORITHMS
from nnpack.algorithms.winograd import WinogradAlgorithm
from nnpack.arrays import element_strides
from nnpack.codegen.compiler import emit_object
from nnpack.codegen.target import AVX2, AVX512, NEON, X86_64, Target, host_target
from nnpack.kernels.storage import SCALE_BYTES
from nnpack.plan import kernels_of
from nnpack.planner import explain, make_plan
from nnpack.problem import Accuracy, Problem
from tests import oracle
from tests.algorithms.limits import absolute_limit
from tests.guard import Side
from tests.native import TARGETS, name_of
from tests.plans import Float32Array, Operands, all_survive, runner
from tests.problems import ConvCase, conv_problems, problem_count

BY_TARGET = pytest.mark.parametrize("target", TARGETS, ids=name_of)
BY_ALGORITHM = pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda a: str(a.name))
CONVERTING = [target for target in TARGETS if target.half_conversions]

PACKED = ("pointwise", "direct", "implicit_gemm")
TRANSFORMED = ("winograd_2", "fourier_8", "fourier_16")


def _halves(weight: Float32Array) -> Float32Array:
    return weight.astype(np.float16).astype(np.float32)


def _stored(problem: Problem) -> Problem:
    return dataclasses.replace(problem, weight_storage="float16")


def _problems() -> Iterator[Problem]:
    """Odd channels, more than a panel of them; borders, groups, strides, dilation."""
    yield Problem.conv2d((2, 19, 9, 11), (35, 19, 3, 3), padding=1)
    yield Problem.conv2d((1, 6, 14, 7), (70, 3, 3, 3), groups=2)
    yield Problem.conv2d((1, 17, 12, 12), (33, 17, 5, 5), padding=2)
    yield Problem.conv2d((2, 21, 6, 9), (50, 21, 1, 1))
    yield Problem.conv2d((1, 5, 40, 40), (3, 5, 1, 1))
    yield Problem.conv2d((1, 3, 23, 23), (20, 3, 3, 3), stride=2, padding=1)
    yield Problem.conv2d((1, 16, 20, 20), (16, 16, 3, 3), dilation=2, padding=2)
    yield Problem.conv2d((1, 8, 10, 10), (8, 1, 3, 3), groups=8)


def _random(problem: Problem, scale: float = 1.0) -> Operands:
    rng = np.random.default_rng(11)
    weight = rng.standard_normal(problem.weight_shape, dtype=np.float32)
    weight *= np.float32(scale)
    return Operands(rng.standard_normal(problem.x_shape, dtype=np.float32), _halves(weight))


def _reference(problem: Problem, operands: Operands) -> oracle.Float64Array:
    return oracle.conv2d(
        operands.x,
        operands.weight,
        stride=problem.stride,
        padding=problem.padding,
        dilation=problem.dilation,
        groups=problem.groups,
    )


def _taken(algorithm: Algorithm, target: Target) -> list[Problem]:
    stored = (_stored(problem) for problem in _problems())
    return [problem for problem in stored if algorithm.refusal(problem, target) is None]


@pytest.mark.parametrize("target", CONVERTING, ids=name_of)
@pytest.mark.parametrize("name", [*PACKED, *TRANSFORMED, "winograd_3"])
def test_results_are_right_beside_forbidden_pages(target: Target, name: str) -> None:
    """Packed weights have just the bytes that the plan says, and no more are touched."""
    (algorithm,) = (a for a in ALGORITHMS if a.name == name)
    problems = _taken(algorithm, target)
    runs = [runner(algorithm.build(p, target, 1), p, target) for p in problems]

    def check(number: int, side: Side) -> None:
        problem = problems[number]
        operands = _random(problem)
        y = runs[number](operands.guarded(side), side)
        error = np.abs(y - _reference(problem, operands))
        assert error.max() <= absolute_limit(algorithm, problem, target, operands)

    sides: tuple[Side, ...] = ("before", "after")
    assert all_survive(partial(check, n, side) for n in range(len(runs)) for side in sides)


@BY_TARGET
@settings(max_examples=problem_count(0.1))
@given(data=st.data(), case=conv_problems(), threads=st.sampled_from([1, 1, 3]))
def test_any_problem_is_within_the_limit(
    target: Target, data: st.DataObject, case: ConvCase, threads: int
) -> None:
    algorithm = data.draw(st.sampled_from(ALGORITHMS))
    case = dataclasses.replace(case, weight=_halves(np.ascontiguousarray(case.weight)))
    residual = None if case.residual is None else np.ascontiguousarray(case.residual)
    x = np.ascontiguousarray(case.x)
    operands = Operands(x, case.weight, case.bias, case.scale, residual, case.slopes)
    problem = _stored(case.problem(x_strides=element_strides(operands.x)))
    if problem.is_empty or algorithm.refusal(problem, target) is not None:
        return
    run = runner(algorithm.build(problem, target, threads), problem, target)
    error = np.abs(run(operands, "after") - case.reference())
    assert np.all(error <= absolute_limit(algorithm, problem, target, operands))


@BY_TARGET
@pytest.mark.parametrize("name", PACKED)
def test_packed_halves_compute_what_floats_do(target: Target, name: str) -> None:
    (algorithm,) = (a for a in ALGORITHMS if a.name == name)
    for problem in _taken(algorithm, target):
        operands = _random(problem)
        floats = dataclasses.replace(problem, weight_storage="float32")
        plans = [algorithm.build(asked, target, 1) for asked in (problem, floats)]
        found, expected = (runner(plan, problem, target)(operands, "after") for plan in plans)
        np.testing.assert_array_equal(found, expected)


# From subnormal halves to such that sums of them would overflow half precision.
SCALES = [2.0**-22, 1e-5, 1e-2, 1.2e4]


@pytest.mark.parametrize("target", CONVERTING, ids=name_of)
@pytest.mark.parametrize("name", TRANSFORMED)
@pytest.mark.parametrize("scale", SCALES)
def test_rounding_adds_what_it_should_whatever_the_scale(
    target: Target, name: str, scale: float
) -> None:
    (algorithm,) = (a for a in ALGORITHMS if a.name == name)
    problem = _stored(Problem.conv2d((2, 48, 20, 20), (40, 48, 3, 3), padding=1))
    operands = _random(problem, scale)
    estimate = algorithm.estimate(problem, target)
    assert 0 < estimate.rounding <= MAX_ROUNDING["fast"]
    y = runner(algorithm.build(problem, target, 1), problem, target)(operands, "after")
    reference = _reference(problem, operands)
    assert oracle.relative_l2(y, reference) <= 1.1 * estimate.relative_l2
    assert oracle.max_error(y, reference) <= 1.6 * estimate.error


@pytest.mark.parametrize("target", CONVERTING, ids=name_of)
@pytest.mark.parametrize("name", TRANSFORMED)
def test_weights_at_the_end_of_the_range_do_not_overflow(target: Target, name: str) -> None:
    """All sums in the transforms are as great as they can be."""
    (algorithm,) = (a for a in ALGORITHMS if a.name == name)
    for taps in (3, 5) if name != "winograd_2" else (3,):
        problem = _stored(Problem.conv2d((1, 4, 12, 12), (20, 4, taps, taps)))
        signs = np.random.default_rng(2).choice([-1, 1], problem.weight_shape)
        signs[:8] = 1
        x = np.random.default_rng(3).standard_normal(problem.x_shape, dtype=np.float32)
        operands = Operands(x, np.float32(65504.0) * signs.astype(np.float32))
        y = runner(algorithm.build(problem, target, 1), problem, target)(operands, "after")
        assert np.isfinite(y).all()
        assert oracle.relative_l2(y, _reference(problem, operands)) <= MAX_ROUNDING["fast"]


@pytest.mark.parametrize("target", CONVERTING, ids=name_of)
@pytest.mark.parametrize("name", TRANSFORMED)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_no_weight_spoils_other_output_channels(target: Target, name: str, bad: float) -> None:
    (algorithm,) = (a for a in ALGORITHMS if a.name == name)
    problem = _stored(Problem.conv2d((1, 4, 12, 12), (20, 4, 3, 3)))
    operands = _random(problem, 1e-3)
    others = [k for k in range(20) if k != 7]
    reference = _reference(problem, operands)[:, others]
    operands.weight[7, 2, 1, 1] = bad
    y = runner(algorithm.build(problem, target, 1), problem, target)(operands, "after")
    assert oracle.relative_l2(y[:, others], reference) <= MAX_ROUNDING["fast"]
    assert not np.isfinite(y[:, 7]).any()


@pytest.mark.parametrize("target", CONVERTING, ids=name_of)
@pytest.mark.parametrize("name", TRANSFORMED)
def test_weights_of_zero_give_zeros(target: Target, name: str) -> None:
    (algorithm,) = (a for a in ALGORITHMS if a.name == name)
    problem = _stored(Problem.conv2d((1, 4, 12, 12), (20, 4, 3, 3)))
    y = runner(algorithm.build(problem, target, 1), problem, target)(_random(problem, 0.0), "after")
    assert not y.any()


def test_only_tiles_that_lose_little_are_kept_as_halves() -> None:
    problem = _stored(Problem.conv2d((1, 64, 28, 28), (64, 64, 3, 3), padding=1))
    kept = {a.name for a in ALGORITHMS if _storage(a, problem) == "float16"}
    assert kept == {"winograd_2", "fourier_8", "fourier_16", "direct", "implicit_gemm"}
    line = _stored(Problem.conv2d((1, 64, 28, 28), (64, 64, 1, 3)))
    kept = {a.name for a in ALGORITHMS if _storage(a, line) == "float16"}
    assert {"winograd_2", "winograd_3", "winograd_4"} < kept
    assert "winograd_5" not in kept


def _storage(algorithm: Algorithm, problem: Problem) -> str | None:
    if algorithm.refusal(problem, AVX512) is not None:
        return None
    return algorithm.build(problem, AVX512, 1).weight_format.storage


@BY_ALGORITHM
def test_halves_take_half_the_bytes(algorithm: Algorithm) -> None:
    problem = Problem.conv2d((1, 64, 56, 56), (64, 64, 3, 3), padding=1)
    if algorithm.refusal(problem, AVX512) is not None:
        return
    forms = [algorithm.build(p, AVX512, 1).weight_format for p in (problem, _stored(problem))]
    floats, halves = (form.nbytes for form in forms)
    if forms[1].storage == "float32":
        assert floats == halves
    else:
        assert halves - floats // 2 in (0, SCALE_BYTES)
    assert forms[0] != forms[1] or isinstance(algorithm, (WinogradAlgorithm, CookToom))


def test_machines_that_do_not_convert_keep_floats() -> None:
    problem = _stored(Problem.conv2d((1, 64, 28, 28), (64, 64, 3, 3), padding=1))
    found = explain(problem, "auto", X86_64, 1)
    assert {c.packed_storage for c in found.candidates if c.seconds} == {"float32"}
    assert not any(a.estimate(problem, X86_64).rounding for a in ALGORITHMS[1:9])


@pytest.mark.parametrize("target", [AVX512, AVX2, NEON], ids=name_of)
@pytest.mark.parametrize("name", [*PACKED, *TRANSFORMED])
def test_kernels_convert_without_a_library(target: Target, name: str) -> None:
    (algorithm,) = (a for a in ALGORITHMS if a.name == name)
    problem = _taken(algorithm, target)[0]
    plan = algorithm.build(problem, target, 1)
    for kernel in kernels_of((*plan.stages, *plan.weight_format.stages)):
        code = emit_object(kernel, target)
        assert not any(name in code for name in (b"extendhf", b"truncsfhf", b"h2f", b"f2h"))


@pytest.mark.parametrize(("accuracy", "relative_l2"), [("fast", 5.2e-4), ("exact", 1e-6)])
@pytest.mark.parametrize("taps", [1, 3, 5])
def test_auto_keeps_the_promised_accuracy(
    accuracy: Accuracy, relative_l2: float, taps: int
) -> None:
    target = host_target()
    problem = _stored(
        Problem.conv2d((1, 64, 14, 14), (64, 64, taps, taps), padding=taps // 2, accuracy=accuracy)
    )
    operands = _random(problem)
    y = runner(make_plan(problem, "auto", target, 1), problem, target)(operands, "after")
    assert oracle.relative_l2(y, _reference(problem, operands)) <= relative_l2


def test_explain_says_what_is_kept_and_its_error() -> None:
    problem = _stored(Problem.conv2d((1, 64, 14, 14), (64, 64, 3, 3), padding=1))
    found = explain(problem, "auto", AVX512, 1)
    by_name = {c.algorithm: c for c in found.candidates}
    rounded, exact = by_name["winograd_2"], by_name["winograd_4"]
    assert (rounded.packed_storage, exact.packed_storage) == ("float16", "float32")
    assert rounded.error is not None
    assert 2e-4 < rounded.error < 1.3e-3
    assert exact.error is not None
    assert exact.error < 5e-5
    lines = {line.split()[0]: line for line in str(found).replace("*", " ").splitlines()[1:]}
    assert "float16" in lines["winograd_2"]
    assert "float32" in lines["winograd_4"]


def test_halves_of_weights_that_outgrow_the_cache_are_predicted_to_take_less_time() -> None:
    """Half of the traffic: where weights are streamed from memory, that decides."""
    problem = Problem.conv2d((1, 1024, 4, 4), (1024, 1024, 3, 3), padding=1)
    asked = explain(_stored(problem), "auto", AVX512, 1)
    by_name = {c.algorithm: c for c in asked.candidates}
    assert by_name["winograd_2"].packed_storage == "float16"
    floats = {c.algorithm: c for c in explain(problem, "auto", AVX512, 1).candidates}
    seconds = [found["winograd_2"].seconds for found in (by_name, floats)]
    assert seconds[0] is not None
    assert seconds[1] is not None
    assert seconds[0] < seconds[1]
