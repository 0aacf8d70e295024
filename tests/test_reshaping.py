"""Padding, upsampling and concatenation, and their gradients, against what they are defined as."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nnpack
from nnpack.algorithms.reshaping import plan_concat, plan_pad, plan_resample
from nnpack.execution import Program
from nnpack.resampling import axis_table
from nnpack.reshaping_problem import (
    ConcatProblem,
    Interpolation,
    PadMode,
    PadProblem,
    ResampleProblem,
)
from nnpack.runtime.memory import address
from tests.guard import Side, guarded_array, guarded_copy, run_guarded
from tests.native import TARGETS, name_of

Array = npt.NDArray[Any]
NUMPY_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}


def weights_of(inputs: int, outputs: int, mode: str, corners: bool) -> Array:
    """The matrix of an axis, (outputs, inputs), pixel by pixel."""
    matrix = np.zeros((outputs, inputs))
    for i in range(outputs):
        if mode == "nearest":
            matrix[i, i * inputs // outputs] = 1
            continue
        if corners:
            place = i * (inputs - 1) / (outputs - 1) if outputs > 1 else 0.0
        else:
            place = max(0.0, (i + 0.5) * inputs / outputs - 0.5)
        low = min(int(place), inputs - 1)
        share = min(place - low, 1.0)
        matrix[i, low] += 1 - share
        matrix[i, min(low + 1, inputs - 1)] += share
    return matrix


def pad_matrix(inputs: int, before: int, after: int, mode: str) -> Array:
    if mode == "constant":
        return np.eye(inputs + before + after, inputs, -before)
    padded = np.pad(np.arange(inputs), (before, after), mode=NUMPY_MODES[mode])  # type: ignore[call-overload]
    matrix: Array = np.eye(inputs)[padded]
    return matrix


def apply(rows: Any, columns: Any, x: Any) -> Array:
    wide = x.astype(np.float64)
    result: Array = np.einsum("ih,jw,nchw->ncij", rows, columns, wide, optimize=True)
    return result


@st.composite
def images(draw: st.DrawFn) -> Array:
    shape = draw(st.tuples(*(st.integers(1, n) for n in (3, 3, 20, 40))))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return rng.standard_normal(shape, dtype=np.float32)


@given(images(), st.tuples(st.integers(1, 50), st.integers(1, 90)), st.sampled_from("nbc"))
def test_upsampling_and_its_gradient(x: Array, size: tuple[int, int], kind: str) -> None:
    mode: Any = "nearest" if kind == "n" else "bilinear"
    corners = kind == "c"
    rows = weights_of(x.shape[2], size[0], mode, corners)
    columns = weights_of(x.shape[3], size[1], mode, corners)
    y = nnpack.upsample2d(x, size=size, mode=mode, align_corners=corners)
    np.testing.assert_allclose(y, apply(rows, columns, x), rtol=0, atol=1e-5)
    grad = np.random.default_rng(0).standard_normal(y.shape, dtype=np.float32)
    found = nnpack.upsample2d_gradient(grad, x.shape, mode, corners)
    expected = apply(rows.T, columns.T, grad)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * (1 + np.abs(expected).max()))


@given(images(), st.tuples(*(st.integers(0, 6),) * 4), st.sampled_from(sorted(NUMPY_MODES)))
def test_padding_and_its_gradient(x: Array, padding: tuple[int, ...], mode: Any) -> None:
    if mode == "reflect":
        limits = (x.shape[2], x.shape[2], x.shape[3], x.shape[3])
        padding = tuple(min(p, n - 1) for p, n in zip(padding, limits, strict=True))
    top, bottom, left, right = padding
    more = {"constant_values": 2.5} if mode == "constant" else {}
    borders = ((0, 0), (0, 0), (top, bottom), (left, right))
    y = nnpack.pad2d(x, padding, mode, 2.5)
    np.testing.assert_array_equal(y, np.pad(x, borders, NUMPY_MODES[mode], **more))  # type: ignore[call-overload]
    rows = pad_matrix(x.shape[2], top, bottom, mode)
    columns = pad_matrix(x.shape[3], left, right, mode)
    found = nnpack.pad2d_gradient(y, padding, mode)
    np.testing.assert_allclose(found, apply(rows.T, columns.T, y), rtol=1e-5, atol=1e-4)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=5), st.integers(-3, 2), st.integers(1, 30))
def test_concatenation(extents: list[int], axis: int, other: int) -> None:
    rng = np.random.default_rng(0)
    arrays = []
    for extent in extents:
        shape = [2, 3, other]
        shape[axis] = extent
        arrays.append(rng.standard_normal(shape, dtype=np.float32))
    expected = np.concatenate(arrays, axis)
    np.testing.assert_array_equal(nnpack.concat(arrays, axis), expected)
    out = np.empty_like(expected)
    assert nnpack.concat(iter(arrays), axis, out=out) is out
    np.testing.assert_array_equal(out, expected)


def test_producers_may_write_into_the_parts_of_a_concatenation() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((1, 4, 9, 9), dtype=np.float32)
    out = np.full((1, 11, 9, 9), np.nan, np.float32)
    parts = [out[:, :5], out[:, 5:7]]
    for part in parts:
        weight = rng.standard_normal((part.shape[1], 4, 1, 1), dtype=np.float32)
        nnpack.conv2d(x, weight, out=part)
    assert nnpack.concat([*parts, x], out=out) is out
    np.testing.assert_array_equal(out[:, 7:], x)
    assert np.isfinite(out).all()
    with pytest.raises(nnpack.ProblemError, match=r"out overlaps arrays\[0\]"):
        nnpack.concat([parts[1], parts[0], x], out=out)


@pytest.mark.parametrize("scale", [2, 0.5, (3, 1), (1.5, 2.25), np.float32(2)])
def test_scale_factors_are_rounded_down(scale: Any) -> None:
    x = np.random.default_rng(2).standard_normal((1, 2, 6, 7), dtype=np.float32)
    h, w = (scale, scale) if np.ndim(scale) == 0 else scale
    y = nnpack.upsample2d(x, scale)
    assert y.shape == (1, 2, int(6 * h), int(7 * w))
    np.testing.assert_array_equal(y, nnpack.upsample2d(x, size=y.shape[2:]))


def test_numbers_that_are_not_finite_stay_where_they_belong() -> None:
    x = np.zeros((1, 1, 4, 4), np.float32)
    x[0, 0, 1, 2] = np.nan
    grad = nnpack.pad2d(x, 1, "replicate", 0)
    for mode in ("constant", "reflect", "replicate"):
        found = nnpack.pad2d_gradient(grad, 1, mode)
        assert np.isnan(found).sum() == 1
    assert np.isnan(nnpack.upsample2d(x, 2)).sum() == 4
    assert np.isnan(nnpack.upsample2d_gradient(x, (1, 1, 3, 3))).sum() == 1


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("target", TARGETS, ids=name_of)
def test_every_width_stays_inside_the_arrays(target: Any, side: Side) -> None:
    def check() -> None:
        for width in (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 67):
            for kind in ("nearest", "bilinear", "corners", "reflect", "replicate"):
                for gradient in (False, True):
                    _check_resample(target, side, width, kind, gradient)
            _check_copies(target, side, width)

    assert run_guarded(check, seconds=120) == 0


def _check_resample(target: Any, side: Side, width: int, kind: Any, gradient: bool) -> None:
    borders = kind in ("reflect", "replicate")
    after = min(3, width - 1)
    outputs = (5, width + 1 * (width > 1) + after) if borders else (5, 2 * width + 1)
    padding = (0, 1, 1 * (width > 1), after) if borders else (0, 0, 0, 0)
    problem = ResampleProblem(2, (4, width), outputs, kind, padding, gradient)
    rows, columns = axis_table(problem, 0), axis_table(problem, 1)
    sizes = [(2, *problem.image), (2, *outputs)]
    x_shape, y_shape = sizes[::-1] if gradient else sizes
    x = np.random.default_rng(0).standard_normal(x_shape, dtype=np.float32)
    plan = plan_resample(problem, target, 1)
    tables = {"row_places": rows.places, "column_places": columns.places}
    tables |= {} if rows.weights is None else {"row_weights": rows.weights}
    tables |= {} if columns.weights is None else {"column_weights": columns.weights}
    arrays = {name: guarded_copy(array, side) for name, array in {"x": x, **tables}.items()}
    arrays["y"] = guarded_array(y_shape, side)
    arrays["workspace"] = guarded_array(plan.workspace_bytes // 4, side)
    program = Program(plan.stages, target, 1, 0)
    program.run({name: address(array) for name, array in arrays.items()})
    matrices = []
    for table, (inputs, count) in (
        (rows, (x_shape[1], y_shape[1])),
        (columns, (x_shape[2], y_shape[2])),
    ):
        matrix = np.zeros((count, inputs))
        weights = np.ones(table.places.shape) if table.weights is None else table.weights
        np.add.at(matrix, (np.arange(count)[None].repeat(table.taps, 0), table.places), weights)
        matrices.append(matrix)
    expected = apply(matrices[0], matrices[1], x[:, None])[:, 0]
    np.testing.assert_allclose(arrays["y"], expected, rtol=1e-5, atol=1e-4)


def _check_copies(target: Any, side: Side, width: int) -> None:
    x = guarded_copy(
        np.random.default_rng(1).standard_normal((2, 3, width), dtype=np.float32), side
    )
    y = guarded_array((2, 6, width + 5), side)
    pad = PadProblem(2, 3, width, (1, 2, 2, 3), 7.0)
    Program(plan_pad(pad, target, 1).stages, target, 1, 0).run({"x": address(x), "y": address(y)})
    expected = np.pad(x, ((0, 0), (1, 2), (2, 3)), constant_values=7)
    np.testing.assert_array_equal(y, expected)
    joined = guarded_array((6, 2 * width), side)
    problem = ConcatProblem(6, (width, width), (True, True))
    places = {"x0": address(x), "x1": address(x), "y": address(joined)}
    Program(plan_concat(problem, target, 1).stages, target, 1, 0).run(places)
    np.testing.assert_array_equal(joined, np.concatenate([x.reshape(6, -1)] * 2, 1))


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    x = np.random.default_rng(3).standard_normal((2, 8, 60, 70), dtype=np.float32)
    calls: list[Any] = [
        lambda threads: nnpack.upsample2d(x, 2, "bilinear", threads=threads),
        lambda threads: nnpack.upsample2d_gradient(x, (2, 8, 30, 35), "bilinear", threads=threads),
        lambda threads: nnpack.pad2d(x, 3, threads=threads),
        lambda threads: nnpack.concat([x, x], threads=threads),
    ]
    for call in calls:
        np.testing.assert_array_equal(call(1), call(2))


def test_views_and_empty_batches() -> None:
    x = np.random.default_rng(4).standard_normal((4, 3, 6, 7), dtype=np.float32)
    view = x[::2, :, ::-1]
    np.testing.assert_array_equal(nnpack.pad2d(view, 1), nnpack.pad2d(view.copy(), 1))
    np.testing.assert_array_equal(nnpack.upsample2d(view, 2), nnpack.upsample2d(view.copy(), 2))
    np.testing.assert_array_equal(nnpack.concat([view, view]), np.concatenate([view, view], 1))
    assert nnpack.pad2d(x[:0], 1).shape == (0, 3, 8, 9)
    assert nnpack.upsample2d(x[:0], 2, "bilinear").shape == (0, 3, 12, 14)
    assert nnpack.concat([x[:0], x[:0]]).shape == (0, 6, 6, 7)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: nnpack.pad2d(x, -1), "must be at least 0; to crop"),
        (lambda x: nnpack.pad2d(x, 1, cast("PadMode", "mirror")), "mode='mirror' must be"),
        (lambda x: nnpack.pad2d(x, (4, 0), "reflect"), "must be less than the 4x5 pixels"),
        (lambda x: nnpack.pad2d(x, 1, value=np.nan), "value=nan"),
        (lambda x: nnpack.pad2d_gradient(x, 2), "leaves 0x1 of grad_output"),
        (nnpack.upsample2d, "either scale_factor or size"),
        (lambda x: nnpack.upsample2d(x, 2, size=3), "either scale_factor or size"),
        (lambda x: nnpack.upsample2d(x, 0.1), "makes 0.4x0.5 pixels"),
        (lambda x: nnpack.upsample2d(x, 2, cast("Interpolation", "cubic")), "mode='cubic' must be"),
        (lambda x: nnpack.upsample2d(x, 2, "nearest", True), "goes with"),
        (lambda x: nnpack.upsample2d(x, size=0), "at least 1"),
        (lambda x: nnpack.upsample2d_gradient(x, (1, 1, 2, 2)), "must have N and C"),
        (lambda _: nnpack.concat([]), "one array or more"),
        (lambda x: nnpack.concat([x, x[:, :, 1:]]), "differ in more than axis 1"),
        (lambda x: nnpack.concat([x, x], 4), "axis=4 must be from -4 to 3"),
        (lambda x: nnpack.concat([x, x], out=x), "out.shape"),
    ],
)
def test_what_is_malformed_is_refused(call: Any, message: str) -> None:
    x = np.zeros((1, 2, 4, 5), np.float32)
    with pytest.raises(nnpack.ProblemError, match=message):
        call(x)


def test_other_kinds_of_objects_are_refused() -> None:
    x = np.zeros((1, 2, 4, 5), np.float32)
    calls: list[Any] = [
        lambda: nnpack.pad2d(x.astype(float), 1),
        lambda: nnpack.upsample2d(x, "2"),  # type: ignore[arg-type]
        lambda: nnpack.concat([x, [1.0]]),
    ]
    for call in calls:
        with pytest.raises(nnpack.DtypeError):
            call()
