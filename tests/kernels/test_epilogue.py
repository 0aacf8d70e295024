"""Activations as they are emitted: exact where they can be, expm1 to units in the last place."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from nnpack.codegen.assembler import Assembler, Value
from nnpack.codegen.target import Target
from nnpack.kernels.epilogue import Epilogue, epilogue_arguments, epilogue_fields
from nnpack.kernels.exponential import emit_expm1
from nnpack.kernels.stage import Arguments
from nnpack.problem import ActivationKind, Clip, Elu, EpilogueKind, Relu
from nnpack.problem import Epilogue as EpilogueOfProblem
from tests.native import TARGETS, name_of, run

pytestmark = pytest.mark.parametrize("target", TARGETS, ids=name_of)

Float32Array = npt.NDArray[np.float32]

SPECIAL = np.array(
    [0.0, -0.0, 1e-45, -1e-45, 1e-38, -1e-38, 1.0, -1.0, 6.0, 3e38, -3e38, np.inf, -np.inf, np.nan],
    np.float32,
)


def _map(
    target: Target, emit: object, x: Float32Array, *more: npt.NDArray[np.int64]
) -> Float32Array:
    """``emit`` applied to every element of x, a vector at a time."""
    assert callable(emit)
    padded = np.resize(x, -(-len(x) // target.lanes) * target.lanes)
    y = np.empty_like(padded)

    def body(asm: Assembler, source: Value, to: Value, count: Value, *rest: Value) -> None:
        with asm.loop(count, step=asm.lanes) as i:
            asm.store(emit(asm, asm.load(source, i), *rest), to, i)

    run(target, body, padded, y, len(padded), *more)
    return y[: len(x)]


def _ulps(found: Float32Array, exact: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Distances in units of the last place of the nearest float32."""
    unit = np.spacing(np.abs(exact).astype(np.float32)).astype(np.float64)
    return np.abs(found - exact) / unit


def test_expm1_is_within_three_units_in_the_last_place(target: Target) -> None:
    near = -np.geomspace(1e-38, 1.0, 40_000)
    far = -np.linspace(0.0, 110.0, 60_001)
    x = np.concatenate([near, far]).astype(np.float32)
    found = _map(target, emit_expm1, x)
    assert _ulps(found, np.expm1(x.astype(np.float64))).max() <= 3
    assert found.min() >= -1


def test_expm1_of_special_values(target: Target) -> None:
    x = np.array([0.0, -1e-45, -1e-40, -87.0, -88.0, -1e30, -np.inf, np.nan], np.float32)
    found = _map(target, emit_expm1, x)
    np.testing.assert_array_equal(found, np.expm1(x.astype(np.float64)).astype(np.float32))


def _epilogue(
    target: Target,
    x: Float32Array,
    activation: Relu | Elu | Clip | None,
    scale: float | None = None,
    bias: float | None = None,
) -> Float32Array:
    """The whole epilogue, its numbers read from an argument block and its terms from vectors."""
    kind = EpilogueOfProblem(scale is not None, bias is not None, activation).kind
    fields = epilogue_fields(kind)
    terms = {"scale": np.full(1, scale or 0, np.float32), "bias": np.full(1, bias or 0, np.float32)}
    numbers = epilogue_arguments(kind, activation.parameters if activation else ())
    words = np.zeros(len(fields) + 1, np.int64)
    for n, name in enumerate(fields):
        if name in terms:
            words[n] = terms[name].ctypes.data
        else:
            words[n : n + 1].view(np.float32)[0] = numbers[name]

    def emit(asm: Assembler, value: Value, block: Value) -> Value:
        epilogue = Epilogue(asm, kind, Arguments(asm, block, fields))
        return epilogue.prepare(value, epilogue.of_channel(0))

    return _map(target, emit, x, words)


@pytest.mark.parametrize("slope", [0.0, 0.25, -0.5])
def test_relu_keeps_nan_and_the_sign_of_zero_to_itself(target: Target, slope: float) -> None:
    found = _epilogue(target, SPECIAL, Relu(slope))
    expected = np.where(SPECIAL < 0, np.float32(slope) * SPECIAL if slope else 0, SPECIAL)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("bounds", [(0, 6), (-1, 1), (-np.inf, 2), (0, np.inf), (3, 3)])
def test_clip_keeps_nan(target: Target, bounds: tuple[float, float]) -> None:
    found = _epilogue(target, SPECIAL, Clip(*bounds))
    np.testing.assert_array_equal(found, np.clip(SPECIAL, bounds[0], bounds[1]))


@pytest.mark.parametrize("alpha", [1.0, 0.3, -2.0])
def test_elu_is_exact_for_positive_values_and_nan(target: Target, alpha: float) -> None:
    found = _epilogue(target, SPECIAL, Elu(alpha))
    negative = np.float32(alpha) * np.expm1(np.minimum(SPECIAL, 0).astype(np.float64))
    expected = np.where(SPECIAL < 0, negative, SPECIAL).astype(np.float32)
    np.testing.assert_allclose(found, expected, rtol=4e-7, atol=0)


def test_scale_comes_before_bias_and_bias_before_the_activation(target: Target) -> None:
    x = np.array([-3.0, 0.0, 2.0], np.float32)
    assert list(_epilogue(target, x, None, scale=2.0)) == [-6, 0, 4]
    assert list(_epilogue(target, x, None, bias=1.0)) == [-2, 1, 3]
    assert list(_epilogue(target, x, Relu(0.5), scale=2.0, bias=1.0)) == [-2.5, 1, 5]


def test_every_kind_names_the_words_it_reads(target: Target) -> None:
    del target
    kinds: dict[ActivationKind | None, list[str]] = {
        None: [],
        "relu": [],
        "leaky_relu": ["slope"],
        "elu": ["alpha"],
        "clip": ["low", "high"],
    }
    for activation, names in kinds.items():
        assert list(epilogue_fields(EpilogueKind(False, False, activation))) == names
        kind = EpilogueKind(scale=True, bias=True, activation=activation)
        assert list(epilogue_fields(kind)) == ["scale", "bias", *names]
