"""Every operation of the assembler, executed on every target this machine has."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from nnpack.codegen.assembler import Assembler, Value
from nnpack.codegen.target import Target
from tests.native import TARGETS, compute, name_of, run

pytestmark = pytest.mark.parametrize("target", TARGETS, ids=name_of)

Float32Array = npt.NDArray[np.float32]


def _numbers(count: int) -> Float32Array:
    return np.arange(1, count + 1, dtype=np.float32)


def _words(*values: int) -> npt.NDArray[np.int64]:
    return np.array(values, np.int64)


# Indices


@pytest.mark.parametrize(
    ("operation", "a", "b"),
    [
        (operator.add, 5, -7),
        (operator.sub, 5, 7),
        (operator.mul, -3, 4),
        (operator.floordiv, 17, 5),
        (operator.mod, 17, 5),
        (operator.and_, 12, 10),
        (operator.or_, 12, 10),
        (operator.lshift, 3, 5),
        (operator.rshift, 97, 3),
        (operator.lt, -1, 0),
        (operator.le, 2, 2),
        (operator.gt, 2, 2),
        (operator.ge, 3, 2),
    ],
)
def test_operators_of_indices_are_those_of_python(
    target: Target, operation: Callable[[Any, Any], Any], a: int, b: int
) -> None:
    found = _words(0, 0)

    def body(asm: Assembler, out: Value, left: Value, right: Value) -> None:
        for place, value in enumerate((operation(left, right), operation(left, b))):
            asm.store_index(asm.select(value, 1, 0) if _is_mask(value) else value, out, place)

    run(target, body, found, a, b)
    assert list(found) == [int(operation(a, b))] * 2


def _is_mask(value: Value) -> bool:
    return str(value.ir.type) == "i1"


def test_a_python_number_may_stand_on_the_left(target: Target) -> None:
    found = _words(0, 0, 0)

    def body(asm: Assembler, out: Value, a: Value) -> None:
        for place, value in enumerate((10 + a, 10 - a, 10 * a)):
            asm.store_index(value, out, place)

    run(target, body, found, 3)
    assert list(found) == [13, 7, 30]


@pytest.mark.parametrize("a", [-5, 0, 4, 5])
@pytest.mark.parametrize("b", [-5, 4])
def test_minimum_maximum_and_equality_of_indices(target: Target, a: int, b: int) -> None:
    found = _words(0, 0, 0, 0)

    def body(asm: Assembler, out: Value, left: Value, right: Value) -> None:
        asm.store_index(asm.minimum(left, right), out, 0)
        asm.store_index(asm.maximum(left, right), out, 1)
        asm.store_index(asm.select(left.equals(right), 1, 0), out, 2)
        asm.store_index(-left, out, 3)

    run(target, body, found, a, b)
    assert list(found) == [min(a, b), max(a, b), a == b, -a]


@pytest.mark.parametrize(("a", "b"), [(0, 3), (1, 3), (3, 3), (4, 3), (1 << 40, 7)])
def test_ceil_div_rounds_up(target: Target, a: int, b: int) -> None:
    found = _words(0)
    run(target, lambda asm, out, x, y: asm.store_index(asm.ceil_div(x, y), out), found, a, b)
    assert found[0] == -(-a // b)


# Floats and vectors


@pytest.mark.parametrize("operation", [operator.add, operator.sub, operator.mul])
def test_operators_of_vectors_go_lane_by_lane(
    target: Target, operation: Callable[[Any, Any], Any]
) -> None:
    lanes = target.lanes
    a, b = _numbers(lanes), _numbers(lanes)[::-1] * np.float32(0.7)
    found = compute(
        target, lambda asm, x, y: operation(asm.load(x), asm.load(y)), lanes, a, b.copy()
    )
    np.testing.assert_array_equal(found, operation(a, b))


def test_fma_rounds_once_where_the_target_can_and_at_most_twice(target: Target) -> None:
    lanes = target.lanes
    a = np.full(lanes, 1 + 2.0**-12, np.float32)
    c = np.full(lanes, -1, np.float32)
    found = compute(
        target, lambda asm, x, z: asm.fma(asm.load(x), asm.load(x), asm.load(z)), lanes, a, c
    )
    once = np.float32(2.0**-11 + 2.0**-24)
    twice = np.float32(np.float32(a[0] * a[0]) - 1)
    assert (found == (once if target.fma else twice)).all()


def test_comparisons_with_nan_are_false_so_that_minimum_keeps_it(target: Target) -> None:
    lanes = target.lanes
    x = np.where(np.arange(lanes) % 2, np.nan, -1).astype(np.float32)
    low = compute(target, lambda asm, p: asm.minimum(0.0, asm.load(p)), lanes, x)
    high = compute(target, lambda asm, p: asm.maximum(0.0, asm.load(p)), lanes, x)
    np.testing.assert_array_equal(low, x)
    np.testing.assert_array_equal(high, np.where(np.isnan(x), x, 0))


def test_negation_flips_the_sign_of_zero_and_nothing_else(target: Target) -> None:
    x = np.resize(np.array([0.0, -0.0, 1.5, -np.inf], np.float32), target.lanes)
    found = compute(target, lambda asm, p: -asm.load(p), target.lanes, x)
    np.testing.assert_array_equal(found, -x)
    np.testing.assert_array_equal(np.signbit(found), ~np.signbit(x))


def test_bits_of_floats_are_integers_and_back(target: Target) -> None:
    x = _numbers(target.lanes)

    def doubled(asm: Assembler, p: Value) -> Value:
        bits = asm.bitcast_to_int(asm.load(p))
        return asm.bitcast_to_float(bits + (1 << 23))

    np.testing.assert_array_equal(compute(target, doubled, target.lanes, x), 2 * x)


@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_splat_and_broadcast_fill_every_lane(target: Target, lanes: int) -> None:
    x = _numbers(5)
    found = compute(target, lambda asm, p: asm.broadcast(p, 3, lanes), lanes, x)
    assert (found == 4).all()
    found = compute(target, lambda asm, a: asm.splat(a, lanes), lanes, 2.5)
    assert (found == 2.5).all()
    assert (compute(target, lambda asm: asm.splat(0.1, lanes), lanes) == np.float32(0.1)).all()


@pytest.mark.parametrize("stride", [1, 2])
def test_shuffle_takes_lanes_of_two_vectors(target: Target, stride: int) -> None:
    lanes = target.lanes
    x = _numbers(2 * lanes)
    order = [(stride * n + 1) % (2 * lanes) for n in range(2 * lanes)]
    found = compute(
        target, lambda asm, p: asm.shuffle(asm.load(p), asm.load(p, lanes), order), 2 * lanes, x
    )
    np.testing.assert_array_equal(found, x[order])


def test_extract_reads_one_lane(target: Target) -> None:
    found = np.zeros(2, np.float32)

    def body(asm: Assembler, out: Value, p: Value) -> None:
        vector = asm.load(p)
        asm.store(asm.extract(vector, asm.lanes - 1), out)
        asm.store(asm.extract(vector, 0), out, 1)

    run(target, body, found, _numbers(target.lanes))
    assert list(found) == [target.lanes, 1]


# Control flow


@pytest.mark.parametrize("passes", [0, 1, 2, 7])
def test_a_loop_hands_carried_values_from_pass_to_pass(target: Target, passes: int) -> None:
    found = _words(0, 0, 0)

    def body(asm: Assembler, out: Value, count: Value) -> None:
        state = {"sum": asm.index(100), "last": asm.index(-1)}
        with asm.loop(count, carry=state) as i:
            state["sum"] = state["sum"] + i
            state["last"] = i
        asm.store_index(state["sum"], out, 0)
        asm.store_index(state["last"], out, 1)

    run(target, body, found, passes)
    assert list(found[:2]) == [100 + sum(range(passes)), passes - 1]


@pytest.mark.parametrize(
    ("start", "stop", "step"), [(0, 0, 1), (3, 3, 1), (5, 2, 1), (-3, 2, 1), (0, 7, 3), (2, 9, 7)]
)
def test_a_loop_runs_as_range_does(target: Target, start: int, stop: int, step: int) -> None:
    seen = np.full(16, 99, np.int64)

    def body(asm: Assembler, out: Value, begin: Value, end: Value, by: Value) -> None:
        state = {"n": asm.index(0)}
        with asm.loop(end, start=begin, step=by, carry=state) as i:
            asm.store_index(i, out, state["n"])
            state["n"] = state["n"] + 1

    run(target, body, seen, start, stop, step)
    expected = list(range(start, stop, step))
    assert list(seen[: len(expected)]) == expected
    assert (seen[len(expected) :] == 99).all()


def test_loops_nest_and_share_what_they_carry(target: Target) -> None:
    found = _words(0)

    def body(asm: Assembler, out: Value, rows: Value, columns: Value) -> None:
        state = {"n": asm.index(0)}
        with asm.loop(rows, carry=state) as i, asm.loop(columns, carry=state) as j:
            state["n"] = state["n"] + (i * 10 + j)
        asm.store_index(state["n"], out)

    run(target, body, found, 3, 4)
    assert found[0] == sum(10 * i + j for i in range(3) for j in range(4))


@pytest.mark.parametrize("flag", [0, 1])
def test_when_runs_its_body_only_if_the_condition_holds(target: Target, flag: int) -> None:
    found = _words(-1)

    def body(asm: Assembler, out: Value, condition: Value) -> None:
        with asm.when(condition > 0):
            asm.store_index(7, out)

    run(target, body, found, flag)
    assert found[0] == (7 if flag else -1)


def test_repeat_ends_where_it_is_told_to(target: Target) -> None:
    found = _words(0, 0)

    def body(asm: Assembler, out: Value) -> None:
        with asm.repeat() as again:
            count = asm.load_index(out) + 1
            asm.store_index(count, out)
            again.stop_when(count >= 5)
            asm.store_index(count, out, 1)

    run(target, body, found)
    assert list(found) == [5, 4]


def test_functions_call_one_another_and_addresses(target: Target) -> None:
    found = _words(0, 0)

    def body(asm: Assembler, out: Value, a: Value) -> None:
        with asm.function("inner", to="pointer", value="index") as (to, value):
            asm.store_index(value * 2, to)
        asm.call("inner", out, a)
        asm.call("inner", asm.index_pointer(out, 1), 21)

    run(target, body, found, 5)
    assert list(found) == [10, 42]


# Atomic words


def test_atomic_updates_return_what_was_there(target: Target) -> None:
    word, before = _words(12), _words(0, 0, 0, 0)

    def body(asm: Assembler, p: Value, out: Value) -> None:
        asm.store_index(asm.atomic_add(5, p), out, 0)
        asm.store_index(asm.atomic_and(0x1D, p), out, 1)
        asm.store_index(asm.atomic_or(0x20, p), out, 2)
        asm.store_index(asm.atomic_load(p), out, 3)
        asm.atomic_store(-4, p)

    run(target, body, word, before)
    assert list(before) == [12, 17, 17, 49]
    assert word[0] == -4


@pytest.mark.parametrize("expected", [3, 4])
def test_compare_exchange_replaces_only_what_it_expects(target: Target, expected: int) -> None:
    word, found = _words(3), _words(0, 0)

    def body(asm: Assembler, p: Value, out: Value, old: Value) -> None:
        seen, won = asm.compare_exchange(p, 0, old, 9)
        asm.store_index(seen, out, 0)
        asm.store_index(asm.select(won, 1, 0), out, 1)

    run(target, body, word, found, expected)
    assert list(found) == [3, expected == 3]
    assert word[0] == (9 if expected == 3 else 3)
