"""Layers keep packed weights and programs, for any image, from any thread."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nnpack
from nnpack.codegen import compiler
from nnpack.execution import Program
from nnpack.layers import base as layers
from nnpack.layers import weights as kept_weights
from nnpack.plan import WeightFormat
from nnpack.runtime.memory import Block
from tests import oracle
from tests.plans import integers
from tests.problems import (
    ConvCase,
    TransposedCase,
    conv_problems,
    conv_transpose_problems,
    layer_arguments,
    problem_count,
)

Float32Array = npt.NDArray[np.float32]


def _rng() -> np.random.Generator:
    return np.random.default_rng(3)


def _layer(**words: Any) -> tuple[nnpack.Conv2d, Float32Array]:
    weight = integers(_rng(), (6, 4, 3, 3))
    return nnpack.Conv2d(weight, padding=1, **words), weight


def _image(*shape: int) -> Float32Array:
    return integers(np.random.default_rng(sum(shape)), shape)


def assert_same(y: Float32Array, reference: oracle.Float64Array) -> None:
    """Of integer data: rounding aside, whatever algorithm computed them."""
    np.testing.assert_allclose(y, reference, rtol=0, atol=1e-2)


@settings(max_examples=problem_count(0.3))
@given(case=conv_problems())
def test_a_layer_computes_what_the_function_does(case: ConvCase) -> None:
    made, called = layer_arguments(case)
    layer = nnpack.Conv2d(case.weight, case.bias, algorithm="direct", **made)
    words = {**case.arguments, "algorithm": "direct"}  # auto weighs packing for the function
    expected = nnpack.conv2d(case.x, case.weight, case.bias, **words)
    for _ in range(2):
        np.testing.assert_array_equal(layer(case.x, **called), expected)


@settings(max_examples=problem_count(0.2))
@given(case=conv_transpose_problems())
def test_a_transposed_layer_computes_what_the_function_does(case: TransposedCase) -> None:
    made, called = layer_arguments(case)
    layer = nnpack.ConvTranspose2d(case.weight, case.bias, algorithm="direct", **made)
    words = {**case.arguments, "algorithm": "direct"}  # auto weighs packing for the function
    expected = nnpack.conv_transpose2d(case.x, case.weight, case.bias, **words)
    for _ in range(2):
        np.testing.assert_array_equal(layer(case.x, **called), expected)


@settings(max_examples=problem_count(0.1))
@given(case=conv_problems(), threads=st.sampled_from([2, 3, 8]))
def test_any_number_of_threads_computes_the_same(case: ConvCase, threads: int) -> None:
    made, called = layer_arguments(case)
    one, many = (nnpack.Conv2d(case.weight, case.bias, **made, threads=n) for n in (1, threads))
    np.testing.assert_array_equal(one(case.x, **called), many(case.x, **called))


@pytest.mark.parametrize("kind", [nnpack.Conv2d, nnpack.ConvTranspose2d])
@pytest.mark.parametrize("kernel", [1, 3])
def test_one_layer_adds_residuals_or_none_in_place_or_not(kind: type, kernel: int) -> None:
    """A transposed 1x1 kernel of stride 2 leaves gaps, which are written before all else."""
    weight = integers(_rng(), (4, 4, kernel, kernel))
    layer = kind(weight, stride=2, padding=kernel // 2, residual_position="after")
    x = _image(2, 4, 9, 7)
    bare = layer(x).copy()
    residual = integers(_rng(), bare.shape)
    np.testing.assert_array_equal(layer(x, residual=residual[:, ::-1]), bare + residual[:, ::-1])
    out = residual.copy()
    assert layer(x, residual=out.view(), out=out) is out
    np.testing.assert_array_equal(out, bare + residual)
    np.testing.assert_array_equal(layer(x), bare)


@pytest.mark.parametrize(
    ("residual", "error", "message"),
    [
        (np.zeros((1, 6, 5, 6), np.float32), nnpack.ProblemError, "residual.shape"),
        (np.zeros((6, 6, 6), np.float32), nnpack.ProblemError, "residual.shape"),
        (np.zeros((1, 6, 6, 6)), nnpack.DtypeError, "residual has dtype float64"),
        (0.0, nnpack.DtypeError, "residual is of type float"),
    ],
    ids=["rows", "rank", "float64", "a number"],
)
def test_malformed_residuals_are_refused(
    residual: object, error: type[Exception], message: str
) -> None:
    layer, x = _layer()[0], _image(1, 4, 6, 6)
    layer(x, residual=np.zeros((1, 6, 6, 6), np.float32))
    with pytest.raises(error, match=message):
        layer(x, residual=residual)


def test_one_layer_takes_images_of_all_sizes_and_batches() -> None:
    layer, weight = _layer()
    for shape in ((1, 4, 5, 5), (3, 4, 9, 2), (1, 4, 40, 33), (1, 4, 5, 5), (0, 4, 8, 8)):
        x = _image(*shape)
        assert_same(layer(x), oracle.conv2d(x, weight, padding=1))


def test_views_find_their_own_programs() -> None:
    layer, weight = _layer()
    whole = _image(2, 8, 12, 12)
    for view in (whole[:, ::2], whole[:, 4:], whole[:, :4, ::-1], whole[:, 2:6, :, ::-1]):
        for _ in range(2):
            assert_same(layer(view), oracle.conv2d(view, weight, padding=1))


def test_unaligned_images_of_a_known_shape_are_copied() -> None:
    layer, weight = _layer()
    x = _image(1, 4, 6, 6)
    layer(x)
    unaligned = np.zeros(x.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(x.shape)
    unaligned[...] = x
    assert_same(layer(unaligned), oracle.conv2d(x, weight, padding=1))


def test_out_is_filled_and_checked() -> None:
    layer, weight = _layer()
    x = _image(1, 4, 6, 6)
    out = np.full((1, 6, 6, 6), np.nan, np.float32)
    assert layer(x, out=out) is out
    assert_same(out, oracle.conv2d(x, weight, padding=1))
    square = nnpack.Conv2d(integers(_rng(), (4, 4, 3, 3)), padding=1)
    for bad, message in ((x, "overlaps x"), (out[:, :3], "out.shape")):
        before = bad.copy()
        with pytest.raises(nnpack.ProblemError, match=message):
            square(x, out=bad)
        np.testing.assert_array_equal(bad, before)


def test_weights_are_copied() -> None:
    weight, bias = integers(_rng(), (6, 4, 3, 3)), np.ones(6, np.float32)
    layer = nnpack.Conv2d(weight, bias)
    x = _image(1, 4, 6, 6)
    expected = layer(x)
    weight[...], bias[...] = 99, 99
    np.testing.assert_array_equal(layer(x), expected)
    np.testing.assert_array_equal(layer(_image(1, 4, 6, 6)), expected)


# Update


def test_update_replaces_weights_and_bias() -> None:
    weight = integers(_rng(), (6, 4, 3, 3))
    layer = nnpack.Conv2d(weight, np.zeros(6, np.float32))
    x = _image(1, 4, 9, 9)
    layer(x)
    layer.update(2 * weight, np.ones(6, np.float32))
    assert_same(layer(x), oracle.conv2d(x, 2 * weight, np.ones(6)))


@pytest.mark.parametrize(
    "arguments",
    [
        (np.zeros((6, 4, 5, 5), np.float32),),
        (np.zeros((6, 4, 3, 3), np.float32), np.zeros(6, np.float32)),
    ],
    ids=["another kernel", "a bias"],
)
def test_update_takes_the_same_shapes_only(arguments: tuple[Float32Array, ...]) -> None:
    layer, weight = _layer()
    x = _image(1, 4, 5, 5)
    with pytest.raises(nnpack.ProblemError, match="as constructed"):
        layer.update(*arguments)
    assert_same(layer(x), oracle.conv2d(x, weight, padding=1))


def test_calls_under_way_finish_with_one_version_of_the_weights() -> None:
    ones = np.ones((8, 8, 3, 3), np.float32)
    layer = nnpack.Conv2d(ones, np.ones(8, np.float32))
    images = [np.ones((1, 8, 3 + n % 5, 3), np.float32) for n in range(300)]
    stop = threading.Event()

    def update() -> None:
        factor = 1
        while not stop.is_set():
            factor = factor % 7 + 1
            layer.update(factor * ones, np.full(8, factor, np.float32))

    with ThreadPoolExecutor(1) as pool:
        updating = pool.submit(update)
        try:
            seen = [np.unique(layer(x)) for x in images]
        finally:
            stop.set()
            updating.result()
    for values in seen:
        factor = round(float(values[0]) / 73)
        np.testing.assert_allclose(values, 73 * factor, rtol=1e-5)


# Concurrency, copies


def test_many_threads_share_a_layer_at_different_shapes() -> None:
    layer, weight = _layer(threads=2)
    shapes = [(1 + n % 2, 4, 5 + n, 30 - n) for n in range(8)]
    expected = {shape: oracle.conv2d(_image(*shape), weight, padding=1) for shape in shapes}
    start = threading.Barrier(8)

    def work(number: int) -> bool:
        start.wait()
        order = shapes[number:] + shapes[:number]
        return all(
            np.allclose(layer(_image(*shape)), expected[shape], atol=1e-2)
            for shape in order
            for _ in range(5)
        )

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


@pytest.mark.parametrize("copied", [lambda x: pickle.loads(pickle.dumps(x)), copy.deepcopy])
def test_layers_survive_pickling(copied: Callable[[Any], Any]) -> None:
    words: dict[str, Any] = {"scale": np.full(4, 2, np.float32), "threads": 2}
    weight, bias = integers(_rng(), (4, 4, 3, 3)), integers(_rng(), (4,))
    x = _image(1, 4, 8, 8)
    for kind in (nnpack.Conv2d, nnpack.ConvTranspose2d):
        layer = kind(weight, bias, stride=2, activation=nnpack.Clip(-3, 50), **words)
        layer(x)
        again = copied(layer)
        np.testing.assert_array_equal(again(x), layer(x))
        again.update(weight + 1, bias, scale=words["scale"])
        assert (again(x) != layer(x)).any()


# What is kept


@pytest.fixture
def work_done(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Counts kernels that are loaded, emitted or not, and packings of weights."""
    counts = {"loaded": 0, "packed": 0}
    load, pack = compiler._load, layers.Layer._pack

    def counted_load(*arguments: Any) -> int | None:
        counts["loaded"] += 1
        return load(*arguments)

    def counted_pack(self: Any, weights: Any, form: Any, threads: int) -> Any:
        counts["packed"] += form not in weights.packed
        return pack(self, weights, form, threads)

    monkeypatch.setattr(compiler, "_load", counted_load)
    monkeypatch.setattr(layers.Layer, "_pack", counted_pack)
    return counts


