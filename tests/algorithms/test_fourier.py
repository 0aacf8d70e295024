"""Fourier convolution is right at every edge, and stays inside its arrays and its workspace."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
import pytest

import nnpack
from nnpack.algorithms.fourier import FourierAlgorithm
from nnpack.codegen.compiler import emit_object
from nnpack.codegen.target import AVX512, KIB, NEON, CacheSizes, Target, host_target
from nnpack.errors import AlgorithmError
from nnpack.plan import Plan, kernels_of
from nnpack.problem import Problem
from tests import oracle
from tests.guard import Side
from tests.native import TARGETS, name_of
from tests.plans import Operands, all_survive, runner

BY_TARGET = pytest.mark.parametrize("target", TARGETS, ids=name_of)
BY_SIDE = pytest.mark.parametrize("side", ["before", "after"])

# Random data err by 2e-7 to 3e-7 of the greatest value.
TOLERANCE = 1.5e-6


def algorithms() -> list[FourierAlgorithm]:
    """Both tiles with either form of the products."""
    counts: tuple[Literal[3, 4], ...] = (3, 4)
    return [FourierAlgorithm(n, (count,)) for n in (8, 16) for count in counts]


BY_ALGORITHM = pytest.mark.parametrize(
    "algorithm", algorithms(), ids=lambda a: f"{a.n}-by-{a.multiplications[0]}"
)


def problem_of(
    image: tuple[int, int],
    kernel: tuple[int, int],
    channels: tuple[int, int] = (3, 5),
    *,
    batch: int = 1,
    groups: int = 1,
    padding: Any = 0,
) -> Problem:
    inputs, outputs = channels
    return Problem.conv2d(
        (batch, groups * inputs, *image),
        (groups * outputs, inputs, *kernel),
        groups=groups,
        padding=padding,
    )


def check(problem: Problem, run: Callable[[Operands, Side], Any], side: Side) -> None:
    """``run`` is right on random data, with every array beside a forbidden page."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal(problem.x_shape, dtype=np.float32)
    weight = rng.standard_normal(problem.weight_shape, dtype=np.float32)
    reference = oracle.conv2d(x, weight, padding=problem.padding, groups=problem.groups)
    error = oracle.max_error(run(Operands(x, weight).guarded(side), side), reference)
    assert error <= TOLERANCE, f"{problem}: {error}"


def assert_right(
    problems: Iterable[Problem],
    algorithm: FourierAlgorithm,
    target: Target,
    side: Side,
    threads: int = 1,
) -> None:
    """On all problems, compiled here and run in a child that may crash."""
    runs = [
        (problem, runner(algorithm.build(problem, target, threads), problem, target))
        for problem in problems
        if algorithm.refusal(problem, target) is None
    ]
    assert runs
    assert all_survive(partial(check, problem, run, side) for problem, run in runs)


@BY_TARGET
@BY_SIDE
@BY_ALGORITHM
def test_every_width_and_height(algorithm: FourierAlgorithm, target: Target, side: Side) -> None:
    """One, two and three tiles of either size, cut off at every place."""
    widths = [problem_of((5, width), (3, 3), padding=1) for width in range(1, 31)]
    heights = [problem_of((height, 6), (3, 3)) for height in range(3, 31)]
    assert_right([*widths, *heights], algorithm, target, side)


@BY_TARGET
@BY_SIDE
@BY_ALGORITHM
def test_every_number_of_channels(algorithm: FourierAlgorithm, target: Target, side: Side) -> None:
    inputs = [problem_of((7, 9), (5, 5), (inputs, 2)) for inputs in (*range(1, 10), 15, 16, 17, 33)]
    outputs = [
        problem_of((7, 9), (5, 5), (2, outputs)) for outputs in (*range(1, 10), 15, 16, 17, 33, 66)
    ]
    assert_right([*inputs, *outputs], algorithm, target, side)


@BY_SIDE
@BY_ALGORITHM
@pytest.mark.parametrize(
    "kernel", [(1, 2), (2, 1), (2, 2), (3, 5), (5, 5), (8, 7), (8, 8), (11, 11), (1, 16), (16, 16)]
)
def test_every_kernel_up_to_the_tile(
    algorithm: FourierAlgorithm, kernel: tuple[int, int], side: Side
) -> None:
    if max(kernel) > algorithm.n:
        return
    problems = [
        problem_of((19, 22), kernel, (5, 19), batch=2),
        problem_of((9, 7), kernel, (17, 3), groups=2, padding=tuple(t - 1 for t in kernel)),
        problem_of((3, 4), kernel, padding=(15, 14, 13, 17)),
    ]
    assert_right(problems, algorithm, host_target(), side)


