"""Every algorithm for weight gradients, on every target: within its limit and its memory."""

from __future__ import annotations

from functools import partial
from types import ModuleType

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnpack.algorithms import (
    weight_gradient_fourier,
    weight_gradient_gemm,
    weight_gradient_winograd,
)
from nnpack.algorithms.weight_gradient_base import MergingGradient, WeightGradientAlgorithm
from nnpack.algorithms.weight_gradient_table import WEIGHT_GRADIENT_ALGORITHMS
from nnpack.arrays import element_strides, with_unit_column_stride
from nnpack.codegen.target import KIB, CacheSizes, Target
from nnpack.epilogue import Elu
from nnpack.execution import Program
from nnpack.frozen import replace
from nnpack.gradient_problem import WeightGradientProblem
from nnpack.output_gradient_problem import OutputGradientProblem
from nnpack.problem import Problem, dense_strides
from nnpack.runtime.memory import address
from tests import gradient_oracle
from tests.guard import Side, guarded_array, guarded_copy
from tests.native import TARGETS, name_of
from tests.plans import all_survive
from tests.problems import ConvCase, conv_problems, problem_count

Float32Array = npt.NDArray[np.float32]

BY_TARGET = pytest.mark.parametrize("target", TARGETS, ids=name_of)
BY_ALGORITHM = pytest.mark.parametrize(
    "algorithm", WEIGHT_GRADIENT_ALGORITHMS, ids=lambda a: str(a.name)
)