def test_a_new_image_size_compiles_and_packs_nothing(work_done: dict[str, int]) -> None:
    layer = nnpack.Conv2d(integers(_rng(), (32, 32, 3, 3)), padding=1, algorithm="implicit_gemm")
    layer(_image(1, 32, 60, 60))
    before = dict(work_done)
    assert before["packed"] == 1
    # Sizes for which every target chooses the same tile.
    for shape in ((1, 32, 60, 64), (2, 32, 60, 120), (1, 32, 30, 60)):
        layer(_image(*shape))
    assert work_done == before


def test_a_second_layer_of_the_same_kind_compiles_nothing(work_done: dict[str, int]) -> None:
    for _ in range(2):
        layer = nnpack.Conv2d(integers(_rng(), (32, 16, 3, 3)), algorithm="implicit_gemm")
        layer(_image(1, 16, 30, 30))
        before, work_done["loaded"] = work_done["loaded"], 0
    assert before == 0


def test_programs_are_bounded_and_the_ones_in_use_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_weights, "_MAX_PROGRAMS", 4)
    layer, weight = _layer()
    used = _image(1, 4, 3, 3)
    for width in range(3, 20):
        x = _image(1, 4, 3, width)
        assert_same(layer(x), oracle.conv2d(x, weight, padding=1))
        layer(used)
        assert len(layer._weights.prepared) <= 4
        assert any(key[0] == used.shape for key in layer._weights.prepared)


