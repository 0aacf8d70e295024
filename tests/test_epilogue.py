"""An epilogue parts into what is compiled and the numbers passed at run time."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest

import nnpack
from nnpack import DtypeError, ProblemError
from nnpack.problem import Epilogue, EpilogueKind


@pytest.mark.parametrize(
    ("activation", "kind", "parameters"),
    [
        (nnpack.Relu(), "relu", ()),
        (nnpack.Relu(slope=-0.0), "relu", ()),
        (nnpack.Relu(slope=0.25), "leaky_relu", (0.25,)),
        (nnpack.Elu(), "elu", (1.0,)),
        (nnpack.Elu(alpha=-2), "elu", (-2.0,)),
        (nnpack.Clip(0, 6), "clip", (0.0, 6.0)),
        (nnpack.Clip(-math.inf, 6), "clip", (-math.inf, 6.0)),
        (nnpack.Clip(1, 1), "clip", (1.0, 1.0)),
        (nnpack.Sigmoid(), "sigmoid", ()),
        (nnpack.Tanh(), "tanh", ()),
        (nnpack.Silu(), "silu", ()),
        (nnpack.HardSigmoid(), "hard_sigmoid", (1 / 6, 0.5)),
        (nnpack.HardSigmoid(alpha=0.2), "hard_sigmoid", (0.2, 0.5)),
        (nnpack.HardSwish(), "hard_swish", ()),
        (nnpack.Gelu(), "gelu", ()),
        (nnpack.Gelu(approximate="tanh"), "gelu_tanh", ()),
        (nnpack.Mish(), "mish", ()),
    ],
)
def test_kinds_and_parameters(activation: Any, kind: str, parameters: tuple[float, ...]) -> None:
    assert activation.kind == kind
    assert activation.parameters == parameters
    epilogue = Epilogue(scale=True, activation=activation)
    assert epilogue.kind.activation == kind
    assert epilogue.parameters == parameters


def test_numbers_do_not_change_the_kind() -> None:
    first = Epilogue(bias=True, activation=nnpack.Elu(alpha=0.5))
    second = Epilogue(bias=True, activation=nnpack.Elu(alpha=0.7))
    assert first != second
    assert first.kind == second.kind
    assert hash(first.kind) == hash(second.kind)


def test_no_epilogue_has_nothing_to_compile_or_pass() -> None:
    assert Epilogue().kind == EpilogueKind(scale=False, bias=False, activation=None)
    assert Epilogue().parameters == ()


@pytest.mark.parametrize("slope", [np.float32(0.5), np.float64(0.5), np.array(0.5), 0.5])
def test_numbers_of_numpy_become_plain_floats(slope: Any) -> None:
    assert nnpack.Relu(slope) == nnpack.Relu(0.5)
    assert type(nnpack.Relu(slope).slope) is float


def test_bounds_that_round_to_the_largest_float32_are_within_it() -> None:
    assert nnpack.Clip(-3.4028235e38, 3.4028235e38).high == 3.4028235e38


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 3.5e38, 10**400])
def test_slope_and_alpha_must_be_finite_in_float32(value: float) -> None:
    with pytest.raises(ProblemError, match="slope="):
        nnpack.Relu(value)
    with pytest.raises(ProblemError, match="alpha="):
        nnpack.Elu(value)


@pytest.mark.parametrize("value", ["1", None, True, 1j, [1.0], np.zeros(3)])
def test_numbers_must_be_real_numbers(value: Any) -> None:
    with pytest.raises(DtypeError, match="slope=.* real number"):
        nnpack.Relu(value)
    with pytest.raises(DtypeError, match="high=.* real number"):
        nnpack.Clip(0, value)


def test_a_clip_keeps_its_bounds_in_order() -> None:
    with pytest.raises(ProblemError, match=r"low=2\.0 must not be above high=1\.0"):
        nnpack.Clip(2, 1)
    with pytest.raises(ProblemError, match="low=nan"):
        nnpack.Clip(math.nan, 1)
    with pytest.raises(ProblemError, match="beyond float32"):
        nnpack.Clip(0, 1e39)


@pytest.mark.parametrize("activation", ["relu", nnpack.Relu, 0.0, max])
def test_an_activation_is_an_instance(activation: Any) -> None:
    with pytest.raises(DtypeError, match="activation=.* an instance"):
        Epilogue(activation=activation)


def test_activations_are_frozen() -> None:
    with pytest.raises(AttributeError):
        nnpack.Relu().slope = 1.0  # type: ignore[misc]


def test_slopes_of_channels_are_kept_by_value() -> None:
    slope = np.array([0.5, -0.25], np.float32)
    first = nnpack.Prelu(slope)
    slope[0] = 3
    assert first.slope == (0.5, -0.25)
    assert first == nnpack.Prelu(np.array([0.5, -0.25], np.float32)) != nnpack.Prelu(slope)
    assert len({first, pickle.loads(pickle.dumps(first)), copy.deepcopy(first)}) == 1
    assert not first.array.flags.writeable


def test_slopes_are_passed_not_compiled_nor_planned() -> None:
    first, second = (nnpack.Prelu(np.full(3, n, np.float32)) for n in (1, 2))
    assert Epilogue(activation=first) == Epilogue(activation=second)
    assert Epilogue(activation=first).kind.activation == "prelu"
    assert Epilogue(activation=first).parameters == ()


@pytest.mark.parametrize("slope", [0.25, [0.25], np.zeros(3), None])
def test_slopes_are_a_vector_of_float32(slope: Any) -> None:
    with pytest.raises(DtypeError, match="Prelu: slope"):
        nnpack.Prelu(slope)
    with pytest.raises(ProblemError, match="Prelu: slope"):
        nnpack.Prelu(np.zeros((1, 3), np.float32))


def test_there_is_a_slope_for_each_output_channel() -> None:
    x, weight = np.zeros((1, 2, 5, 5), np.float32), np.zeros((3, 2, 3, 3), np.float32)
    with pytest.raises(ProblemError, match=r"slope.shape=\(2,\) must be \(3,\)"):
        nnpack.conv2d(x, weight, activation=nnpack.Prelu(np.zeros(2, np.float32)))


def test_gelu_knows_two_forms() -> None:
    with pytest.raises(ProblemError, match="approximate='erf'"):
        nnpack.Gelu("erf")  # type: ignore[arg-type]
