"""Linear programs compute their matrix exactly, in few instructions."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest

from nnpack.maths.cook_toom import cook_toom
from nnpack.maths.program import Matrix, evaluate, linear_program

SIZES = [(m, r) for m in range(1, 9) for r in range(1, 8) if m + r - 1 <= 12]


def product(matrix: Matrix, values: list[Fraction]) -> list[Fraction]:
    return [sum((c * v for c, v in zip(row, values, strict=True)), Fraction(0)) for row in matrix]


def assert_computes(matrix: Matrix) -> None:
    rng = random.Random(1)
    values = [Fraction(rng.randint(-999, 999), 7) for _ in matrix[0]]
    assert evaluate(linear_program(matrix), values) == product(matrix, values)


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


def test_a_row_of_zeros_has_no_value() -> None:
    assert linear_program(((Fraction(0),), (Fraction(1),))).outputs == (None, 0)