SIZES = (100, 60, 61, 150, 10)


def test_packed_weights_are_bounded_by_their_bytes_and_the_ones_in_use_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kept_weights, "_LEAST_BYTES", 0)
    monkeypatch.setattr(kept_weights, "_FORMATS_PER_WEIGHT", 0)
    weights = kept_weights.Weights({"weight": np.zeros((1, 1, 1, 1), np.float32)})
    forms = [WeightFormat((letter,), n, ()) for letter, n in zip("abcde", SIZES, strict=True)]
    for form, used in zip(forms, (True, False, True, True, True), strict=True):
        block = Block(form.nbytes)
        weights.keep_format(form, block)
        program = layers.Prepared(None, None, (), {}, (block,))
        weights.keep_program(((form.nbytes,), (), 1, False, None), program)
        program.recent = used
    # When c came, b went, which nobody used; when d came, a, which nobody had used since.
    assert [form.description[0] for form in weights.packed] == ["d", "c", "e"]
    assert [key[0][0] for key in weights.prepared] == [61, 150, 10]


def test_no_program_keeps_weights_that_were_evicted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_weights, "_LEAST_BYTES", 0)
    monkeypatch.setattr(kept_weights, "_FORMATS_PER_WEIGHT", 0)
    layer, weight = _layer()
    for size in (3, 40, 5, 41, 12, 20, 3):
        x = _image(1, 4, size, size)
        assert oracle.max_error(layer(x), oracle.conv2d(x, weight, padding=1)) < 5e-5
        packed = list(layer._weights.packed.values())
        assert sum(b.nbytes for b in packed) <= 2 * max(b.nbytes for b in packed)
        assert all(p.keep[0] in packed for p in layer._weights.prepared.values())


