"""Every algorithm on every problem it takes: within its limit, and within its memory."""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nnpack
from nnpack.algorithms.base import Algorithm, direct_error, direct_relative_l2
from nnpack.algorithms.direct import Direct
from nnpack.algorithms.table import ALGORITHMS
from nnpack.arrays import element_strides, with_unit_column_stride
from nnpack.codegen.target import Target, host_target
from nnpack.frozen import replace
from nnpack.planner import make_plan
from nnpack.problem import Accuracy, Activation, Problem, ResidualPosition
from tests import oracle
from tests.algorithms.limits import absolute_limit
from tests.guard import Side
from tests.native import TARGETS, name_of
from tests.plans import Operands, all_survive, runner
from tests.problems import ConvCase, conv_problems, problem_count

# Algorithms of one family share their kernels; only the tile differs.
FAMILIES: dict[str, list[Algorithm]] = {}
for _algorithm in ALGORITHMS:
    FAMILIES.setdefault(type(_algorithm).__name__, []).append(_algorithm)
FAMILIES["Direct"].append(Direct("channels"))
MEMBERS = [*(family[len(family) // 3] for family in FAMILIES.values()), Direct("channels")]

BY_FAMILY = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
BY_TARGET = pytest.mark.parametrize("target", TARGETS, ids=name_of)


def _operands(case: ConvCase, *, dense: bool) -> Operands:
    x = np.ascontiguousarray(case.x) if dense else with_unit_column_stride(case.x)
    weight = np.ascontiguousarray(case.weight)
    residual = None if case.residual is None else np.ascontiguousarray(case.residual)
    return Operands(x, weight, case.bias, case.scale, residual, case.slopes)


def _assert_within_limit(
    y: npt.NDArray[np.float32],
    reference: oracle.Float64Array,
    limit: float,
) -> None:
    assert y.shape == reference.shape
    # A NaN is no small error.
    assert np.all(np.abs(y - reference) <= limit), np.abs(y - reference).max() / limit


@BY_TARGET
@BY_FAMILY
@settings(max_examples=problem_count(0.1))
@given(
    data=st.data(),
    case=conv_problems(),
    guarded=st.booleans(),
    threads=st.sampled_from([1, 1, 3]),
)
def test_results_are_within_the_limit_and_memory_within_bounds(
    target: Target,
    family: list[Algorithm],
    data: st.DataObject,
    case: ConvCase,
    guarded: bool,
    threads: int,
) -> None:
    """Half of the problems with views of x, half with every array beside forbidden pages."""
    algorithm = data.draw(st.sampled_from(family))
    operands = _operands(case, dense=guarded)
    problem = case.problem(x_strides=element_strides(operands.x))
    if problem.is_empty or algorithm.refusal(problem, target) is not None:
        return
    run = runner(algorithm.build(problem, target, threads), problem, target)
    limit = absolute_limit(algorithm, problem, target, operands)
    reference = case.reference()
    if not guarded:
        _assert_within_limit(run(operands, "after"), reference, limit)
        return

    def check(side: Side) -> None:
        _assert_within_limit(run(operands.guarded(side), side), reference, limit)

    assert all_survive([partial(check, "before"), partial(check, "after")])


ACTIVATIONS: tuple[Activation | None, ...] = (
    None,
    nnpack.Relu(),
    nnpack.Relu(slope=0.2),
    nnpack.Elu(alpha=0.7),
    nnpack.Clip(-0.5, 1.5),
)
EPILOGUES: list[tuple[Activation | None, bool, bool, ResidualPosition | None]] = [
    *((activation, True, True, None) for activation in ACTIVATIONS),
    *((None, scale, bias, None) for scale, bias in ((True, False), (False, True), (False, False))),
    (nnpack.Elu(), False, False, None),
    (nnpack.Relu(), False, True, "before"),
    (nnpack.Prelu(np.linspace(-1, 1, 19, dtype=np.float32)), False, True, "before"),
    (nnpack.Prelu(np.linspace(-1, 1, 19, dtype=np.float32)), False, True, None),
    (nnpack.Silu(), False, True, None),
    (nnpack.Gelu(), False, True, "after"),
    (nnpack.Relu(), True, True, "after"),
    (None, False, False, "before"),
]


def _sample_problems(
    activation: Activation | None, scale: bool, bias: bool, residual: ResidualPosition | None
) -> list[tuple[Problem, Operands]]:
    """For every algorithm something it takes: 3x3 and 1x1, groups, odd channels, small phases."""
    rng = np.random.default_rng(5)
    result = []
    cases = (3, 1, 1, 1), (3, 19, 1, 1), (1, 2, 0, 1), (3, 1, 5, 5)
    for kernel, groups, padding, dilation in cases:
        channels = 19 if groups == 1 else 2 * groups
        outputs = 19 if groups != 2 else 38
        if isinstance(activation, nnpack.Prelu):
            activation = nnpack.Prelu(np.resize(activation.array, outputs))
        problem = Problem.conv2d(
            (2, channels if kernel == 1 or groups == 1 else groups, 9, 11),
            (outputs, channels // groups if kernel == 1 or groups == 1 else 1, kernel, kernel),
            bias_shape=(outputs,) if bias else None,
            scale_shape=(outputs,) if scale else None,
            padding=padding,
            dilation=dilation,
            groups=groups,
            activation=activation,
        )
        epilogue = replace(problem.epilogue, residual=residual)
        problem = replace(problem, epilogue=epilogue)
        added = rng.standard_normal(problem.y_shape, dtype=np.float32) if residual else None
        vectors = rng.standard_normal((2, outputs), dtype=np.float32)
        x = rng.standard_normal(problem.x_shape, dtype=np.float32)
        weight = rng.standard_normal(problem.weight_shape, dtype=np.float32)
        weight /= np.float32(np.sqrt(weight[0].size))
        terms = vectors[0] if bias else None, vectors[1] if scale else None
        slopes = activation.array if isinstance(activation, nnpack.Prelu) else None
        operands = Operands(x, weight, *terms, added, slopes)
        result.append((problem, operands))
    return result


@BY_TARGET
@pytest.mark.parametrize("algorithm", MEMBERS, ids=lambda a: str(a.name))
@pytest.mark.parametrize("number", range(len(EPILOGUES)), ids=lambda n: str(EPILOGUES[n]))
def test_every_epilogue_is_fused_into_every_algorithm(
    target: Target, algorithm: Algorithm, number: int
) -> None:
    """Of what the algorithm takes, the problems take turns from epilogue to epilogue."""
    activation, *_, residual = EPILOGUES[number]
    samples = _sample_problems(*EPILOGUES[number])
    taken = [(p, o) for p, o in samples if algorithm.refusal(p, target) is None]
    problem, operands = taken[(number + TARGETS.index(target)) % len(taken)]
    y = runner(algorithm.build(problem, target, 1), problem, target)(operands, "after")
    reference = oracle.conv2d(
        operands.x,
        operands.weight,
        operands.bias,
        scale=operands.scale,
        activation=activation if operands.slopes is None else nnpack.Prelu(operands.slopes),
        padding=problem.padding,
        dilation=problem.dilation,
        groups=problem.groups,
        residual=operands.residual,
        residual_position=residual or "before",
    )
    _assert_within_limit(y, reference, absolute_limit(algorithm, problem, target, operands))


LARGER = [
    Problem.conv2d((1, 256, 14, 14), (48, 256, 3, 3), padding=1),
    Problem.conv2d((1, 32, 30, 30), (32, 32, 3, 3), padding=1),
    Problem.conv2d((1, 64, 20, 20), (32, 64, 5, 5)),
    Problem.conv2d((1, 1024, 7, 7), (32, 1024, 3, 3), padding=1),
    Problem.conv2d((1, 512, 12, 12), (64, 512, 1, 1)),
    Problem.conv2d((1, 16, 24, 24), (16, 16, 7, 7), padding=3),
    Problem.conv2d((1, 48, 20, 20), (48, 1, 3, 3), groups=48),
]


def _random_operands(problem: Problem) -> Operands:
    rng = np.random.default_rng(11)
    x = rng.standard_normal(problem.x_shape, dtype=np.float32)
    return Operands(x, rng.standard_normal(problem.weight_shape, dtype=np.float32))


def _reference(problem: Problem, operands: Operands) -> oracle.Float64Array:
    return oracle.conv2d(
        operands.x, operands.weight, padding=problem.padding, groups=problem.groups
    )


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda a: str(a.name))
def test_random_data_have_about_the_expected_error(algorithm: Algorithm) -> None:
    target = host_target()
    for problem in (LARGER[0], LARGER[1], LARGER[4], LARGER[6]):
        if algorithm.refusal(problem, target) is not None:
            continue
        operands = _random_operands(problem)
        y = runner(algorithm.build(problem, target, 1), problem, target)(operands, "after")
        estimate = algorithm.estimate(problem, target)
        reference = _reference(problem, operands)
        assert oracle.max_error(y, reference) <= 1.6 * estimate.error, (problem, estimate)
        if estimate.relative_l2:
            assert oracle.relative_l2(y, reference) <= 1.3 * estimate.relative_l2


@pytest.mark.parametrize(
    ("accuracy", "relative_l2", "greatest"), [("fast", 2e-5, 5e-5), ("exact", 1e-6, 2e-6)]
)
@pytest.mark.parametrize("problem", LARGER, ids=lambda p: f"{p.kernel}x{p.in_channels}")
def test_auto_keeps_the_promised_accuracy(
    accuracy: Accuracy, relative_l2: float, greatest: float, problem: Problem
) -> None:
    """More only where a direct sum in float32 has more itself."""
    target = host_target()
    stated = Problem.conv2d(
        problem.x_shape,
        problem.weight_shape,
        padding=problem.padding,
        groups=problem.groups,
        accuracy=accuracy,
    )
    operands = _random_operands(stated)
    y = runner(make_plan(stated, "auto", target, 1), stated, target)(operands, "after")
    reference = _reference(stated, operands)
    depth = int(np.prod(problem.weight_shape[1:]))
    assert oracle.relative_l2(y, reference) <= max(relative_l2, 1.1 * direct_relative_l2(depth))
    assert oracle.max_error(y, reference) <= max(greatest, 1.1 * direct_error(depth))
