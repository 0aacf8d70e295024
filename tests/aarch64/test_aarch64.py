"""What NEON code computes, under user-mode emulation; run by ``scripts/check-aarch64``."""

from __future__ import annotations

from dataclasses import replace as replaced
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nnpack
from nnpack.algorithms.base import Algorithm
from nnpack.algorithms.following import CompleteAlgorithm
from nnpack.algorithms.table import ALGORITHMS
from nnpack.algorithms.weight_gradient_base import WeightGradientAlgorithm
from nnpack.algorithms.weight_gradient_table import WEIGHT_GRADIENT_ALGORITHMS
from nnpack.codegen.target import NEON, CacheSizes
from nnpack.frozen import replace
from nnpack.gradient_problem import WeightGradientProblem
from nnpack.plan import Plan
from nnpack.planner import make_plan
from nnpack.problem import Problem, dense_strides
from tests import gradient_oracle, oracle
from tests.aarch64.emulator import Emulator, missing_tools
from tests.algorithms.limits import absolute_limit
from tests.plans import Operands
from tests.problems import (
    ConvCase,
    TransposedCase,
    conv_problems,
    conv_transpose_problems,
    problem_count,
)

# Caches of a few tiles, so that small problems have several blocks and chunks.
TARGET = replace(NEON, caches=CacheSizes(4 << 10, 64 << 10, 1 << 20))


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Emulator:
    assert not missing_tools(), f"install {', '.join(missing_tools())}"
    return Emulator(tmp_path_factory.mktemp("aarch64"), TARGET)


def _check(
    emulator: Emulator, algorithm: Algorithm, case: ConvCase, problem: Problem, threads: int
) -> None:
    operands = Operands(
        np.ascontiguousarray(case.x),
        case.weight,
        case.bias,
        case.scale,
        case.residual,
        case.slopes,
    )
    plan = algorithm.build(problem, TARGET, threads)
    limit = absolute_limit(algorithm, problem, TARGET, operands)
    reference = case.reference()
    for before in (False, True):
        y = emulator.run(plan, problem.y_shape, _arrays(case), before=before)
        assert np.all(np.abs(y - reference) <= limit), (plan.detail, np.abs(y - reference).max())


def _arrays(case: ConvCase | TransposedCase) -> dict[str, np.ndarray]:
    names = ("x", "weight", "bias", "scale", "residual", "slopes")
    return {name: array for name in names if (array := getattr(case, name)) is not None}


@cache
def _case(
    shape: tuple[int, ...], weight: tuple[int, ...], groups: int, stride: int, dilation: int
) -> ConvCase:
    rng = np.random.default_rng(7)
    vectors = rng.standard_normal((2, weight[0]), np.float32)
    return ConvCase(
        rng.standard_normal(shape, np.float32),
        rng.standard_normal(weight, np.float32),
        vectors[0],
        vectors[1],
        (stride, stride),
        (weight[2] // 2 * dilation, weight[3] // 2 * dilation),
        (dilation, dilation),
        groups,
        nnpack.Elu(),
    )


CASES = {
    "3x3": ((2, 19, 23, 21), (21, 19, 3, 3), 1, 1, 1),
    "3x3 strided": ((1, 19, 23, 21), (21, 19, 3, 3), 1, 2, 1),
    "3x3 dilated": ((1, 9, 23, 21), (10, 9, 3, 3), 1, 1, 2),
    "3x3 grouped": ((1, 24, 13, 14), (12, 8, 3, 3), 3, 1, 1),
    "1x1": ((2, 33, 9, 11), (35, 33, 1, 1), 1, 1, 1),
    "5x5": ((1, 10, 22, 19), (9, 10, 5, 5), 1, 1, 1),
    "7x7 first": ((1, 3, 40, 39), (9, 3, 7, 7), 1, 2, 1),
    "1x7": ((1, 10, 17, 17), (9, 10, 1, 7), 1, 1, 1),
    "depthwise": ((1, 7, 20, 23), (14, 1, 3, 3), 7, 1, 1),
    "depthwise strided": ((1, 7, 9, 9), (7, 1, 5, 5), 7, 2, 1),
}


@pytest.mark.parametrize("storage", ["float32", "float16"])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda a: str(a.name))
def test_every_algorithm_is_within_its_limit(
    emulator: Emulator, algorithm: Algorithm, name: str, threads: int, storage: str
) -> None:
    case = _case(*CASES[name])
    if storage == "float16":
        weight = case.weight.astype(np.float16).astype(np.float32)
        case = ConvCase(**{**vars(case), "weight": weight})
    problem = case.problem(weight_storage=storage)
    if algorithm.refusal(problem, TARGET) is not None:
        pytest.skip("refuses")
    _check(emulator, algorithm, case, problem, threads)