def test_a_known_shape_makes_no_new_program(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, _ = _layer()
    x = _image(1, 4, 9, 9)
    layer(x)

    def refuse(*_: Any) -> None:
        raise AssertionError("a program was made")

    monkeypatch.setattr(Program, "__init__", refuse)
    layer(x)
    layer(x.copy())


# Explanations and errors


def test_explain_tells_what_every_algorithm_answers() -> None:
    layer = nnpack.Conv2d(np.zeros((64, 64, 3, 3), np.float32), padding=1)
    explanation = layer.explain((1, 64, 56, 56))
    by_name = {c.algorithm: c for c in explanation.candidates}
    assert by_name["pointwise"].refusal == "needs a 1x1 kernel, got 3x3"
    chosen = by_name[explanation.chosen]
    assert chosen.refusal is None
    assert chosen.seconds is not None
    for candidate in explanation.candidates:
        if candidate.refusal is None:
            assert candidate.seconds is not None
            assert candidate.seconds >= chosen.seconds
            assert candidate.error is not None
            assert candidate.packed_bytes
    table = str(explanation).splitlines()
    assert len(table) == 1 + len(explanation.candidates)
    assert [line.split()[1] for line in table if line.startswith("*")] == [explanation.chosen]
    assert any(line.endswith("refused: needs a 1x1 kernel, got 3x3") for line in table)


def test_explain_packed_and_workspace_bytes_are_those_of_the_plan() -> None:
    layer, _ = _layer()
    explanation = layer.explain((1, 4, 20, 20))
    layer(_image(1, 4, 20, 20))
    (packed,) = layer._weights.packed.values()
    by_name = {c.algorithm: c for c in explanation.candidates}
    assert by_name[explanation.chosen].packed_bytes == packed.nbytes


def test_explain_of_a_transposed_layer_names_all_that_is_used() -> None:
    layer = nnpack.ConvTranspose2d(np.zeros((16, 8, 4, 4), np.float32), stride=2)
    explanation = layer.explain((1, 16, 30, 30))
    names = {c.algorithm for c in explanation.candidates if c.refusal is None}
    assert set(explanation.chosen.split("+")) <= names


BAD_LAYERS: dict[str, tuple[dict[str, Any], type[Exception]]] = {
    "weight of float64": ({"weight": np.zeros((6, 4, 3, 3))}, nnpack.DtypeError),
    "weight of rank 3": ({"weight": np.zeros((6, 4, 3), np.float32)}, nnpack.ProblemError),
    "no channels": ({"weight": np.zeros((6, 0, 3, 3), np.float32)}, nnpack.ProblemError),
    "bias": ({"bias": np.zeros(5, np.float32)}, nnpack.ProblemError),
    "scale": ({"scale": np.zeros((6, 1), np.float32)}, nnpack.ProblemError),
    "groups": ({"groups": 4}, nnpack.ProblemError),
    "groups 0": ({"groups": 0}, nnpack.ProblemError),
    "stride": ({"stride": (1, 0)}, nnpack.ProblemError),
    "padding": ({"padding": "large"}, nnpack.ProblemError),
    "activation": ({"activation": nnpack.Relu}, nnpack.DtypeError),
    "accuracy": ({"accuracy": 1}, nnpack.ProblemError),
    "residual position": ({"residual_position": "first"}, nnpack.ProblemError),
    "algorithm": ({"algorithm": "fast"}, nnpack.AlgorithmError),
    "threads": ({"threads": 0}, nnpack.ProblemError),
}


@pytest.mark.parametrize("kind", [nnpack.Conv2d, nnpack.ConvTranspose2d])
@pytest.mark.parametrize(("changes", "error"), BAD_LAYERS.values(), ids=BAD_LAYERS)
def test_a_malformed_layer_is_refused_when_it_is_made(
    kind: type, changes: dict[str, Any], error: type[Exception]
) -> None:
    weight = np.zeros((6, 4, 3, 3) if kind is nnpack.Conv2d else (4, 6, 3, 3), np.float32)
    arguments = {"weight": weight, "bias": None, **changes}
    if kind is nnpack.ConvTranspose2d and changes.get("groups") == 4:
        arguments["groups"] = 5
    with pytest.raises(error):
        kind(**arguments)


@pytest.mark.parametrize(
    ("x", "error"),
    [
        (np.zeros((1, 5, 9, 9), np.float32), nnpack.ProblemError),
        (np.zeros((4, 9, 9), np.float32), nnpack.ProblemError),
        (np.zeros((1, 4, 0, 9), np.float32), nnpack.ProblemError),
        (np.zeros((1, 4, 9, 9)), nnpack.DtypeError),
        (None, nnpack.DtypeError),
    ],
    ids=["channels", "rank", "no rows", "float64", "None"],
)
def test_malformed_images_are_refused(x: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        _layer()[0](x)


def test_a_named_algorithm_that_cannot_says_why() -> None:
    """At once, not at the first call."""
    weight = np.zeros((6, 4, 3, 3), np.float32)
    for make in (nnpack.Conv2d, nnpack.ConvTranspose2d):
        with pytest.raises(nnpack.AlgorithmError, match="needs a 1x1 kernel, got .*use algorithm="):
            make(weight, algorithm="pointwise", dilation=(2, 1))


@pytest.mark.parametrize("algorithm", ["auto", "winograd"])
def test_calls_that_add_a_residual_are_explained(algorithm: str) -> None:
    layer = nnpack.Conv2d(np.ones((4, 3, 3, 3), np.float32), padding=1, algorithm=algorithm)
    linear = nnpack.Linear(np.ones((4, 3), np.float32))
    explained: list[Any] = [layer.explain((1, 3, 9, 9)).problem]
    explained += [layer.explain((1, 3, 9, 9), residual=True).problem]
    explained += [linear.explain((2, 3), residual=True).problem]
    assert [problem.epilogue.residual for problem in explained] == [None, "before", "before"]
    with pytest.raises(nnpack.DtypeError, match="residual=1 must be True or False"):
        layer.explain((1, 3, 9, 9), residual=1)  # type: ignore[arg-type]


def test_a_layer_says_what_it_is() -> None:
    weight = np.ones((4, 3, 3, 2), np.float32)
    shown = repr(nnpack.Conv2d(weight, padding=[1, 0], activation=nnpack.Prelu(weight[:, 0, 0, 0])))
    assert shown.startswith("<Conv2d: weight (4, 3, 3, 2), stride=1, padding=(1, 0), dilation=1")
    assert "activation=Prelu," in shown
