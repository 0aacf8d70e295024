"""Loads, stores, masks and gathers touch the lanes they should and no others, on every target."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from nnpack.codegen.assembler import Assembler, Value
from nnpack.codegen.target import Target
from tests.guard import Side, guarded_array, guarded_copy, run_guarded
from tests.native import TARGETS, Body, compute, name_of, run

pytestmark = pytest.mark.parametrize("target", TARGETS, ids=name_of)

SIDES: tuple[Side, ...] = ("before", "after")


def _numbers(count: int) -> npt.NDArray[np.float32]:
    return np.arange(1, count + 1, dtype=np.float32)


def _counts(lanes: int) -> list[int]:
    return [-(2**40), -1, *range(lanes + 2), 2**40]


def test_masks_have_the_lanes_below_any_count(target: Target) -> None:
    x = _numbers(target.lanes)
    for count in _counts(target.lanes):
        expected = np.where(np.arange(target.lanes) < count, x, 0)
        given = compute(
            target, lambda asm, p, n: asm.load(p, mask=asm.lanes_below(n)), target.lanes, x, count
        )
        np.testing.assert_array_equal(given, expected)


@pytest.mark.parametrize("count", [-3, 0, 1, 3, 99])
def test_masks_of_counts_known_at_compile_time(target: Target, count: int) -> None:
    x = _numbers(target.lanes)
    found = compute(
        target, lambda asm, p: asm.load(p, mask=asm.lanes_below(count)), target.lanes, x
    )
    np.testing.assert_array_equal(found, np.where(np.arange(target.lanes) < count, x, 0))


@pytest.mark.parametrize(("low", "high"), [(0, 2), (1, 3), (-5, 1), (2, 99), (3, 2), (9, 99)])
@pytest.mark.parametrize("width", [4, 8])
def test_masks_between_any_bounds(target: Target, low: int, high: int, width: int) -> None:
    x = _numbers(width)

    def body(asm: Assembler, p: Value, a: Value, b: Value) -> Value:
        return asm.load(p, mask=asm.lanes_between(a, b, width), lanes=width)

    lane = np.arange(width)
    expected = np.where((low <= lane) & (lane < high), x, 0)
    np.testing.assert_array_equal(compute(target, body, width, x, low, high), expected)


@pytest.mark.parametrize("offset", [0, 1, 3])
def test_unmasked_loads_need_no_alignment(target: Target, offset: int) -> None:
    x = _numbers(target.lanes + 4)
    found = compute(target, lambda asm, p, n: asm.load(p, n), target.lanes, x, offset)
    np.testing.assert_array_equal(found, x[offset : offset + target.lanes])


def test_masked_stores_leave_the_other_lanes(target: Target) -> None:
    lanes = target.lanes

    def body(asm: Assembler, out: Value, count: Value) -> None:
        asm.store(asm.splat(7.0), out, 1, mask=asm.lanes_below(count))

    for count in _counts(lanes):
        found = np.zeros(lanes + 2, np.float32)
        run(target, body, found, count)
        expected = np.zeros(lanes + 2, np.float32)
        expected[1 : 1 + min(max(count, 0), lanes)] = 7
        np.testing.assert_array_equal(found, expected)


def test_store_first_stores_any_number_of_lanes(target: Target) -> None:
    for count in range(target.lanes + 1):
        found = np.zeros(target.lanes, np.float32)

        def body(asm: Assembler, out: Value, p: Value, count: int = count) -> None:
            asm.store_first(asm.load(p), count, out)

        run(target, body, found, _numbers(target.lanes))
        np.testing.assert_array_equal(found[:count], _numbers(count))
        assert not found[count:].any()


@pytest.mark.parametrize("stride", [-2, 0, 1, 3])
def test_gather_reads_lanes_a_stride_apart(target: Target, stride: int) -> None:
    lanes = target.lanes
    x = _numbers(4 * lanes)
    base = 2 * lanes if stride < 0 else 0
    lane = np.arange(lanes)
    for count in (0, 1, lanes - 1, lanes):

        def body(asm: Assembler, p: Value, step: Value, n: Value, count: int = count) -> Value:
            mask = asm.lanes_below(count if count % 2 else n)
            return asm.gather(p + base, step, mask)

        found = compute(target, body, lanes, x, stride, count)
        expected = np.where(lane < count, x[base + stride * lane], 0)
        np.testing.assert_array_equal(found, expected)


def _survives(target: Target, body: Body, *arrays: npt.NDArray[np.float32] | int) -> bool:
    return run_guarded(lambda: run(target, body, *arrays)) == 0


def _masked_copy(asm: Assembler, x: Value, y: Value, low: Value, high: Value) -> None:
    """``y[l] = x[l]`` for low <= l < high, the pointers at lane 0."""
    mask = asm.lanes_between(low, high)
    asm.store(asm.load(x - low, mask=mask), y - low, mask=mask)


@pytest.mark.parametrize("side", SIDES)
def test_masked_lanes_may_lie_in_forbidden_pages(target: Target, side: Side) -> None:
    lanes = target.lanes
    for low, high in ((0, 1), (0, lanes - 1), (1, lanes), (lanes - 1, lanes), (1, 2)):
        x = guarded_copy(_numbers(high - low), side)
        y = guarded_array(high - low, side)
        assert _survives(target, _masked_copy, x, y, low, high)


@pytest.mark.parametrize("side", SIDES)
def test_gathered_lanes_outside_the_mask_may_lie_in_forbidden_pages(
    target: Target, side: Side
) -> None:
    x, y = guarded_copy(_numbers(7), side), guarded_array(target.lanes, side)

    def body(asm: Assembler, x: Value, y: Value, count: Value) -> None:
        asm.store(asm.gather(x, 3, asm.lanes_below(count)), y)

    assert _survives(target, body, x, y, 3)


def test_words_and_pointers_are_stored_and_loaded(target: Target) -> None:
    found = np.zeros(4, np.int64)
    words = np.array([found.ctypes.data, -5], np.int64)

    def body(asm: Assembler, p: Value) -> None:
        out = asm.load_pointer(p)
        asm.store_index(asm.load_index(p, 1), out, 2)
        asm.store_index(11, asm.index_pointer(out, 3))

    run(target, body, words)
    assert list(found) == [0, 0, -5, 11]


def test_local_memory_is_aligned_and_one_for_each_size(target: Target) -> None:
    found = np.zeros(target.lanes, np.float32)

    def body(asm: Assembler, out: Value, p: Value) -> None:
        asm.store(asm.load(p), asm.local_floats(asm.lanes))
        asm.store_index(77, asm.local_words(2), 1)
        asm.store(asm.load(asm.local_floats(asm.lanes)), out)

    run(target, body, found, _numbers(target.lanes))
    np.testing.assert_array_equal(found, _numbers(target.lanes))


def test_prefetch_never_faults(target: Target) -> None:
    x = guarded_array(4, "after")

    def body(asm: Assembler, p: Value) -> None:
        asm.prefetch(p, 4)
        asm.prefetch(p, 1 << 40)

    assert _survives(target, body, x)


HALVES = [0.0, -0.0, 1.0, 65504.0, -(2.0**-14), 2.0**-24, np.inf, -np.inf, 3 * 2.0**-24, 0.1]


def _skip_without_halves(target: Target) -> None:
    if not target.half_conversions:
        pytest.skip("has no instructions for half precision")


@pytest.mark.parametrize("side", SIDES)
def test_halves_are_loaded_as_floats_and_count_as_halves(target: Target, side: Side) -> None:
    _skip_without_halves(target)
    lanes = target.lanes
    halves = guarded_copy(np.resize(np.array(HALVES, np.float16), lanes + 3), side)
    out = np.zeros((3, lanes), np.float32)

    def body(asm: Assembler, p: Value, q: Value) -> None:
        asm.store(asm.load(p, 3), q)
        asm.store(asm.load(p + 1, lanes=4), q, lanes)
        asm.store(asm.broadcast(p, 4), q, 2 * lanes)

    run(target, body, halves, out)
    np.testing.assert_array_equal(out[0], halves[3:].astype(np.float32))
    np.testing.assert_array_equal(out[1, :4], halves[1:5].astype(np.float32))
    np.testing.assert_array_equal(out[2], np.float32(halves[4]))


@pytest.mark.parametrize("side", SIDES)
def test_floats_are_stored_as_the_nearest_halves(target: Target, side: Side) -> None:
    """Ties go to the even one, what is too large to infinity, what is too small to zero."""
    _skip_without_halves(target)
    x = [1 + 2**-11, 1 + 3 * 2**-11, 65519, 65520, -(2.0**-25), 3 * 2.0**-25, 1e-9, np.nan]
    values = np.resize(np.array(x, np.float32), target.lanes)
    out = guarded_array(target.lanes, side, np.float16)
    run(target, lambda asm, p, q: asm.store(asm.load(p), q), values, out)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(out, values.astype(np.float16))
