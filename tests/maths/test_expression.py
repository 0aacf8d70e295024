"""Formulae become programs that compute them, with nothing in them that is not needed."""

from __future__ import annotations

import pytest

from nnpack.maths.expression import Formula, Term, without_dead_code
from nnpack.maths.program import LinearProgram, Op, evaluate


def program_of(count: int, *outputs: Term) -> LinearProgram:
    assert outputs
    program = outputs[0].formula.program(outputs)
    assert program.inputs == count
    return program


def kinds(program: LinearProgram) -> list[str]:
    return [op.kind for op in program.ops]


def test_a_multiple_is_fused_into_the_sum_it_is_used_in() -> None:
    a, b = Formula(2).inputs
    program = program_of(2, a + b * 0.5, a - b * 0.5)
    assert kinds(program) == ["fma", "fnma"]
    assert program.constants == (0.5,)
    assert evaluate(program, [3.0, 4.0]) == [5.0, 1.0]


def test_the_greater_factor_stays_outside() -> None:
    a, b = Formula(2).inputs
    program = program_of(2, (a * 0.25 + b * 0.5) * 2.0)
    assert kinds(program) == ["fma"]
    assert evaluate(program, [8.0, 1.0]) == [5.0]


def test_equal_sums_are_one_op_whatever_their_order_and_sign() -> None:
    a, b, c = Formula(3).inputs
    program = program_of(3, c + (a - b), c - (b - a), c + (b * 3.0 - a * 3.0) * (-1 / 3))
    assert kinds(program) == ["sub", "add"]
    assert program.outputs == (4, 4, 4)


def test_zeros_vanish() -> None:
    a, b = Formula(2).inputs
    program = program_of(2, a + b * 0.0, b * 0.0, a.formula.zero + b)
    assert program.ops == ()
    assert program.outputs == (0, None, 1)


def test_a_negative_output_is_a_difference_the_other_way_round() -> None:
    a, b = Formula(2).inputs
    program = program_of(2, -(a - b), -(a - b * 0.5), -a)
    assert kinds(program) == ["sub", "fms", "neg"]
    assert evaluate(program, [3.0, 5.0]) == [2.0, -0.5, -3.0]


def test_a_factor_of_an_output_is_a_multiplication() -> None:
    a, b = Formula(2).inputs
    program = program_of(2, (a + b) * 0.5)
    assert kinds(program) == ["add", "mul"]
    assert evaluate(program, [1.0, 2.0]) == [1.5]


def test_what_no_output_needs_is_left_out() -> None:
    ops = (Op("add", (0, 1)), Op("sub", (0, 1)), Op("mul", (3,), 2.0))
    program = without_dead_code(LinearProgram(2, ops, (4, None)))
    assert program.ops == (Op("sub", (0, 1)), Op("mul", (2,), 2.0))
    assert program.outputs == (3, None)


@pytest.mark.parametrize("scale", [1.0, -1.0, 0.5])
def test_subtraction_is_addition_of_the_opposite(scale: float) -> None:
    a, b = Formula(2).inputs
    program = program_of(2, a * scale - b)
    assert evaluate(program, [7.0, 2.0]) == [7.0 * scale - 2.0]
