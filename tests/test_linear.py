"""Fully connected layers: functions and layers against float64, and what they refuse."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nnpack
from tests import oracle
from tests.plans import Float32Array
from tests.problems import problem_count


def _random(*shape: int, seed: int = 0) -> Float32Array:
    return np.random.default_rng([seed, *shape]).standard_normal(shape, dtype=np.float32)


def _reference(x: Float32Array, weight: Float32Array) -> oracle.Float64Array:
    return np.asarray(x.astype(np.float64) @ weight.astype(np.float64).T)


def _assert_close(y: Float32Array, reference: oracle.Float64Array) -> None:
    assert y.dtype == np.float32
    assert y.shape == reference.shape
    assert y.flags.c_contiguous
    if reference.size:
        assert oracle.relative_l2(y, reference) <= 1e-6
        assert oracle.max_error(y, reference) <= 2e-6


LEADING = st.sampled_from([(), (1,), (5,), (8,), (30,), (2, 3), (2, 2, 3), (0,), (3, 0, 2)])
EXTENTS = st.integers(1, 90)


@settings(max_examples=problem_count(0.2))
@given(leading=LEADING, inputs=EXTENTS, outputs=EXTENTS, threads=st.sampled_from([1, 2]))
def test_linear_is_the_product_with_the_transposed_weights(
    leading: tuple[int, ...], inputs: int, outputs: int, threads: int
) -> None:
    x, weight, bias = _random(*leading, inputs), _random(outputs, inputs), _random(outputs)
    reference = _reference(x, weight) + bias
    _assert_close(nnpack.linear(x, weight, bias, threads=threads), reference)
    _assert_close(nnpack.Linear(weight, bias, threads=threads)(x), reference)


@pytest.mark.parametrize("rows", [1, 4, 40])
@pytest.mark.parametrize("position", ["before", "after"])
def test_scale_bias_residual_and_activation_are_fused(rows: int, position: str) -> None:
    x, weight, residual = _random(rows, 50), _random(70, 50), _random(rows, 70)
    bias, scale = _random(70), _random(70, seed=1)
    words: dict[str, Any] = {
        "scale": scale,
        "activation": nnpack.Clip(-1, 2),
        "residual_position": position,
    }
    before = _reference(x, weight) * scale + bias
    if position == "before":
        reference = np.clip(before + residual, -1, 2)
    else:
        reference = np.clip(before, -1, 2) + residual
    layer = nnpack.Linear(weight, bias, **words)
    for y in (
        nnpack.linear(x, weight, bias, residual=residual, **words),
        layer(x, residual=residual),
        layer(x, residual=residual, out=residual.copy()),
    ):
        _assert_close(y, reference)
    over = residual.copy()
    assert nnpack.linear(x, weight, bias, residual=over, out=over, **words) is over
    _assert_close(over, reference)
    _assert_close(layer(x), np.clip(before, -1, 2))


@pytest.mark.parametrize("rows", [1, 3, 6, 7, 64, 300])
@pytest.mark.parametrize("depth", [30, 2500])
def test_results_do_not_depend_on_the_number_of_threads(rows: int, depth: int) -> None:
    x, weight = _random(rows, depth), _random(1000, depth)
    one = nnpack.linear(x, weight, threads=1)
    packed = nnpack.Linear(weight, threads=1)(x)
    for threads in (2, 3):
        np.testing.assert_array_equal(nnpack.linear(x, weight, threads=threads), one)
        np.testing.assert_array_equal(nnpack.Linear(weight, threads=threads)(x), packed)


def _unaligned(x: Float32Array) -> Float32Array:
    view: Float32Array = np.zeros(x.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(x.shape)
    view[...] = x
    return view


VIEWS: dict[str, Callable[[Float32Array], Float32Array]] = {
    "transposed": np.asfortranarray,
    "backwards": lambda x: np.ascontiguousarray(x[::-1])[::-1],
    "columns backwards": lambda x: np.ascontiguousarray(x[:, ::-1])[:, ::-1],
    "a slice": lambda x: np.concatenate([x, x], axis=1)[:, : x.shape[1]],
    "every second": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "one row, often": lambda x: np.broadcast_to(x[:1], x.shape),
    "unaligned": _unaligned,
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
@pytest.mark.parametrize("rows", [2, 20])
def test_views_are_read_where_they_stand_or_copied(
    view: Callable[[Float32Array], Float32Array], rows: int
) -> None:
    x, weight = view(_random(rows, 33)), view(_random(40, 33))
    reference = _reference(x, weight)
    layer = nnpack.Linear(weight)
    for _ in range(2):
        _assert_close(nnpack.linear(x, weight), reference)
        _assert_close(layer(x), reference)
        _assert_close(layer(np.ascontiguousarray(x)), reference)


def test_leading_dimensions_in_another_order() -> None:
    x, weight = _random(3, 4, 20).transpose(1, 0, 2), _random(9, 20)
    _assert_close(nnpack.linear(x, weight), _reference(x, weight))
    _assert_close(nnpack.Linear(weight)(x), _reference(x, weight))


def test_the_buffer_protocol_and_dlpack_are_read() -> None:
    x, weight = _random(4, 6), _random(5, 6)

    class Exporter:
        def __dlpack__(self, **_: Any) -> Any:
            return x.__dlpack__()

        def __dlpack_device__(self) -> tuple[int, int]:
            return 1, 0

    for array in (memoryview(x), Exporter()):  # type: ignore[arg-type]
        _assert_close(nnpack.linear(array, weight), _reference(x, weight))
        _assert_close(nnpack.Linear(weight)(array), _reference(x, weight))


def test_long_sums_are_as_exact_as_short_ones() -> None:
    """Chains are bounded: the error of 60 000 positive products stays that of some thousand."""
    x, weight = np.abs(_random(2, 60_000)), np.abs(_random(3, 60_000))
    for y in (nnpack.linear(x, weight), nnpack.Linear(weight)(x)):
        assert oracle.max_error(y, _reference(x, weight)) <= 2e-6


# Outputs that form a map


@pytest.mark.parametrize("leading", [(), (3,), (2, 10), (0,)], ids=str)
@pytest.mark.parametrize("pool", [None, nnpack.MaxPool(2), nnpack.AveragePool(2)])
def test_outputs_may_form_a_map_that_is_pooled(leading: tuple[int, ...], pool: Any) -> None:
    x, weight, bias = _random(*leading, 20), _random(5 * 6 * 7, 20), _random(5 * 6 * 7)
    residual = _random(*leading, 5, 6, 7)
    maps = (_reference(x, weight) + bias).reshape(*leading, 5, 6, 7) + residual
    reference = np.maximum(maps, 0)
    if pool is not None:
        windows = reference[..., :6].reshape(*leading, 5, 3, 2, 3, 2)
        axes = (-3, -1)
        is_max = isinstance(pool, nnpack.MaxPool)
        reference = windows.max(axes) if is_max else windows.mean(axes)
    words: dict[str, Any] = {
        "activation": nnpack.Relu(),
        "map_shape": [5, 6, 7],
        "pool": pool,
    }
    layer = nnpack.Linear(weight, bias, **words)
    for _ in range(2):
        _assert_close(nnpack.linear(x, weight, bias, residual=residual, **words), reference)
        _assert_close(layer(x, residual=residual), reference)
    if pool is not None:
        assert "following pass" in str(layer.explain(x.shape))


# Storage, copies, layers


def test_halves_are_the_rounded_weights() -> None:
    weight = _random(60, 40)
    rounded = weight.astype(np.float16).astype(np.float32)
    for rows in (1, 5, 30):
        x = _random(rows, 40)
        layer = nnpack.Linear(weight, weight_storage="float16")
        np.testing.assert_array_equal(layer(x), nnpack.Linear(rounded)(x))
    with pytest.raises(nnpack.ProblemError, match="beyond the 65504"):
        nnpack.Linear(1e5 * np.ones((2, 2), np.float32), weight_storage="float16")


def test_update_and_copies() -> None:
    weight, bias, x = _random(7, 9), _random(7), _random(3, 9)
    layer = nnpack.Linear(weight, bias, activation=nnpack.Relu(), threads=2)
    layer(x)
    for again in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer)):
        np.testing.assert_array_equal(again(x), layer(x))
        again.update(2 * weight, bias)
        _assert_close(again(x), np.maximum(_reference(x, 2 * weight) + bias, 0))
    weight[...] = 99
    assert layer(x).max() < 99
    with pytest.raises(nnpack.ProblemError, match="as constructed"):
        layer.update(_random(7, 8), bias)


def test_many_threads_share_a_layer() -> None:
    weight = _random(64, 32)
    layer = nnpack.Linear(weight)
    inputs = [_random(1 + n % 20, 32) for n in range(60)]
    with ThreadPoolExecutor(6) as pool:
        for x, y in zip(inputs, pool.map(layer, inputs), strict=True):
            _assert_close(y, _reference(x, weight))


def test_weights_are_packed_once_for_any_number_of_rows() -> None:
    layer = nnpack.Linear(_random(40, 30))
    for rows in (1, 2, 5, 14, 15, 64, 200):
        layer(_random(rows, 30))
    assert len(layer._weights.packed) == 1


def test_explain_says_what_is_done() -> None:
    layer = nnpack.Linear(_random(40, 30), weight_storage="float16")
    explanation = layer.explain((64, 30))
    (candidate,) = explanation.candidates
    assert explanation.chosen == candidate.algorithm == "product"
    assert candidate.packed_bytes
    assert candidate.seconds
    assert "tile" in str(explanation)
    assert layer.explain((0, 30)).chosen == "product"


def test_profile_tells_packing_from_multiplication() -> None:
    profile = nnpack.Linear(_random(64, 100)).profile(_random(64, 100))
    assert set(profile.phases) <= {"packing", "multiplication"}


# Gradients


@settings(max_examples=problem_count(0.1))
@given(
    leading=LEADING,
    inputs=EXTENTS,
    outputs=EXTENTS,
    accumulate=st.booleans(),
    turned=st.booleans(),
    threads=st.sampled_from([1, 3]),
)
def test_gradients_are_those_of_the_product(
    leading: tuple[int, ...],
    inputs: int,
    outputs: int,
    accumulate: bool,
    turned: bool,
    threads: int,
) -> None:
    x, weight, grad = (
        _random(*leading, inputs),
        _random(outputs, inputs),
        _random(*leading, outputs),
    )
    if turned:
        x, weight, grad = (np.asfortranarray(a) for a in (x, weight, grad))
    rows = math.prod(leading)
    flat = grad.reshape(rows, outputs).astype(np.float64)
    expected: dict[Callable[..., Float32Array], Any] = {
        nnpack.linear_input_gradient: ((grad, weight), grad.astype(np.float64) @ weight),
        nnpack.linear_weight_gradient: ((x, grad), flat.T @ x.reshape(rows, inputs)),
        nnpack.linear_bias_gradient: ((grad,), flat.sum(axis=0)),
    }
    for function, (arguments, reference) in expected.items():
        words: dict[str, Any] = {"threads": threads}
        if accumulate:
            words |= {"out": np.ones(reference.shape, np.float32), "accumulate": True}
        found = function(*arguments, **words)
        np.testing.assert_allclose(found, reference + accumulate, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("rows", [3, 70, 700])
def test_gradients_do_not_depend_on_the_number_of_threads(rows: int) -> None:
    x, weight, grad = _random(rows, 600), _random(300, 600), _random(rows, 300)
    calls: list[Callable[[int], Float32Array]] = [
        lambda n: nnpack.linear_input_gradient(grad, weight, threads=n),
        lambda n: nnpack.linear_weight_gradient(x, grad, threads=n),
        lambda n: nnpack.linear_bias_gradient(grad, threads=n),
    ]
    for call in calls:
        np.testing.assert_array_equal(call(1), call(3))


# Errors

F32 = np.float32
BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "x of float64": ({"x": np.zeros((2, 4))}, nnpack.DtypeError, "float32"),
    "x of no dimension": ({"x": np.float32(1).reshape(())}, nnpack.ProblemError, "x.shape"),
    "depth": ({"x": np.zeros((2, 5), F32)}, nnpack.ProblemError, "must end with 4"),
    "weight of rank 3": ({"weight": np.zeros((1, 3, 4), F32)}, nnpack.ProblemError, "weight"),
    "no outputs": ({"weight": np.zeros((0, 4), F32)}, nnpack.ProblemError, "O must be at least 1"),
    "bias": ({"bias": np.zeros(4, F32)}, nnpack.ProblemError, r"must be \(3,\)"),
    "scale": ({"scale": np.zeros((3, 1), F32)}, nnpack.ProblemError, "scale"),
    "residual": ({"residual": np.zeros((2, 4), F32)}, nnpack.ProblemError, r"\(2, 3\)"),
    "position": ({"residual_position": "between"}, nnpack.ProblemError, "residual_position"),
    "activation": ({"activation": nnpack.Relu}, nnpack.DtypeError, "activation"),
    "accuracy": ({"accuracy": "best"}, nnpack.ProblemError, "accuracy"),
    "map": ({"map_shape": (1, 2, 2)}, nnpack.ProblemError, "has 4 places"),
    "map of rank 2": ({"map_shape": (1, 3)}, nnpack.ProblemError, "3 dimensions"),
    "a number as map": ({"map_shape": 3}, nnpack.ProblemError, "map"),
    "pool without a map": ({"pool": nnpack.MaxPool(2)}, nnpack.ProblemError, "map_shape"),
    "a narrow map": (
        {"pool": nnpack.MaxPool(2), "map_shape": (1, 1, 3)},
        nnpack.ProblemError,
        "at least 2x2",
    ),
    "pool": ({"pool": "max", "map_shape": (3, 1, 1)}, nnpack.DtypeError, "pool"),
    "threads": ({"threads": 0}, nnpack.ProblemError, "threads"),
    "out": ({"out": np.zeros((2, 4), F32)}, nnpack.ProblemError, "out.shape"),
}


@pytest.mark.parametrize(("changes", "error", "message"), BAD.values(), ids=BAD)
def test_malformed_arguments_are_refused(
    changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    words = {"x": np.ones((2, 4), F32), "weight": np.ones((3, 4), F32), **changes}
    with pytest.raises(error, match=message):
        nnpack.linear(**words)
    call = {name: words.pop(name) for name in ("x", "residual", "out") if name in words}
    with pytest.raises(error):
        nnpack.Linear(**words)(**call)


def test_out_may_not_overlap_what_is_read() -> None:
    square = np.ones((4, 4), np.float32)
    with pytest.raises(nnpack.ProblemError, match="out overlaps weight"):
        nnpack.linear(np.ones((4, 4), np.float32), square, out=square)
    with pytest.raises(nnpack.ProblemError, match="out overlaps x"):
        nnpack.linear_weight_gradient(square, np.ones((4, 4), np.float32), out=square)


@pytest.mark.parametrize(
    "call",
    [
        lambda: nnpack.linear_input_gradient(np.ones((2, 3), F32), np.ones((4, 3), F32)),
        lambda: nnpack.linear_weight_gradient(np.ones((2, 3), F32), np.ones((4, 3), F32)),
        lambda: nnpack.linear_bias_gradient(np.ones((), F32)),
        lambda: nnpack.linear_bias_gradient(np.ones((2, 3), F32), accumulate=True),
        lambda: nnpack.linear_bias_gradient(np.ones((2, 3), F32), out=np.ones(2, F32)),
    ],
)
def test_malformed_gradients_are_refused(call: Callable[[], object]) -> None:
    with pytest.raises(nnpack.ProblemError):
        call()
