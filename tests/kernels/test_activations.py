"""Every activation over all floats: within 4 ulp, special values right, on every target."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import nnpack
from nnpack.codegen.assembler import Assembler, Value
from nnpack.codegen.target import Target
from nnpack.kernels.activations import ACTIVATIONS
from tests import oracle
from tests.native import TARGETS, name_of, run

Float32Array = npt.NDArray[np.float32]

EXACT = [
    nnpack.Relu(),
    nnpack.Relu(0.25),
    nnpack.Elu(),
    nnpack.Clip(0, 6),
    nnpack.Sigmoid(),
    nnpack.Tanh(),
    nnpack.Silu(),
    nnpack.HardSigmoid(),
    nnpack.HardSigmoid(alpha=0.2),
    nnpack.HardSigmoid(alpha=-0.3, beta=0.1),
    nnpack.HardSwish(),
    nnpack.Gelu(),
    nnpack.Gelu(approximate="tanh"),
    nnpack.Mish(),
]
BY_TARGET = pytest.mark.parametrize("target", TARGETS, ids=name_of)

MOST_ULPS = 4.0


@functools.cache
def all_exponents() -> Float32Array:
    """Bit patterns evenly over all finite floats, and dense ones where functions bend."""
    even = np.arange(0, 0x7F800000, 4079, dtype=np.uint32).view(np.float32)
    centres = (
        0.1,
        0.5,
        1.0,
        2.0,
        3.0,
        4.0,
        5.5,
        6.0,
        7.0,
        9.5,
        13.0,
        16.0,
        20.0,
        87.0,
        88.0,
        104.0,
    )
    near = [np.linspace(0.98 * c, 1.02 * c, 6001).astype(np.float32) for c in centres]
    dense = np.linspace(0, 20, 200_001).astype(np.float32)
    positive = np.concatenate([even, *near, dense])
    return np.concatenate([positive, -positive])


def computed(target: Target, activation: Any, x: Float32Array) -> Float32Array:
    """``activation`` as it is emitted for a full register."""
    row = ACTIVATIONS[activation.kind]
    numbers = [float(np.float32(n)) for n in activation.parameters]
    padded = np.resize(x, -(-len(x) // target.lanes) * target.lanes)
    y = np.empty_like(padded)

    def body(asm: Assembler, source: Value, to: Value, count: Value, *rest: Value) -> None:
        splatted = [asm.splat(number) for number in rest]
        with asm.loop(count, step=asm.lanes) as i:
            asm.store(row.emit(asm, asm.load(source, i), *splatted), to, i)

    run(target, body, padded, y, len(padded), *numbers)
    return y[: len(x)]


def ulps(x: Float32Array, y: Float32Array, exact: oracle.Float64Array) -> oracle.Float64Array:
    """Errors in units in the last place of ``max(|f(x)|, 2^-24 |x|, 2^-126)``."""
    size = np.maximum(np.maximum(np.abs(exact), 2.0**-24 * np.abs(x.astype(np.float64))), 2.0**-126)
    _, exponent = np.frexp(np.minimum(size, np.finfo(np.float32).max))
    return np.asarray(np.abs(y - exact) / np.ldexp(1.0, exponent - 24))


@BY_TARGET
@pytest.mark.parametrize("activation", EXACT, ids=str)
def test_all_floats_are_within_four_units_in_the_last_place(
    target: Target, activation: Any
) -> None:
    x = all_exponents()
    y = computed(target, activation, x)
    rounded = _with_float32_numbers(activation)
    exact = oracle.activate(x.astype(np.float64), rounded)
    error = ulps(x, y, exact)
    worst = int(np.argmax(error))
    assert np.isfinite(y).all()
    assert error[worst] <= MOST_ULPS, (x[worst], y[worst], exact[worst], error[worst])


def _with_float32_numbers(activation: Any) -> Any:
    if isinstance(activation, nnpack.HardSigmoid):
        return nnpack.HardSigmoid(
            float(np.float32(activation.alpha)), float(np.float32(activation.beta))
        )
    return activation


LIMITS: dict[str, tuple[float, float]] = {
    "sigmoid": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
    "silu": (-0.0, np.inf),
    "hard_swish": (-0.0, np.inf),
    "gelu": (0.0, np.inf),
    "gelu_tanh": (-0.0, np.inf),
    "mish": (-0.0, np.inf),
    "elu": (-1.0, np.inf),
}
ODD = ("tanh", "silu", "hard_swish", "gelu", "gelu_tanh", "mish")


@BY_TARGET
@pytest.mark.parametrize("activation", EXACT, ids=str)
def test_special_values(target: Target, activation: Any) -> None:
    x = np.array([-np.inf, np.inf, np.nan, 0.0, -0.0], np.float32)
    low, high, nan, *zeros = computed(target, activation, x)
    assert np.isnan(nan)
    if activation.kind in LIMITS:
        for found, expected in zip((low, high), LIMITS[activation.kind], strict=True):
            assert found == expected
            assert np.signbit(found) == np.signbit(expected)
    if activation.kind in ODD:
        assert [np.signbit(zero) for zero in zeros] == [False, True]
        assert not any(zeros)


@BY_TARGET
@pytest.mark.parametrize("activation", EXACT, ids=str)
def test_denormals_are_not_flushed(target: Target, activation: Any) -> None:
    x = np.array([1e-45, -1e-45, 1e-40, -1e-40, 1.1e-38, -1.1e-38], np.float32)
    exact = oracle.activate(x.astype(np.float64), _with_float32_numbers(activation))
    assert ulps(x, computed(target, activation, x), exact).max() <= MOST_ULPS