def _assert_computes(
    algorithm: WeightGradientAlgorithm,
    target: Target,
    case: ConvCase,
    threads: int,
    guarded: bool,
    accumulate: bool,
    behind: bool = False,
) -> None:
    """The gradient, within the limit of any data, in exactly the memory that the plan names.

    Of what is ``behind`` an activation, where the algorithm masks what it loads.
    """
    x = np.ascontiguousarray(case.x) if guarded else with_unit_column_stride(case.x)
    forward = case.problem(x_strides=element_strides(x))
    problem = WeightGradientProblem(
        forward=forward,
        grad_strides=dense_strides(forward.y_shape)[:2],
        accumulate=accumulate,
    )
    if behind and isinstance(algorithm, MergingGradient):
        if not algorithm.merges_activation(problem, target):
            return
        problem = replace(problem, masking=_masking(problem))
    if forward.is_empty or algorithm.refusal(problem, target) is not None:
        return
    rng = np.random.default_rng(case.weight.size)
    grad = rng.standard_normal(forward.y_shape, dtype=np.float32)
    given = {"x": x, "grad": grad}
    if problem.masking is not None:
        given["output"] = y = rng.standard_normal(grad.shape, dtype=np.float32)
        grad = np.where(y > 0, grad, grad * (y + 1))
    words = {n: getattr(case, n) for n in ("stride", "padding", "dilation", "groups")}
    expected = gradient_oracle.weight_gradient(x, grad, case.weight.shape, **words)
    expected += 3.0 * accumulate
    plan = algorithm.build(problem, target, threads)
    program = Program(plan.stages, target, threads, 0)
    # Any term may stand beside any other in a tile: the greatest of x beside all gradients.
    size = float(np.abs(x).max()) * float(np.abs(grad).sum(axis=(0, 2, 3)).max())
    limit = 20 * algorithm.estimate(problem, target).error * size + 1e-6

    def check(side: Side) -> None:
        arrays = given
        if guarded:
            arrays = {name: guarded_copy(array, side) for name, array in arrays.items()}
        workspace = guarded_array(plan.workspace_bytes // 4, side)
        y = guarded_array(case.weight.shape, side)
        workspace[...], y[...] = np.nan, 3.0 if accumulate else np.nan
        places = arrays | {"workspace": workspace, "y": y}
        program.run({name: address(array) for name, array in places.items()})
        assert np.all(np.abs(y - expected) <= limit), np.abs(y - expected).max() / limit

    if guarded:
        assert all_survive([partial(check, "before"), partial(check, "after")])
    else:
        check("after")


@BY_TARGET
@BY_ALGORITHM
@settings(max_examples=problem_count(0.15))
@given(
    case=conv_problems(epilogues=False),
    guarded=st.booleans(),
    threads=st.sampled_from([1, 1, 3]),
    accumulate=st.booleans(),
    behind=st.booleans(),
)
def test_results_are_within_the_limit_and_memory_within_bounds(
    target: Target,
    algorithm: WeightGradientAlgorithm,
    case: ConvCase,
    guarded: bool,
    threads: int,
    accumulate: bool,
    behind: bool,
) -> None:
    _assert_computes(algorithm, target, case, threads, guarded, accumulate, behind)


def _masking(problem: WeightGradientProblem) -> OutputGradientProblem:
    return OutputGradientProblem(
        shape=problem.forward.y_shape,
        activation=Elu(),
        grad_strides=problem.grad_strides,
        output_strides=problem.grad_strides,
        masked=True,
        sums=False,
    )


def _case(
    x: tuple[int, int, int, int],
    weight: tuple[int, int, int, int],
    stride: tuple[int, int] = (1, 1),
    padding: int | tuple[int, int] = 1,
) -> ConvCase:
    rng = np.random.default_rng(1)
    return ConvCase(
        x=rng.standard_normal(x, dtype=np.float32),
        weight=np.zeros(weight, np.float32),
        bias=None,
        scale=None,
        stride=stride,
        padding=padding,
        dilation=(1, 1),
        groups=x[1] // weight[1],
        activation=None,
    )


TRANSFORMS: tuple[ModuleType, ...] = (weight_gradient_fourier, weight_gradient_winograd)
IN_TILES = [a for a in WEIGHT_GRADIENT_ALGORITHMS if a.name[:4] in ("four", "wino")]

BLOCKED = [
    _case((3, 33, 20, 21), (35, 33, 3, 3)),
    _case((9, 70, 7, 7), (20, 70, 3, 3)),
    _case((1, 5, 70, 90), (40, 5, 3, 3)),
    _case((2, 20, 24, 24), (18, 20, 5, 5), padding=2),
    _case((3, 20, 26, 23), (18, 20, 7, 7), padding=3),
    _case((2, 18, 40, 19), (17, 18, 11, 1), padding=(5, 0)),
    _case((2, 9, 20, 33), (5, 9, 15, 16), padding=7),
    _case((2, 40, 31, 30), (70, 40, 1, 1), stride=(2, 2), padding=0),
    _case((2, 20, 29, 31), (18, 20, 5, 5), stride=(2, 2), padding=2),
    _case((3, 32, 20, 21), (20, 32, 3, 4), stride=(2, 1)),
    _case((1, 3, 50, 47), (9, 3, 11, 11), stride=(4, 4), padding=2),
    _case((2, 5, 33, 41), (9, 5, 6, 7), stride=(5, 6), padding=(0, 2)),
    _case((2, 12, 40, 37), (12, 1, 3, 3)),
    _case((2, 12, 40, 37), (24, 1, 5, 5), stride=(2, 2), padding=2),
]


@BY_TARGET
@BY_ALGORITHM
@pytest.mark.parametrize("number", range(len(BLOCKED)), ids=lambda n: repr(BLOCKED[n]))
def test_blocks_and_chunks_join(
    target: Target, algorithm: WeightGradientAlgorithm, number: int
) -> None:
    """Problems of several blocks, chunks and panels, none of them whole.

    On one thread, or behind an activation on three: half of the cases of every algorithm and
    target each, and every case with half of them.
    """
    places = WEIGHT_GRADIENT_ALGORITHMS.index(algorithm), TARGETS.index(target), number
    behind = sum(places) % 2 == 1
    threads = 3 if behind else 1
    _assert_computes(algorithm, target, BLOCKED[number], threads, True, False, behind)


@BY_TARGET
@pytest.mark.parametrize("algorithm", IN_TILES, ids=lambda a: str(a.name))
@pytest.mark.parametrize("stride", [1, 2], ids=repr)
@pytest.mark.parametrize("kernel", [(3, 3), (5, 2)], ids=repr)
def test_pairs_of_channels_are_cut_where_their_sums_are_too_many(
    monkeypatch: pytest.MonkeyPatch,
    target: Target,
    algorithm: WeightGradientAlgorithm,
    kernel: tuple[int, int],
    stride: int,
) -> None:
    """Parts of one block of channels by one vector, the last ones not whole, in two groups."""
    for module in TRANSFORMS:
        monkeypatch.setattr(module, "SUMS_BYTES", 1)
    case = _case((2, 70, 9, 11), (38, 35, *kernel), (stride, 1))
    _assert_computes(algorithm, target, case, threads=2, guarded=True, accumulate=True)


@BY_TARGET
@pytest.mark.parametrize("groups", [1, 3])
def test_outputs_are_cut_where_their_sums_are_too_many(
    monkeypatch: pytest.MonkeyPatch, target: Target, groups: int
) -> None:
    """One panel of output channels at a time, the last one not whole; in groups, one by one."""
    monkeypatch.setattr(weight_gradient_gemm, "CACHE_SHARE", 1 << 40)
    case = _case((4, 7 * groups, 19, 21), (70 * groups, 7, 3, 3), stride=(2, 1))
    algorithm = weight_gradient_gemm.WeightGradientGemm()
    _assert_computes(algorithm, target, case, threads=2, guarded=True, accumulate=True)


@BY_TARGET
@pytest.mark.parametrize("threads", [1, 4])
def test_workspace_of_a_product_is_within_a_quarter_of_the_last_level_cache_a_thread(
    target: Target, threads: int
) -> None:
    target = replace(target, caches=CacheSizes(l1=32 * KIB, l2=1024 * KIB, l3=32 * KIB * KIB))
    shapes = [
        ((16, 2048, 14, 14), (2048, 2048, 3, 3)),
        ((16, 512, 28, 28), (512, 512, 7, 7)),
        ((1, 1024, 64, 64), (1024, 1, 31, 31)),
        ((2, 25088, 1, 1), (4096, 25088, 1, 1)),
        ((256, 64, 224, 224), (64, 64, 3, 3)),
    ]
    for x, weight in shapes:
        forward = Problem.conv2d(x, weight, padding="same", groups=x[1] // weight[1])
        strides = dense_strides(forward.y_shape)[:2]
        problem = WeightGradientProblem(forward=forward, grad_strides=strides)
        plan = weight_gradient_gemm.WeightGradientGemm().build(problem, target, threads)
        assert plan.workspace_bytes <= threads * target.caches.l3 // 4, (x, weight)


@BY_TARGET
@pytest.mark.parametrize("algorithm", IN_TILES, ids=lambda a: str(a.name))
def test_workspace_stays_bounded_with_any_number_of_channels(
    target: Target, algorithm: WeightGradientAlgorithm
) -> None:
    """The sums of a part and the transforms of a block, however many channels and images."""
    for channels, outputs in ((2048, 2048), (16, 8192), (8192, 16)):
        x = (64, channels, 28, 28)
        problem = Problem.conv2d(x, (outputs, channels, 3, 3), padding=1)
        plan = algorithm.build(
            WeightGradientProblem(forward=problem, grad_strides=dense_strides(problem.y_shape)[:2]),
            target,
            1,
        )
        assert plan.workspace_bytes <= 400 << 20


def _relative_error(algorithm: WeightGradientAlgorithm, images: int) -> float:
    """Of images that are all the same, whose sums grow with their number."""
    depthwise = algorithm.name == "depthwise"
    shape = (images, 4, 18, 18)
    weight = (4, 1, 3, 3) if depthwise else (4, 4, 3, 3)
    x, grad = np.full(shape, 0.7, np.float32), np.full((images, 4, 16, 16), 0.3, np.float32)
    forward = Problem.conv2d(shape, weight, groups=4 if depthwise else 1)
    strides = dense_strides(forward.y_shape)[:2]
    problem = WeightGradientProblem(forward=forward, grad_strides=strides)
    plan = algorithm.build(problem, TARGETS[0], 1)
    y, workspace = np.zeros(weight, np.float32), np.zeros(plan.workspace_bytes // 4, np.float32)
    arrays = {"x": x, "grad": grad, "y": y, "workspace": workspace}
    program = Program(plan.stages, TARGETS[0], 1, 0)
    program.run({name: address(array) for name, array in arrays.items()})
    expected = float(x[0, 0, 0, 0]) * float(grad[0, 0, 0, 0]) * images * 256
    return float(np.abs(y / expected - 1).max())


@BY_ALGORITHM
def test_errors_do_not_grow_with_the_number_of_chunks(
    monkeypatch: pytest.MonkeyPatch, algorithm: WeightGradientAlgorithm
) -> None:
    """Equal chunks, whose pairwise sum rounds next to nothing."""
    for module in TRANSFORMS:
        for name in ("BLOCK_BYTES", "LEAST_TILES", "MOST_TILES"):
            monkeypatch.setattr(module, name, 16)
    assert _relative_error(algorithm, 1024) <= 1.5 * _relative_error(algorithm, 64) + 2e-7
