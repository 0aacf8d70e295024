"""Linear programs compute their matrix exactly, in few instructions."""

from __future__ import annotations

import random
import struct
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest

from nnpack.maths.cook_toom import cook_toom
from nnpack.maths.program import LinearProgram, Op, evaluate, linear_program

if TYPE_CHECKING:
    from nnpack.maths.program import Matrix

SIZES = [(m, r) for m in range(1, 9) for r in range(1, 8) if m + r - 1 <= 12]
ABSOLUTE = {"sub": "add", "fms": "fma", "fnma": "fma"}


def product(matrix: Matrix, values: list[Fraction]) -> list[Fraction]:
    return [sum((c * v for c, v in zip(row, values, strict=True)), Fraction(0)) for row in matrix]


def assert_computes(matrix: Matrix) -> None:
    rng = random.Random(1)
    values = [Fraction(rng.randint(-999, 999), 7) for _ in matrix[0]]
    assert evaluate(linear_program(matrix), values) == product(matrix, values)


def absolute(program: LinearProgram) -> LinearProgram:
    """The program with every sign made positive."""
    ops = tuple(
        Op(
            ABSOLUTE.get(op.kind, op.kind),  # type: ignore[arg-type]
            op.operands,
            op.constant if op.constant is None or op.constant > 0 else -op.constant,
        )
        for op in program.ops
        if op.kind != "neg"
    )
    assert len(ops) == len(program.ops)
    return LinearProgram(program.inputs, ops, program.outputs)


@pytest.mark.parametrize(("m", "r"), SIZES)
def test_programs_of_every_transform_are_exact(m: int, r: int) -> None:
    f = cook_toom(m, r)
    for matrix in (f.input, f.kernel, f.output):
        assert_computes(matrix)


def test_programs_of_random_matrices_are_exact() -> None:
    rng = random.Random(2)
    coefficients = [Fraction(c) for c in (-3, -1, -1, 0, 0, 1, 1, 2)]
    for _ in range(300):
        rows, columns = rng.randint(1, 5), rng.randint(1, 5)
        assert_computes(
            tuple(tuple(rng.choice(coefficients) for _ in range(columns)) for _ in range(rows))
        )


@pytest.mark.parametrize(("m", "r"), SIZES)
def test_each_coefficient_has_one_path(m: int, r: int) -> None:
    """With all signs positive the program computes |matrix|: nothing was added to be cancelled."""
    f = cook_toom(m, r)
    for matrix in (f.input, f.kernel, f.output):
        values = [Fraction(10**j) for j in range(len(matrix[0]))]
        magnitudes = tuple(tuple(abs(c) for c in row) for row in matrix)
        assert evaluate(absolute(linear_program(matrix)), values) == product(magnitudes, values)


@pytest.mark.parametrize(
    ("m", "r", "ops", "depths"),
    [
        (2, 3, (4, 4, 4), (1, 3, 2)),
        (4, 3, (12, 9, 10), (2, 3, 3)),
        (6, 3, (24, 12, 20), (3, 3, 4)),
        (3, 4, (12, 11, 9), (2, 3, 3)),
        (4, 5, (24, 18, 16), (3, 4, 4)),
        (8, 3, (40, 17, 36), (4, 3, 5)),
    ],
)
def test_instructions_and_their_longest_chain(
    m: int, r: int, ops: tuple[int, int, int], depths: tuple[int, int, int]
) -> None:
    f = cook_toom(m, r)
    programs = [linear_program(matrix) for matrix in (f.input, f.kernel, f.output)]
    assert tuple(len(program.ops) for program in programs) == ops
    assert tuple(program.depth for program in programs) == depths


def test_f_2_3_needs_no_multiplication() -> None:
    f = cook_toom(2, 3)
    for matrix in (f.input, f.output):
        assert linear_program(matrix).constants == ()
        assert {op.kind for op in linear_program(matrix).ops} <= {"add", "sub"}


def test_constants_of_the_input_transforms_are_exact_in_float32() -> None:
    for m in (2, 4, 6):
        for constant in linear_program(cook_toom(m, 3).input).constants:
            assert Fraction(struct.unpack("f", struct.pack("f", float(constant)))[0]) == constant


def test_a_row_of_zeros_has_no_value() -> None:
    zero, one = Fraction(0), Fraction(1)
    program = linear_program(((zero,), (one,)))
    assert program.outputs == (None, 0)
    assert program.depth == 0
    assert evaluate(program, [5]) == [0, 5]


def test_equal_rows_are_computed_once() -> None:
    row = (Fraction(2), Fraction(3))
    program = linear_program((row, row))
    assert len(program.ops) == 2
    assert program.outputs == (3, 3)
