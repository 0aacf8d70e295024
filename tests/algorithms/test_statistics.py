"""Mean and variance of every channel of a convolution's result: against float64, in every way."""

from __future__ import annotations

import pickle
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import nnpack
from nnpack.algorithms.channel_sums import STATISTICS
from nnpack.algorithms.direct import Direct
from nnpack.algorithms.following import STATISTICS_MERGED, CompleteAlgorithm
from nnpack.algorithms.table import ALGORITHMS
from nnpack.arrays import element_strides
from nnpack.codegen.target import Target
from nnpack.execution import Program
from nnpack.plan import Plan
from nnpack.problem import Problem
from nnpack.runtime.memory import address
from tests import oracle
from tests.guard import Side, guarded_array
from tests.native import TARGETS, name_of
from tests.plans import Operands, all_survive
from tests.problems import (
    ConvCase,
    TransposedCase,
    conv_problems,
    conv_transpose_problems,
    problem_count,
)

Float32Array = npt.NDArray[np.float32]
Triple = tuple[Float32Array, Float32Array, Float32Array]

NAMES = (
    *("winograd_2", "winograd_4", "winograd_6", "winograd_7", "fourier_8", "fourier_16"),
    *("direct", "implicit_gemm", "pointwise", "depthwise", "cook_toom_2", "cook_toom_4"),
    *("direct@channels", "strassen"),
)
# Batch, then rows and columns of outputs: one a channel, a few images or parts of one a chunk.
IMAGES = ((1, 1, 1), (70, 1, 1), (3, 2, 3), (5, 7, 9), (2, 40, 33), (1, 70, 67))

BY_TARGET = pytest.mark.parametrize("target", TARGETS, ids=name_of)


def _check_moments(result: Triple, axes: tuple[int, ...] = (0, 2, 3)) -> None:
    """The moments are those of the numbers that are there, all but exactly."""
    y, mean, variance = result
    numbers = y.astype(np.float64)
    deviation = numbers.std(axes)
    assert mean.dtype == variance.dtype == np.float32
    expected, greatest = numbers.mean(axes), abs(numbers).max(axes)
    assert mean.shape == variance.shape == expected.shape
    assert np.all(abs(mean - expected) <= 1e-6 * deviation + 4e-7 * greatest)
    # Means of chunks are rounded as the numbers are, and squares of small ones underflow.
    tiny = np.finfo(np.float32).tiny
    rounding = 2e-8 * greatest * deviation + (2e-7 * greatest) ** 2 + tiny
    error = abs(variance - deviation**2)
    assert np.all(error <= 1e-5 * deviation**2 + rounding)


