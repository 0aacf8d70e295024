"""Gradients behind an activation, some images at a time: the same, in memory of one block."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import nnpack
from nnpack import gradient_planner, planner
from nnpack.codegen.target import Target, host_target
from nnpack.epilogue import ChannelSlopes, Epilogue
from nnpack.execution import Program
from nnpack.geometry import Shape, dense_strides
from nnpack.gradient_planner import plan_weight_gradient
from nnpack.gradient_problem import WeightGradientProblem
from nnpack.input_gradient import conv2d_transpose_of, conv_transpose2d_transpose_of
from nnpack.output_gradient_problem import OutputGradientProblem
from nnpack.plan import Plan, packed_in_workspace
from nnpack.planner import make_masked_plan
from nnpack.problem import Problem, TransposedProblem
from nnpack.runtime.memory import address
from tests import gradient_oracle
from tests.guard import Side, guarded_array, guarded_copy
from tests.native import TARGETS, name_of
from tests.plans import all_survive

Array = npt.NDArray[np.float32]
X, WEIGHT, TRANSPOSED = (5, 3, 13, 11), (20, 3, 3, 3), (3, 20, 3, 3)
STRIDES: dict[str, Any] = {"stride": 2, "padding": 1}


def _masking(shape: Shape) -> OutputGradientProblem:
    strides = dense_strides(shape)[:2]
    return OutputGradientProblem(
        shape=shape,
        activation=ChannelSlopes(),
        grad_strides=strides,
        output_strides=strides,
        masked=True,
        sums=False,
    )


def _plan(kind: str, target: Target, threads: int) -> tuple[Plan, Shape]:
    """The plan of a gradient that is added to what is there, and the shape of grad_output."""
    adds, more = Epilogue(residual="before"), Epilogue()
    forward = Problem.conv2d(X, WEIGHT, stride=2, padding=1)
    turned = TransposedProblem.conv_transpose2d(X, TRANSPOSED, stride=2, padding=1)
    masking = _masking(turned.y_shape if kind.startswith("transposed") else forward.y_shape)
    strides = dense_strides(masking.shape)[:3]
    match kind:
        case "input":
            problem: Any = conv2d_transpose_of(forward, strides, adds)
        case "transposed input":
            problem = conv_transpose2d_transpose_of(turned, strides, adds)
        case "weight":
            problem = WeightGradientProblem(
                forward=forward, grad_strides=strides[:2], accumulate=True, masking=masking
            )
        case _:
            problem = WeightGradientProblem(
                forward=conv_transpose2d_transpose_of(turned, strides, more),
                grad_strides=dense_strides(X)[:2],
                accumulate=True,
                masking=masking,
                masks_x=True,
            )
    if kind.endswith("input"):
        return make_masked_plan(problem, masking, "auto", target, threads), masking.shape
    return plan_weight_gradient("auto", problem, target, threads), masking.shape


def _expected(kind: str, masked: Array, x: Array, weight: Array) -> npt.NDArray[np.float64]:
    match kind:
        case "input":
            return gradient_oracle.input_gradient(masked, weight, X, **STRIDES)
        case "weight":
            return gradient_oracle.weight_gradient(x, masked, WEIGHT, **STRIDES)
        case "transposed input":
            y = nnpack.conv2d(masked, weight, stride=2, padding=1)
            return y.astype(np.float64)
        case _:
            return gradient_oracle.weight_gradient(masked, x, TRANSPOSED, **STRIDES)


@pytest.mark.parametrize("target", TARGETS, ids=name_of)
@pytest.mark.parametrize("kind", ["input", "weight", "transposed input", "transposed weight"])
def test_blocks_of_images_give_the_same_within_bounds(
    monkeypatch: pytest.MonkeyPatch, target: Target, kind: str
) -> None:
    rng = np.random.default_rng(5)
    x = rng.standard_normal(X, np.float32)
    weight = rng.standard_normal(TRANSPOSED if "transposed" in kind else WEIGHT, np.float32)
    shape = _plan(kind, target, 1)[1]
    grad, y = rng.standard_normal((2, *shape), np.float32)
    expected = _expected(kind, np.where(y > 0, grad, grad / 2), x, weight) + 3.0
    two_images = 2 * grad[0].nbytes
    monkeypatch.setattr(planner, "input_block_bytes", lambda _: two_images)
    monkeypatch.setattr(gradient_planner, "weight_block_bytes", lambda _: two_images)
    plan, _ = _plan(kind, target, 3)
    stages, workspace_bytes = packed_in_workspace(plan)
    assert sum("OutputGradient" in type(s.kernel).__name__ for s in stages) == 3
    program = Program(stages, target, 3, 0)

    def check(side: Side) -> None:
        given = {"grad_output": grad, "output": y, "slopes": np.full(shape[1], 0.5, np.float32)}
        given |= {"weight": weight} if "input" in kind else {}
        if "weight" in kind:
            given["grad" if "transposed" in kind else "x"] = x
        arrays = {name: guarded_copy(array, side) for name, array in given.items()}
        arrays["workspace"] = guarded_array(workspace_bytes // 4, side)
        arrays["workspace"][...] = np.nan
        arrays["y"] = arrays["residual"] = guarded_array(expected.shape, side)
        arrays["y"][...] = 3.0
        program.run({name: address(array) for name, array in arrays.items()})
        np.testing.assert_allclose(arrays["y"], expected, rtol=1e-4, atol=1e-3)

    assert all_survive([partial(check, "before"), partial(check, "after")])


@pytest.mark.parametrize("channels", [64, 1])
def test_the_workspace_does_not_grow_with_the_batch(channels: int) -> None:
    sizes = []
    for batch in (64, 256):
        forward = Problem.conv2d((batch, channels, 56, 56), (64, channels, 3, 3), padding=1)
        masking, strides = _masking(forward.y_shape), dense_strides(forward.y_shape)[:3]
        problem = conv2d_transpose_of(forward, strides, Epilogue())
        plan = make_masked_plan(problem, masking, "auto", host_target(), 2)
        sizes.append(plan.workspace_bytes)
    assert sizes[1] <= 1.1 * sizes[0]


def test_a_result_may_not_overlap_the_output_that_is_still_read() -> None:
    grad, y = np.ones((2, 4, 5, 5), np.float32), np.ones((2, 4, 5, 5), np.float32)
    weight = np.ones((4, 4, 1, 1), np.float32)
    behind: Any = {"activation": nnpack.Relu(), "output": y}
    with pytest.raises(nnpack.ProblemError, match="overlaps output"):
        nnpack.conv2d_input_gradient(grad, weight, y.shape, out=y, **behind)