SUMMED = ("3x3", "3x3 strided", "3x3 dilated", "1x1", "depthwise")


@pytest.mark.parametrize("name", SUMMED)
@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda a: str(a.name))
def test_statistics_are_those_of_what_is_stored(
    emulator: Emulator, algorithm: Algorithm, name: str
) -> None:
    case = _case(*CASES[name])
    problem = case.problem(statistics=True)
    complete = CompleteAlgorithm(algorithm)
    if complete.refusal(problem, TARGET) is not None:
        pytest.skip("refuses")
    plan, shape = complete.build(problem, TARGET, 3), problem.y_shape
    y = case.reference()
    for word, expected in (("mean", y.mean((0, 2, 3))), ("variance", y.var((0, 2, 3)))):
        found = emulator.run(plan, shape, _arrays(case), before=False, result=word)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(y).max())


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("algorithm", WEIGHT_GRADIENT_ALGORITHMS, ids=lambda a: str(a.name))
def test_weight_gradients_are_within_the_limit(
    emulator: Emulator, algorithm: WeightGradientAlgorithm, name: str
) -> None:
    case = replaced(_case(*CASES[name]), bias=None, scale=None, activation=None)
    forward = case.problem()
    problem = WeightGradientProblem(
        forward=forward, grad_strides=dense_strides(forward.y_shape)[:2], accumulate=False
    )
    if algorithm.refusal(problem, TARGET) is not None:
        pytest.skip("refuses")
    grad = np.random.default_rng(8).standard_normal(forward.y_shape, np.float32)
    words = {n: getattr(case, n) for n in ("stride", "padding", "dilation", "groups")}
    expected = gradient_oracle.weight_gradient(case.x, grad, case.weight.shape, **words)
    size = float(np.abs(case.x).max()) * float(np.abs(grad).sum(axis=(0, 2, 3)).max())
    limit = 20 * algorithm.estimate(problem, TARGET).error * size + 1e-6
    plan = algorithm.build(problem, TARGET, 3)
    for before in (False, True):
        arrays = {"x": case.x, "grad": grad}
        found = emulator.run(plan, case.weight.shape, arrays, before=before)
        assert np.all(np.abs(found - expected) <= limit)


@settings(max_examples=problem_count(0.2))
@given(case=conv_problems(), number=st.integers(0, 999), threads=st.sampled_from([1, 3]))
def test_random_problems_are_within_the_limit(
    emulator: Emulator, case: ConvCase, number: int, threads: int
) -> None:
    problem = case.problem()
    able = [a for a in ALGORITHMS if a.refusal(problem, TARGET) is None]
    if not problem.is_empty:
        _check(emulator, able[number % len(able)], case, problem, threads)


@settings(max_examples=problem_count(0.1))
@given(case=conv_transpose_problems())
def test_random_transposed_problems_are_right(emulator: Emulator, case: TransposedCase) -> None:
    problem = case.problem()
    if problem.is_empty:
        return
    plan: Plan = make_plan(problem, "auto", TARGET, 1)
    y = emulator.run(plan, problem.y_shape, _arrays(case), before=False)
    reference = case.reference()
    # Where all cancels, what is left of it bounds nothing.
    magnitude = oracle.conv_transpose2d(np.abs(case.x), np.abs(case.weight), **_geometry(case))
    scale = 1.0 if case.scale is None else float(np.abs(case.scale).max())
    slack = 1e-4 * (scale * magnitude.max(initial=0.0) + np.abs(reference).max(initial=0.0))
    assert np.all(np.abs(y - reference) <= slack)


def _geometry(case: TransposedCase) -> dict[str, Any]:
    names = ("stride", "padding", "output_padding", "dilation", "groups")
    return {name: case.arguments[name] for name in names}