def _run(
    plan: Plan, problem: Problem, target: Target, operands: Operands, side: Side = "after"
) -> Triple:
    """The plan run beside forbidden pages, on memory that is NaN."""
    packed = guarded_array(plan.weight_format.nbytes, side, np.uint8)
    workspace = guarded_array(plan.workspace_bytes // 4, side)
    y = guarded_array(problem.y_shape, side)
    mean, variance = (guarded_array(problem.out_channels, side) for _ in range(2))
    packed[...] = 0xFF
    for array in (workspace, y, mean, variance):
        array[...] = np.nan
    weights = {"weight": address(operands.weight), "packed": address(packed)}
    Program(plan.weight_format.stages, target, 1, 0).run(weights)
    places = {"packed": packed, "workspace": workspace, "y": y, "mean": mean, "variance": variance}
    program = Program(plan.stages, target, plan.threads, 0)
    program.run(operands.addresses | {name: address(a) for name, a in places.items()})
    return y, mean, variance


def _sample(name: str, image: tuple[int, int, int]) -> tuple[Problem, Operands]:
    rng = np.random.default_rng(6)
    groups = 18 if name == "depthwise" else 1
    channels, outputs = (18, 18) if groups > 1 else (5, 19)
    kernel = {"pointwise": 1, "strassen": 1, "fourier_8": 4, "fourier_16": 5}.get(name, 3)
    shape = (outputs, channels // groups, kernel, kernel)
    problem = Problem.conv2d(
        (image[0], channels, *image[1:]),
        shape,
        bias_shape=(outputs,),
        padding="same",
        groups=groups,
        activation=nnpack.Relu(0.25),
        statistics=True,
    )
    x = rng.standard_normal(problem.x_shape, dtype=np.float32)
    weight = rng.standard_normal(shape, dtype=np.float32)
    return problem, Operands(x, weight, rng.standard_normal(outputs, dtype=np.float32))


def _check_sample(name: str, image: tuple[int, int, int], target: Target, side: Side) -> None:
    problem, operands = _sample(name, image)
    named = (*ALGORITHMS, Direct("channels"))
    algorithm = CompleteAlgorithm(next(a for a in named if a.name == name))
    if algorithm.refusal(problem, target) is not None:
        return
    plan = algorithm.build(problem, target, 1)
    result = _run(plan, problem, target, operands.guarded(side), side)
    _check_moments(result)
    reference = oracle.conv2d(
        operands.x,
        operands.weight,
        operands.bias,
        padding=problem.padding,
        groups=problem.groups,
        activation=nnpack.Relu(0.25),
    )
    assert oracle.max_error(result[0], reference) < 1e-4


@BY_TARGET
@pytest.mark.parametrize("name", NAMES)
def test_every_size_in_every_algorithm(target: Target, name: str) -> None:
    sides: tuple[Side, Side] = ("before", "after")
    assert all_survive(
        partial(_check_sample, name, image, target, side) for image in IMAGES for side in sides
    )


@BY_TARGET
@settings(max_examples=problem_count(0.3))
@given(data=st.data(), case=conv_problems())
def test_random_problems_on_any_number_of_threads(
    target: Target, data: st.DataObject, case: ConvCase
) -> None:
    assume(not case.problem().is_empty)
    operands = Operands(
        np.ascontiguousarray(case.x),
        np.ascontiguousarray(case.weight),
        case.bias,
        case.scale,
        None if case.residual is None else np.ascontiguousarray(case.residual),
        case.slopes,
    )
    problem = case.problem(statistics=True, x_strides=element_strides(operands.x))
    algorithm = CompleteAlgorithm(data.draw(st.sampled_from((*ALGORITHMS, Direct("channels")))))
    if algorithm.refusal(problem, target) is not None:
        return
    first, *others = (
        _run(algorithm.build(problem, target, threads), problem, target, operands)
        for threads in (1, 2, 5)
    )
    _check_moments(first)
    for other in others:
        for one, same in zip(first, other, strict=True):
            np.testing.assert_array_equal(one, same)


def _words(groups: int = 1, **others: Any) -> dict[str, Any]:
    return {"groups": groups, "padding": "same", **others}


@pytest.mark.parametrize(
    ("name", "kernel", "words"),
    [
        ("winograd_2", (1, 2), _words()),
        ("winograd_3", (3, 1), _words(2)),
        ("winograd_4", (3, 3), _words(activation=nnpack.Silu())),
        ("winograd_5", (5, 3), _words(stride=2)),
        ("winograd_7", (3, 3), _words(2)),
        ("fourier_8", (4, 5), _words()),
        ("fourier_16", (7, 1), _words(2)),
        ("implicit_gemm", (3, 3), _words(2, stride=2)),
        ("implicit_gemm", (5, 5), _words()),
        ("pointwise", (1, 1), _words(2)),
        ("direct", (3, 3), _words(2, stride=(2, 1))),
        ("depthwise", (3, 3), _words(32, activation=nnpack.Silu())),
        ("depthwise", (5, 5), _words(32, stride=3)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_merged_is_the_same_for_any_tasks(
    name: str, kernel: tuple[int, int], words: dict[str, Any]
) -> None:
    rng = np.random.default_rng(7)
    channels = 32 if words["groups"] == 32 else 38
    x = rng.standard_normal((3, 32, 41, 38), dtype=np.float32)
    weight = rng.standard_normal((channels, 32 // words["groups"], *kernel), dtype=np.float32)
    bias = np.linspace(0, 1e4, channels, dtype=np.float32)
    layer = nnpack.Conv2d(weight, bias, statistics=True, algorithm=name, **words)
    asked = layer.explain(x.shape).candidates
    assert STATISTICS_MERGED in next(c.detail for c in asked if c.algorithm == name)
    first = nnpack.conv2d(x, weight, bias, statistics=True, algorithm=name, threads=1, **words)
    _check_moments(first)
    for threads in (2, 3, 7):
        other = nnpack.conv2d(
            x, weight, bias, statistics=True, algorithm=name, threads=threads, **words
        )
        for one, same in zip(first, other, strict=True):
            np.testing.assert_array_equal(one, same)


def test_those_of_a_depth_in_segments() -> None:
    rng = np.random.default_rng(8)
    x = rng.standard_normal((2, 1500, 13, 11), dtype=np.float32)
    weight = rng.standard_normal((37, 1500, 3, 3), dtype=np.float32)
    words: dict[str, Any] = {"statistics": True, "algorithm": "implicit_gemm"}
    assert STATISTICS_MERGED in str(nnpack.Conv2d(weight, **words).explain(x.shape))
    first, second = (nnpack.conv2d(x, weight, threads=threads, **words) for threads in (1, 2))
    _check_moments(first)
    for one, same in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, same)


@settings(max_examples=problem_count(0.2))
@given(case=conv_transpose_problems())
def test_those_of_transposed_convolutions(case: TransposedCase) -> None:
    plain = nnpack.conv_transpose2d(case.x, case.weight, case.bias, **case.arguments)
    words: dict[str, Any] = {**case.arguments, "statistics": True}
    result = nnpack.conv_transpose2d(case.x, case.weight, case.bias, **words)
    if plain.size:
        # What is merged may be another algorithm's.
        assert oracle.max_error(result[0], plain) < 1e-4
        _check_moments(result)


@pytest.mark.parametrize("shape", [(64, 4, 30, 31), (3000, 4, 1, 1), (2, 4, 200, 211)])
def test_a_great_mean_takes_no_digits(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(2)
    x = rng.standard_normal(shape, dtype=np.float32)
    weight = np.eye(4, dtype=np.float32)[:, :, None, None]
    bias = np.array([1e4, -1e4, 3e5, 0], np.float32)
    result = nnpack.conv2d(x, weight, bias, statistics=True, threads=2)
    _check_moments(result)
    np.testing.assert_allclose(result[2][[0, 1, 3]], x.var((0, 2, 3))[[0, 1, 3]], rtol=1e-4)


def test_they_come_after_residual_and_activation_and_leave_y_alone() -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((3, 16, 20, 21), dtype=np.float32)
    weight = rng.standard_normal((24, 16, 3, 3), dtype=np.float32)
    residual = rng.standard_normal((3, 24, 20, 21), dtype=np.float32)
    for position in ("before", "after"):
        words: dict[str, Any] = {
            "padding": 1,
            "activation": nnpack.Silu(),
            "residual_position": position,
        }
        plain = nnpack.conv2d(x, weight, residual=residual, **words)
        out = residual.copy()
        result = nnpack.conv2d(x, weight, residual=out, statistics=True, out=out, **words)
        assert result[0] is out
        np.testing.assert_array_equal(out, plain)
        _check_moments(result)
        layer = nnpack.Conv2d(weight, statistics=True, **words)
        again = layer(x, residual=residual)
        np.testing.assert_array_equal(again[0], plain)
        _check_moments(again)


def test_layers_return_them_explain_it_and_survive_pickling() -> None:
    rng = np.random.default_rng(4)
    x = rng.standard_normal((3, 16, 30, 31), dtype=np.float32)
    convolution = rng.standard_normal((24, 16, 3, 3), dtype=np.float32)
    transposed = rng.standard_normal((16, 24, 3, 3), dtype=np.float32)
    layers: list[tuple[Any, str]] = [
        (nnpack.Conv2d(convolution, statistics=True), STATISTICS_MERGED),
        (nnpack.ConvTranspose2d(transposed, stride=2, statistics=True), STATISTICS),
    ]
    for layer, said in layers:
        result = layer(x)
        _check_moments(result)
        for same in (layer(x, out=np.empty_like(result[0])), pickle.loads(pickle.dumps(layer))(x)):
            for one, two in zip(result, same, strict=True):
                np.testing.assert_array_equal(one, two)
        explanation = layer.explain(x.shape)
        assert said in str(explanation)
        assert layer.profile(x).seconds > 0
        tuned = layer.tune(x.shape, seconds=0.01)
        assert tuned.measured
        _check_moments(layer(x))


def test_linear_has_those_of_its_columns() -> None:
    rng = np.random.default_rng(5)
    weight, bias = rng.standard_normal((37, 20), dtype=np.float32), np.full(37, 50, np.float32)
    for shape in ((20,), (3, 20), (2, 700, 20)):
        x = rng.standard_normal(shape, dtype=np.float32)
        result = nnpack.linear(x, weight, bias, activation=nnpack.Relu(), statistics=True)
        layer = nnpack.Linear(weight, bias, activation=nnpack.Relu(), statistics=True)
        for y, mean, variance in (result, layer(x)):
            assert y.shape == (*shape[:-1], 37)
            _check_moments((y.reshape(-1, 37), mean, variance), (0,))
        assert STATISTICS in str(layer.explain(shape))
    with pytest.raises(nnpack.ProblemError, match="statistics=True with pool="):
        nnpack.Linear(weight[:36], map_shape=(4, 3, 3), pool=nnpack.MaxPool(2), statistics=True)


def test_those_of_no_numbers_are_nan() -> None:
    x, weight = np.empty((0, 3, 8, 8), np.float32), np.ones((5, 3, 3, 3), np.float32)
    for y, mean, variance in (
        nnpack.conv2d(x, weight, statistics=True),
        nnpack.Conv2d(weight, statistics=True)(x),
        nnpack.linear(np.empty((0, 4), np.float32), np.ones((5, 4), np.float32), statistics=True),
    ):
        assert y.size == 0
        assert mean.shape == variance.shape == (5,)
        assert np.isnan(mean).all()
        assert np.isnan(variance).all()


def test_a_nan_stays_in_its_channel() -> None:
    x = np.ones((2, 3, 9, 9), np.float32)
    x[1, 1, 4, 4] = np.nan
    weight = np.eye(3, dtype=np.float32)[:, :, None, None]
    _, mean, variance = nnpack.conv2d(
        x, np.ones((3, 1, 1, 1), np.float32), groups=3, statistics=True
    )
    assert np.isnan(mean).tolist() == np.isnan(variance).tolist() == [False, True, False]
    assert nnpack.conv2d(x, weight, statistics=True)[1].shape == (3,)


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        ({"statistics": 1}, nnpack.DtypeError, "statistics=1 must be True or False"),
        ({"statistics": None}, nnpack.DtypeError, "statistics=None must be True or False"),
        (
            {"statistics": True, "pool": nnpack.MaxPool(2)},
            nnpack.ProblemError,
            "statistics=True with pool=",
        ),
    ],
)
def test_what_is_malformed_is_refused(
    words: dict[str, Any], error: type[Exception], message: str
) -> None:
    x, weight = np.ones((1, 1, 4, 4), np.float32), np.ones((1, 1, 1, 1), np.float32)
    for function in (nnpack.conv2d, nnpack.conv_transpose2d):
        with pytest.raises(error, match=message):
            function(x, weight, **words)
    with pytest.raises(error, match=message):
        nnpack.Conv2d(weight, **words)