@BY_TARGET
@BY_ALGORITHM
def test_few_tiles_are_split_over_threads(algorithm: FourierAlgorithm, target: Target) -> None:
    """Few tiles make one block for one thread; for more, tiles or panels are shared out."""
    problem = problem_of((14, 14), (5, 5), (40, 200), padding=2)
    plan = algorithm.build(problem, target, 3)
    assert [stage.tasks for stage in algorithm.build(problem, target, 1).stages] == [1]
    assert plan.stages[-1].tasks >= 3
    assert_right([problem], algorithm, target, "after", threads=3)


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    rng = np.random.default_rng(4)
    x = rng.standard_normal((2, 20, 27, 27), dtype=np.float32)
    weight = rng.standard_normal((70, 20, 5, 5), dtype=np.float32)
    one, *others = (
        nnpack.conv2d(x, weight, algorithm="fourier", threads=threads) for threads in (1, 2, 3, 8)
    )
    for y in others:
        np.testing.assert_array_equal(y, one)


def test_epilogues_are_fused() -> None:
    rng = np.random.default_rng(2)
    x = rng.standard_normal((1, 3, 20, 21), dtype=np.float32)
    weight = rng.standard_normal((17, 3, 5, 5), dtype=np.float32)
    words = {name: rng.standard_normal(17, dtype=np.float32) for name in ("bias", "scale")}
    for activation in (None, nnpack.Relu(), nnpack.Clip(-1, 2), nnpack.Elu()):
        more: dict[str, Any] = {**words, "activation": activation}
        y = nnpack.conv2d(x, weight, algorithm="fourier_16", **more)
        assert oracle.max_error(y, oracle.conv2d(x, weight, **more)) < 6e-6


@pytest.mark.parametrize(("alias", "name"), [("ft8x8", "fourier_8"), ("ft16x16", "fourier_16")])
def test_names_of_nnpack(alias: str, name: str) -> None:
    layer = nnpack.Conv2d(np.ones((4, 3, 5, 5), np.float32), algorithm=alias)
    assert layer.explain((1, 3, 20, 20)).chosen == name


@pytest.mark.parametrize(
    ("kernel", "arguments", "reason"),
    [
        (3, {"stride": 2}, "stride 1"),
        (3, {"dilation": 2}, "dilation 1"),
        (1, {}, "2 to 8 taps, got 1x1"),
        (9, {}, "2 to 8 taps, got 9x9"),
    ],
)
def test_refusals_say_what_is_needed(kernel: int, arguments: dict[str, Any], reason: str) -> None:
    x, weight = np.ones((1, 3, 20, 20), np.float32), np.ones((4, 3, kernel, kernel), np.float32)
    with pytest.raises(AlgorithmError, match=reason):
        nnpack.conv2d(x, weight, algorithm="fourier_8", **arguments)


def test_exact_accuracy_may_use_it_at_any_depth() -> None:
    for channels in (1, 256, 4096):
        problem = problem_of((28, 28), (5, 5), (channels, 64), padding=2)
        for algorithm in algorithms():
            estimate = algorithm.estimate(problem, AVX512)
            assert estimate.error < 2e-6
            assert estimate.relative_l2 < 1e-6


def test_three_multiplications_for_many_tiles_and_four_for_heavy_weights() -> None:
    def plan(image: int, channels: int) -> Plan:
        problem = problem_of((image, image), (7, 7), (channels, channels), padding=3)
        return FourierAlgorithm(16).build(problem, AVX512, 1)

    assert "3 multiplications" in plan(112, 64).detail
    assert "4 multiplications" in plan(14, 512).detail


@BY_ALGORITHM
@pytest.mark.parametrize("channels", [16, 64, 512, 1024])
@pytest.mark.parametrize("batch", [1, 4, 64])
def test_workspace_stays_within_a_quarter_of_the_last_level_cache(
    algorithm: FourierAlgorithm, channels: int, batch: int
) -> None:
    caches = CacheSizes(l1=32 * KIB, l2=KIB * KIB, l3=32 * KIB * KIB)
    problem = problem_of((56, 56), (5, 5), (channels, 64), batch=batch)
    plan = algorithm.build(problem, replace(AVX512, caches=caches), 1)
    assert plan.workspace_bytes <= 1.05 * caches.l3 / 4


@BY_ALGORITHM
def test_compiles_for_neon(algorithm: FourierAlgorithm) -> None:
    plan = algorithm.build(problem_of((27, 27), (5, 5), (64, 192)), NEON, 1)
    for kernel in kernels_of((*plan.stages, *plan.weight_format.stages)):
        assert emit_object(kernel, NEON)
