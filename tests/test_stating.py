"""Problems are kept by plain arguments, and equal arguments of other types are not confused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nnpack
from nnpack.functional.stating import stated
from nnpack.problem import Problem, Relu

SHAPES: dict[str, Any] = {"x_shape": (1, 2, 5, 5), "weight_shape": (3, 2, 3, 3)}


def test_plain_arguments_give_the_same_problem_again() -> None:
    words: dict[str, Any] = {**SHAPES, "stride": 2, "padding": "same"}
    assert stated(Problem.conv2d, **words) is stated(Problem.conv2d, **words)
    assert stated(Problem.conv2d, **words) == Problem.conv2d(**words)


@pytest.mark.parametrize("stride", [[2, 2], np.array([2, 2]), np.int64(2)])
def test_other_arguments_are_stated_anew(stride: object) -> None:
    expected = Problem.conv2d(**SHAPES, stride=2)
    for _ in range(2):
        assert stated(Problem.conv2d, **SHAPES, stride=stride) == expected
    assert stated(Problem.conv2d, **SHAPES, activation=Relu(0.5)).epilogue.parameters


@pytest.mark.parametrize("stride", [True, 1.0, (1, True), (1.0, 1)])
def test_what_equals_an_integer_is_refused_all_the_same(stride: object) -> None:
    stated(Problem.conv2d, **SHAPES, stride=1)
    stated(Problem.conv2d, **SHAPES, stride=(1, 1))
    with pytest.raises(nnpack.NnpackError, match="stride"):
        stated(Problem.conv2d, **SHAPES, stride=stride)
