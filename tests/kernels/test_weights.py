"""Weights in panels: every layout, every remainder, zeros beyond the last channel."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from nnpack.algorithms.base import weight_arguments
from nnpack.codegen.target import Target
from nnpack.execution import Program
from nnpack.kernels.weights import PackWeights, consecutive_weights
from nnpack.plan import Slot, Stage
from nnpack.problem import Problem, WeightLayout, WeightStorage
from nnpack.runtime.memory import address
from tests.guard import Side, guarded_array, guarded_copy
from tests.native import TARGETS, name_of
from tests.plans import all_survive

pytestmark = pytest.mark.parametrize("target", TARGETS, ids=name_of)

Float32Array = npt.NDArray[np.float32]


def _expected(weight: Float32Array, groups: int, width: int) -> Float32Array:
    """``[group][panel][tap * channels + c][width]``, in NumPy."""
    out, channels, *kernel = weight.shape
    taps = int(np.prod(kernel))
    panels = -(-(out // groups) // width)
    padded = np.zeros((groups, panels * width, channels, taps), np.float32)
    padded[:, : out // groups] = weight.reshape(groups, out // groups, channels, taps)
    strips = padded.reshape(groups, panels, width, channels, taps)
    return strips.transpose(0, 1, 4, 3, 2).ravel()


def _packed(
    target: Target,
    problem: Problem,
    width: int,
    raw: Float32Array,
    side: Side,
    storage: WeightStorage = "float32",
) -> npt.NDArray[Any]:
    panels = -(-problem.group_out_channels // width)
    words = weight_arguments(problem) | {"panels": panels, "packed": Slot("packed")}
    consecutive = consecutive_weights(problem.weights, problem.kernel)
    kernel = PackWeights(width, storage, consecutive)
    stage = Stage(kernel, problem.groups * panels, words)
    depth = problem.group_in_channels * problem.kernel[0] * problem.kernel[1]
    packed = guarded_array(problem.groups * panels * depth * width, side, np.dtype(storage))
    packed[...] = np.nan
    Program((stage,), target, 1, 0).run({"weight": address(raw), "packed": address(packed)})
    return packed


def _check(target: Target, width: int, groups: int, channels: int, kernel: tuple[int, int]) -> None:
    for out in {1, 2, width - 1, width, width + 1, 2 * width + 3} - {0}:
        shape = (groups * out, channels, *kernel)
        problem = Problem.conv2d((1, groups * channels, 9, 9), shape, groups=groups)
        weight = np.arange(1, 1 + np.prod(shape), dtype=np.float32).reshape(shape)
        for side in ("before", "after"):
            raw = guarded_copy(weight, side)
            packed = _packed(target, problem, width, raw, side)
            np.testing.assert_array_equal(packed, _expected(weight, groups, width))


@pytest.mark.parametrize("width", [1, 2, 5, 14, 16, 32, 48])
def test_panels_hold_every_weight_once_and_zeros(target: Target, width: int) -> None:
    cases = [(1, 1, (1, 1)), (1, 3, (3, 3)), (3, 2, (1, 4)), (2, 5, (2, 1)), (1, 37, (1, 1))]
    _check(target, width, *cases[0])
    assert all_survive(partial(_check, target, width, *case) for case in cases)


def test_a_layout_turns_and_picks_taps(target: Target) -> None:
    """As transposed convolutions ask for: channels exchanged, every second tap, backwards."""
    weight = np.arange(4 * 3 * 5 * 5, dtype=np.float32).reshape(4, 3, 5, 5)  # (I, O, kh, kw)
    view = weight.transpose(1, 0, 2, 3)[:, :, 3::-2, 4::-2]
    layout = WeightLayout(offset=3 * 5 + 4, group=0, out=25, channel=75, row=-10, column=-2)
    dense = Problem.conv2d((1, 4, 9, 9), (3, 4, 2, 3))
    problem = replace(dense, weight_layout=layout)
    packed = _packed(target, problem, 4, weight, "after")
    np.testing.assert_array_equal(packed, _expected(np.ascontiguousarray(view), 1, 4))


def test_consecutive_output_channels_are_loaded_as_they_stand(target: Target) -> None:
    """As transposed 1x1 convolutions ask for."""
    weight = np.arange(11 * 37, dtype=np.float32).reshape(11, 37, 1, 1)  # (I, O, 1, 1)
    layout = WeightLayout(offset=0, group=0, out=1, channel=37, row=1, column=1)
    assert consecutive_weights(layout, (1, 1)) == "out"
    dense = Problem.conv2d((1, 11, 9, 9), (37, 11, 1, 1))
    problem = replace(dense, weight_layout=layout)
    expected = _expected(np.ascontiguousarray(weight.transpose(1, 0, 2, 3)), 1, 14)
    np.testing.assert_array_equal(_packed(target, problem, 14, weight, "after"), expected)


def _check_halves(target: Target, width: int) -> None:
    problem = Problem.conv2d((1, 6, 9, 9), (2 * (width + 1), 3, 2, 1), groups=2)
    weight = np.arange(np.prod(problem.weight_shape), dtype=np.float32)
    weight = weight.reshape(problem.weight_shape)
    for side in ("before", "after"):
        packed = _packed(target, problem, width, guarded_copy(weight, side), side, "float16")
        np.testing.assert_array_equal(packed, _expected(weight, 2, width))


@pytest.mark.parametrize("width", [1, 5, 14, 16, 48])
def test_panels_of_halves_hold_the_same_numbers(target: Target, width: int) -> None:
    if target.half_conversions:
        assert all_survive([partial(_check_halves, target, width)])
