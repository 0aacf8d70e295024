"""Convolutions that pool what they store: merged or in a following pass, always the same values."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import nnpack
from nnpack.algorithms.following import MERGED, CompleteAlgorithm, bare
from nnpack.algorithms.slices import FOLLOWING
from nnpack.algorithms.table import ALGORITHMS
from nnpack.arrays import element_strides
from nnpack.codegen.target import Target, host_target
from nnpack.planner import make_plan
from nnpack.problem import Activation, Pooling, Problem, ResidualPosition, TransposedProblem
from tests import oracle
from tests.algorithms.limits import absolute_limit
from tests.guard import Side
from tests.native import TARGETS, name_of
from tests.plans import Operands, all_survive, runner
from tests.problems import (
    ConvCase,
    TransposedCase,
    conv_problems,
    conv_transpose_problems,
    problem_count,
)
from tests.test_transposed import assert_close

POOLS: tuple[Pooling, ...] = (nnpack.MaxPool(2), nnpack.AveragePool(2))
NAMES = (
    *("winograd_2", "winograd_4", "winograd_6", "winograd_7", "fourier_8", "fourier_16"),
    *("direct", "implicit_gemm", "pointwise", "depthwise", "cook_toom_2", "cook_toom_4"),
)
IMAGES = ((2, 2), (3, 5), (7, 9), (13, 31), (20, 40), (5, 97))

BY_TARGET = pytest.mark.parametrize("target", TARGETS, ids=name_of)


def _algorithm(name: str) -> CompleteAlgorithm:
    return CompleteAlgorithm(next(a for a in ALGORITHMS if a.name == name))


def _sample(
    name: str,
    image: tuple[int, int],
    pool: Pooling,
    activation: Activation | None,
    residual: ResidualPosition | None = None,
) -> tuple[Problem, Operands]:
    """A convolution that the algorithm takes, with as many outputs as pixels."""
    rng = np.random.default_rng(6)
    groups = 18 if name == "depthwise" else 1
    channels, outputs = groups if groups > 1 else 5, 18 if groups > 1 else 19
    kernel = {"pointwise": 1, "fourier_8": 4, "fourier_16": 5}.get(name, 3)
    shape = (outputs, channels // groups, kernel, kernel)
    problem = Problem.conv2d(
        (2, channels, *image),
        shape,
        bias_shape=(outputs,),
        padding="same",
        groups=groups,
        activation=activation,
        residual_shape=(2, outputs, *image) if residual else None,
        residual_position=residual or "before",
        pool=pool,
    )
    x = rng.standard_normal(problem.x_shape, dtype=np.float32)
    weight = rng.standard_normal(shape, dtype=np.float32) / np.float32(np.sqrt(np.prod(shape[1:])))
    bias = rng.standard_normal(outputs, dtype=np.float32)
    added = rng.standard_normal(problem.conv_shape, dtype=np.float32) if residual else None
    return problem, Operands(x, weight, bias, residual=added)


def _check(
    algorithm: CompleteAlgorithm, problem: Problem, operands: Operands, target: Target, side: Side
) -> None:
    run = runner(algorithm.build(problem, target, 1), problem, target)
    reference = oracle.conv2d(
        operands.x,
        operands.weight,
        operands.bias,
        padding=problem.padding,
        groups=problem.groups,
        residual=operands.residual,
        residual_position=problem.epilogue.residual or "before",
        activation=problem.epilogue.activation,
        pool=problem.epilogue.pool,
    )
    limit = absolute_limit(algorithm.inner, bare(problem), target, operands)
    y = run(operands.guarded(side), side)
    assert y.shape == reference.shape
    assert np.all(np.abs(y - reference) <= limit), (algorithm.name, problem.x_shape)


@BY_TARGET
@pytest.mark.parametrize("name", NAMES)
def test_every_size_in_every_algorithm(target: Target, name: str) -> None:
    algorithm = _algorithm(name)
    checks = []
    for image, pool in zip(IMAGES, itertools.cycle(POOLS)):
        problem, operands = _sample(name, image, pool, nnpack.Relu())
        checks += [
            partial(_check, algorithm, problem, operands, target, side)
            for side in ("before", "after")
        ]
    assert all_survive(checks)


ACTIVATIONS = (None, nnpack.Relu(-0.5), nnpack.Elu(), nnpack.Clip(0, 1))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", NAMES)
def test_the_pool_comes_after_the_activation(activation: Activation | None, name: str) -> None:
    """Pools and targets take turns: any two of name, activation, pool and target meet."""
    place = NAMES.index(name) + ACTIVATIONS.index(activation)
    target = TARGETS[place % len(TARGETS)]
    problem, operands = _sample(name, (9, 22), POOLS[place // 2 % 2], activation)
    _check(_algorithm(name), problem, operands, target, "after")


@BY_TARGET
@pytest.mark.parametrize("name", NAMES)
def test_a_residual_is_added_before_the_pool(target: Target, name: str) -> None:
    """It has the rows and columns that the pool drops, and neither more nor less is read."""
    algorithm = _algorithm(name)
    checks = []
    places: tuple[ResidualPosition, ...] = ("before", "after")
    for image, place, pool in zip(((3, 5), (9, 22), (7, 35)), itertools.cycle(places), POOLS * 2):
        problem, operands = _sample(name, image, pool, nnpack.Relu(0.25), place)
        assert name == "winograd_7" or algorithm.build(problem, target, 1).detail.endswith(MERGED)
        checks += [
            partial(_check, algorithm, problem, operands, target, side)
            for side in ("before", "after")
        ]
    assert all_survive(checks)


@BY_TARGET
def test_every_tile_of_matrix_products(target: Target) -> None:
    """Pixels or channels in the lanes; the depth as a whole, in segments, over rectangles."""
    rng = np.random.default_rng(8)
    cases: list[tuple[str, tuple[int, int, int, int], tuple[int, int, int], dict[str, Any]]] = [
        ("implicit_gemm", (1, 70, 13, 18), (20, 3, 3), {"padding": 6, "dilation": 6}),
        ("implicit_gemm", (1, 300, 9, 11), (40, 5, 5), {"padding": 2}),
        ("implicit_gemm", (1, 6, 29, 101), (40, 3, 3), {"stride": 2, "padding": 1}),
        ("pointwise", (3, 33, 14, 15), (70, 1, 1), {}),
    ]
    for number, (name, shape, (outputs, *kernel), words) in enumerate(cases):
        x = rng.standard_normal(shape, dtype=np.float32)
        weight = rng.standard_normal((outputs, shape[1], *kernel), dtype=np.float32)
        bias = rng.standard_normal(outputs, dtype=np.float32)
        words |= {"activation": nnpack.Silu()}
        plain = Problem.conv2d(shape, weight.shape, bias_shape=(outputs,), **words)
        residual = None
        if number % 2 == 0:
            residual = rng.standard_normal(plain.conv_shape, dtype=np.float32)
            words["residual_shape"] = residual.shape
        problem = Problem.conv2d(shape, weight.shape, bias_shape=(outputs,), pool=POOLS[0], **words)
        words.pop("residual_shape", None)
        operands = Operands(x, weight, bias, residual=residual)
        expected = oracle.conv2d(x, weight, bias, residual=residual, pool=POOLS[0], **words)
        complete = _algorithm(name)
        limit = absolute_limit(complete.inner, bare(problem), target, operands)
        for algorithm in (complete, *complete.variants(problem, target)):
            plan = algorithm.build(problem, target, 1)
            assert plan.detail.endswith(MERGED)
            y = runner(plan, problem, target)(operands.guarded("after"), "after")
            assert np.all(np.abs(y - expected) <= limit), (name, shape, plan.detail)


@BY_TARGET
@settings(max_examples=problem_count(0.3))
@given(
    data=st.data(),
    case=conv_problems(),
    pool=st.sampled_from(POOLS),
    threads=st.sampled_from([1, 1, 3]),
)
def test_random_problems(
    target: Target, data: st.DataObject, case: ConvCase, pool: Pooling, threads: int
) -> None:
    plain = case.problem()
    assume(not plain.is_empty and min(plain.out_height, plain.out_width) > 1)
    algorithm = CompleteAlgorithm(data.draw(st.sampled_from(ALGORITHMS)))
    operands = Operands(
        np.ascontiguousarray(case.x),
        np.ascontiguousarray(case.weight),
        case.bias,
        case.scale,
        None if case.residual is None else np.ascontiguousarray(case.residual),
        case.slopes,
    )
    problem = case.problem(pool=pool, x_strides=element_strides(operands.x))
    if algorithm.refusal(problem, target) is not None:
        return
    limit = absolute_limit(algorithm.inner, bare(problem), target, operands)
    y = runner(algorithm.build(problem, target, threads), problem, target)(operands, "after")
    reference = oracle.pool(case.reference(), pool)
    assert y.shape == reference.shape
    assert np.all(np.abs(y - reference) <= limit)


@settings(max_examples=problem_count(0.2))
@given(case=conv_transpose_problems(), pool=st.sampled_from(POOLS))
def test_transposed_convolutions_are_pooled(case: TransposedCase, pool: Pooling) -> None:
    plain = case.problem()
    assume(min(plain.out_height, plain.out_width) > 1)
    y = nnpack.conv_transpose2d(case.x, case.weight, case.bias, pool=pool, **case.arguments)
    assert y.shape == case.problem(pool=pool).y_shape
    assert_close(y, oracle.pool(case.reference(), pool), case)


@pytest.mark.parametrize(
    ("name", "detail"),
    [
        ("winograd_2", MERGED),
        ("winograd_6", MERGED),
        ("winograd_7", FOLLOWING),
        ("fourier_8", MERGED),
        ("fourier_16", MERGED),
        ("direct", MERGED),
        ("implicit_gemm", MERGED),
        ("depthwise", MERGED),
    ],
)
def test_the_plan_says_how_it_pools(name: str, detail: str) -> None:
    problem, _ = _sample(name, (28, 28), POOLS[0], nnpack.Relu())
    plan = make_plan(problem, name, host_target(), 1)
    assert plan.detail.endswith(detail)
    full = 4 * np.prod(problem.conv_shape)
    assert (plan.workspace_bytes >= full) or detail == MERGED


def test_a_following_pass_takes_no_more_memory_for_more_images() -> None:
    """Nor does it matter how slices are cut: the last one moves back."""
    rng = np.random.default_rng(3)
    weight = rng.standard_normal((40, 5, 3, 3), dtype=np.float32)
    words: Any = {"padding": 2, "dilation": 2, "pool": nnpack.MaxPool(2)}
    problems = [Problem.conv2d((n, 5, 70, 71), weight.shape, **words) for n in (8, 11, 80)]
    plans = [make_plan(p, "winograd_4", host_target(), 2) for p in problems]
    assert all(plan.detail.endswith(FOLLOWING) for plan in plans)
    assert max(plan.workspace_bytes for plan in plans) < 2 * plans[0].workspace_bytes
    x = rng.standard_normal((11, 5, 70, 71), dtype=np.float32)
    residual = rng.standard_normal((11, 40, 70, 71), dtype=np.float32)
    y = nnpack.conv2d(x, weight, residual=residual, algorithm="winograd_4", threads=2, **words)
    expected = oracle.conv2d(x, weight, residual=residual, **words)
    assert oracle.max_error(y, expected) < 5e-5


def test_a_transposed_convolution_of_one_phase_merges_its_pool() -> None:
    problem = TransposedProblem.conv_transpose2d(
        (2, 9, 13, 18), (9, 20, 3, 3), padding=1, pool=POOLS[0]
    )
    assert make_plan(problem, "auto", host_target(), 1).detail.endswith(MERGED)


def test_layers_pool_and_explain_it() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((3, 16, 30, 31), dtype=np.float32)
    weight = rng.standard_normal((24, 16, 3, 3), dtype=np.float32)
    residual = rng.standard_normal((3, 24, 30, 31), dtype=np.float32)
    layer = nnpack.Conv2d(
        weight,
        padding=1,
        activation=nnpack.Relu(),
        residual_position="after",
        pool=nnpack.MaxPool(2),
        algorithm="winograd_4",
    )
    assert layer.explain(x.shape).chosen == "winograd_4"
    assert MERGED in str(layer.explain(x.shape))
    words = {"padding": 1, "activation": nnpack.Relu(), "pool": nnpack.MaxPool(2)}
    for added in (None, residual):
        y = layer(x, residual=added)
        expected = oracle.conv2d(x, weight, residual=added, residual_position="after", **words)  # type: ignore[arg-type]
        assert y.shape == (3, 24, 15, 15)
        assert oracle.max_error(y, expected) < 5e-5
    with pytest.raises(nnpack.ProblemError, match="residual.shape"):
        layer(x, residual=residual[:, :, :15, :15])


def test_a_nan_makes_its_window_nan() -> None:
    x = np.ones((1, 1, 6, 6), np.float32)
    x[0, 0, 3, 2] = np.nan
    weight = np.ones((1, 1, 1, 1), np.float32)
    for pool in POOLS:
        y = nnpack.conv2d(x, weight, pool=pool)
        assert np.isnan(y).sum() == 1
        assert np.isnan(y[0, 0, 1, 1])


@pytest.mark.parametrize(
    ("pool", "error", "message"),
    [
        (nnpack.MaxPool, nnpack.DtypeError, "must be MaxPool"),
        (2, nnpack.DtypeError, "must be MaxPool"),
    ],
)
def test_other_pools_are_refused(pool: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        nnpack.conv2d(  # type: ignore[call-overload]
            np.ones((1, 1, 4, 4), np.float32), np.ones((1, 1, 1, 1), np.float32), pool=pool
        )


def test_other_sizes_and_too_small_outputs_are_refused() -> None:
    for make, function in ((nnpack.MaxPool, "max_pool2d"), (nnpack.AveragePool, "avg_pool2d")):
        with pytest.raises(nnpack.ProblemError, match=f"size=3 must be 2; .* {function}"):
            make(3)
    with pytest.raises(nnpack.ProblemError, match="needs at least 2x2 outputs, got 1x4"):
        nnpack.conv2d(
            np.ones((1, 1, 1, 4), np.float32),
            np.ones((1, 1, 1, 1), np.float32),
            pool=nnpack.MaxPool(2),
        )
