"""What a problem is, and that everything malformed is refused by name, value, bound and way out."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nnpack
from nnpack.errors import DtypeError, ProblemError
from nnpack.problem import Epilogue, Problem, TransposedProblem, dense_strides
from tests.problems import ConvCase, TransposedCase, conv_problems, conv_transpose_problems


def _problem(x: Any = (2, 6, 9, 8), weight: Any = (4, 6, 3, 3), **arguments: Any) -> Problem:
    return Problem.conv2d(x, weight, **arguments)


def _transposed(
    x: Any = (2, 6, 9, 8), weight: Any = (6, 4, 3, 3), **arguments: Any
) -> TransposedProblem:
    return TransposedProblem.conv_transpose2d(x, weight, **arguments)


def test_a_problem_states_everything_a_planner_needs() -> None:
    problem = Problem.conv2d(
        (2, 6, 9, 8),
        (4, 3, 3, 5),
        bias_shape=(4,),
        stride=(2, 1),
        padding=(0, 1, 2, 3),
        dilation=2,
        groups=2,
        activation=nnpack.Relu(),
        accuracy="exact",
    )
    assert problem == Problem(
        batch=2,
        in_channels=6,
        height=9,
        width=8,
        out_channels=4,
        kernel=(3, 5),
        stride=(2, 1),
        padding=(0, 1, 2, 3),
        dilation=(2, 2),
        groups=2,
        epilogue=Epilogue(bias=True, activation=nnpack.Relu()),
        accuracy="exact",
        x_strides=(6 * 9 * 8, 9 * 8, 8),
        y_strides=(4 * 3 * 5, 3 * 5, 5, 1),
    )
    assert problem.y_shape == (2, 4, 3, 5)
    assert (problem.out_height, problem.out_width) == (3, 5)
    assert (problem.group_in_channels, problem.group_out_channels) == (3, 2)
    assert problem.extent == (5, 9)
    assert problem.weight_shape == (4, 3, 3, 5)
    assert problem.flops == 2 * 2 * 4 * 3 * 5 * 3 * 3 * 5
    assert not problem.is_empty
    assert hash(problem) == hash(dataclasses.replace(problem))


@pytest.mark.parametrize(
    ("padding", "expected"),
    [
        (1, (1, 1, 1, 1)),
        ((1, 2), (1, 1, 2, 2)),
        ([1, 2, 3, 4], (1, 2, 3, 4)),
        (np.array([1, 2]), (1, 1, 2, 2)),
        (np.int32(2), (2, 2, 2, 2)),
        ("valid", (0, 0, 0, 0)),
        ("same", (1, 1, 1, 1)),
    ],
)
def test_padding_has_many_forms(padding: Any, expected: tuple[int, ...]) -> None:
    assert _problem(padding=padding).padding == expected


@given(st.integers(1, 40), st.integers(1, 7), st.integers(1, 4), st.integers(1, 3))
def test_same_padding_gives_the_quotient_rounded_up(
    size: int, kernel: int, stride: int, dilation: int
) -> None:
    problem = _problem(
        (1, 1, size, 50), (1, 1, kernel, 2), padding="same", stride=stride, dilation=dilation
    )
    top, bottom, left, right = problem.padding
    assert problem.out_height == math.ceil(size / stride)
    assert problem.out_width == math.ceil(50 / stride)
    assert 0 <= bottom - top <= 1
    assert 0 <= right - left <= 1


@given(conv_problems())
def test_a_stated_problem_has_the_shape_of_the_oracles_result(case: ConvCase) -> None:
    assert case.problem().y_shape == case.reference().shape


@given(conv_transpose_problems())
def test_a_stated_transposed_problem_has_the_shape_of_the_oracles_result(
    case: TransposedCase,
) -> None:
    assert case.problem().y_shape == case.reference().shape


def test_integers_of_numpy_are_integers() -> None:
    problem = _problem(stride=np.int64(2), groups=np.uint8(1), dilation=(np.int8(1), 2))
    assert problem == _problem(stride=2, dilation=(1, 2))
    assert type(problem.stride[0]) is int


def test_an_empty_batch_is_a_problem_with_nothing_to_do() -> None:
    problem = _problem((0, 6, 9, 8))
    assert problem.is_empty
    assert problem.flops == 0
    assert problem.y_shape == (0, 4, 7, 6)


def test_a_kernel_may_be_larger_than_the_image_when_padding_allows() -> None:
    assert _problem((1, 1, 2, 1), (1, 1, 7, 5), padding=(5, 0, 2, 2)).y_shape == (1, 1, 1, 1)


def test_dilation_of_a_single_tap_is_one() -> None:
    assert _problem(weight=(4, 6, 1, 1), dilation=3) == _problem(weight=(4, 6, 1, 1))
    assert _problem(weight=(4, 6, 1, 3), dilation=3).dilation == (1, 3)


def test_problems_of_the_package_may_crop_and_may_come_out_empty() -> None:
    problem = dataclasses.replace(_problem(), padding=(-1, -2, 0, 0))
    assert problem.out_height == 4
    assert dataclasses.replace(problem, padding=(-4, -4, 0, 0)).is_empty


def test_strides_are_those_of_dense_arrays_unless_given() -> None:
    problem = _problem(x_strides=(1000, 100, 10), y_strides=(4, 3, 2, 7))
    assert (problem.x_strides, problem.y_strides) == ((1000, 100, 10), (4, 3, 2, 7))
    assert dense_strides((2, 3, 4, 5)) == (60, 20, 5, 1)


def test_problems_are_frozen() -> None:
    with pytest.raises(AttributeError):
        _problem().batch = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": (6, 9, 8)}, r"x\.shape=\(6, 9, 8\) must have 4 dimensions \(N, C, H, W\)"),
        ({"x": 5}, r"x\.shape=5 must have 4 dimensions"),
        ({"x": (2, 6, 9.0, 8)}, r"x\.shape=.* must be 4 integers"),
        ({"x": (-1, 6, 9, 8)}, "N must be at least"),
        ({"x": (2, 0, 9, 8)}, "C must be at least 1"),
        ({"x": (2, 6, 0, 8)}, "H must be at least 1"),
        ({"weight": (6, 3, 3)}, r"weight\.shape=\(6, 3, 3\) must have 4 dimensions"),
        ({"weight": (0, 6, 3, 3)}, "O must be at least 1"),
        ({"weight": (4, 6, 0, 3)}, "kh must be at least 1"),
        ({"weight": (4, 5, 3, 3)}, r"weight\.shape\[1\]=5 must be 6"),
        ({"weight": (4, 6, 3, 3), "groups": 2}, r"weight\.shape\[1\]=6 must be 3"),
        ({"weight": (4, 6, 10, 3)}, r"weight spans 10x3 .* 9x8 of x .* pad more"),
        ({"dilation": 5}, "weight spans 11x11 .* dilate less"),
        ({"groups": 0}, "groups=0 must be at least 1"),
        ({"groups": 4}, "groups=4 must divide the 6 channels of x and the 4 output"),
        ({"groups": True}, "groups=True must be an integer"),
        ({"groups": 1.0}, r"groups=1\.0 must be an integer"),
        ({"groups": (1, 1)}, r"groups=\(1, 1\) must be an integer"),
        ({"stride": 0}, "stride=0 must be at least 1"),
        ({"stride": (1, -1)}, r"stride=\(1, -1\) must be at least 1"),
        ({"stride": (1, 1, 1)}, r"stride=\(1, 1, 1\) has 3 numbers"),
        ({"stride": (2,)}, r"stride=\(2,\) has 1 numbers"),
        ({"stride": 1.5}, r"stride=1\.5 must be an integer or a pair"),
        ({"stride": "2"}, "stride='2' must be an integer or a pair"),
        ({"stride": (True, 1)}, r"stride=\(True, 1\) must be an integer"),
        ({"stride": None}, "stride=None must be an integer"),
        ({"stride": 2**31}, "stride=2147483648 must be at most 2147483647"),
        ({"dilation": 0}, "dilation=0 must be at least 1"),
        ({"padding": -1}, "padding=-1 must be at least 0; to crop, slice"),
        ({"padding": (0, 0, -1, 0)}, "must be at least 0"),
        ({"padding": (1, 2, 3)}, r"padding=\(1, 2, 3\) has 3 numbers"),
        ({"padding": "full"}, "padding='full' must be 'same', 'valid' or numbers"),
        ({"padding": 0.5}, r'padding=0\.5 must be an integer, .* "same"'),
        ({"padding": {1: 2}}, "padding={1: 2} must be an integer"),
        ({"bias_shape": (5,)}, r"bias\.shape=\(5,\) must be \(4,\)"),
        ({"bias_shape": (1, 4)}, r"bias\.shape=\(1, 4\) must be \(4,\)"),
        ({"scale_shape": ()}, r"scale\.shape=\(\) must be \(4,\)"),
        ({"accuracy": "best"}, 'accuracy=\'best\' must be "fast" or "exact"'),
        ({"accuracy": None}, "accuracy=None"),
        ({"x": (2**40, 6, 9, 8)}, "x would have the shape"),
        ({"padding": (2**30, 0, 2**30, 0)}, "y would have the shape .* make the problem smaller"),
    ],
)
def test_malformed_arguments_are_refused_in_plain_words(
    arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ProblemError, match=message):
        _problem(**arguments)


def test_a_wrong_kind_of_activation_is_a_type_error() -> None:
    with pytest.raises(DtypeError, match="activation='relu' must be Relu"):
        _problem(activation="relu")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("batch", -1, "batch=-1"),
        ("height", 0, "height="),
        ("kernel", (0, 1), "kernel="),
        ("stride", (1, 0), "stride="),
        ("dilation", (0, 1), "dilation="),
        ("groups", 0, "groups="),
        ("groups", 5, "groups=5 must divide"),
        ("accuracy", "best", "accuracy='best'"),
        ("padding", (-(2**31), 0, 0, 0), "padding"),
    ],
)
def test_no_problem_exists_with_a_field_out_of_range(field: str, value: Any, message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        dataclasses.replace(_problem(), **{field: value})


def test_a_transposed_problem_states_everything() -> None:
    problem = _transposed(
        stride=(2, 3), padding=(1, 0, 2, 1), output_padding=(1, 2), bias_shape=(4,)
    )
    assert problem.y_shape == (2, 4, 8 * 2 + 3 + 1 - 1, 7 * 3 + 3 + 2 - 3)
    assert problem.weight_shape == (6, 4, 3, 3)
    assert problem.flops == 2 * (2 * 6 * 9 * 8) * (4 * 3 * 3)
    assert problem.y_strides == dense_strides(problem.y_shape)
    assert problem.epilogue == Epilogue(bias=True)


def test_groups_of_a_transposed_problem_multiply_its_outputs() -> None:
    problem = _transposed(weight=(6, 4, 3, 3), groups=3)
    assert (problem.out_channels, problem.group_in_channels, problem.group_out_channels) == (
        12,
        2,
        4,
    )


@given(st.integers(1, 20), st.integers(1, 7), st.integers(1, 4), st.integers(1, 3))
def test_same_padding_of_a_transposed_problem_multiplies_the_image(
    size: int, kernel: int, stride: int, dilation: int
) -> None:
    problem = _transposed(
        (1, 1, size, 3), (1, 1, kernel, 2), padding="same", stride=stride, dilation=dilation
    )
    assert problem.out_height == size * stride
    assert problem.out_width == 3 * stride


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weight": (5, 4, 3, 3)}, r"weight\.shape\[0\]=5 must be 6"),
        ({"weight": (6, 0, 3, 3)}, "O/groups must be at least 1"),
        ({"groups": 4}, "groups=4 must divide the 6 channels"),
        ({"output_padding": 1}, "output_padding=1 must be less than stride="),
        ({"output_padding": (0, 3), "stride": (1, 3)}, "output_padding="),
        ({"output_padding": -1}, "output_padding=-1 must be at least 0"),
        ({"padding": "same", "output_padding": 1, "stride": 2}, "output_padding=.* must be 0"),
        ({"padding": 6}, r"padding=\(6, 6, 6, 6\) leaves 0x0 of the output; pad less"),
        ({"padding": -1}, "padding=-1 must be at least 0"),
        ({"bias_shape": (6,)}, r"bias\.shape=\(6,\) must be \(4,\)"),
        ({"stride": 2**31 - 1}, "y would have the shape"),
    ],
)
def test_malformed_transposed_arguments_are_refused_in_plain_words(
    arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ProblemError, match=message):
        _transposed(**arguments)


def test_output_padding_may_reach_the_dilation() -> None:
    assert _transposed(output_padding=1, dilation=2).out_height == 9 - 1 + 5 + 1
