"""The codelets are discrete Fourier transforms, to the last bits of a double, in few ops."""

from __future__ import annotations

import cmath
import math
import random

import pytest

from nnpack.maths.dft import (
    Complex,
    complex_dft,
    complex_inverse,
    cosine,
    real_dft,
    real_inverse,
    sine,
)
from nnpack.maths.expression import Formula, Term
from nnpack.maths.program import LinearProgram, evaluate

LENGTHS = [1, 2, 4, 8, 16, 32]
EXACT = 1e-13


def paired(terms: list[Term]) -> list[Complex]:
    return [Complex(re, im) for re, im in zip(terms[0::2], terms[1::2], strict=True)]


def flat(numbers: list[Complex]) -> list[Term]:
    return [part for number in numbers for part in (number.re, number.im)]


def complex_program(n: int) -> LinearProgram:
    formula = Formula(2 * n)
    return formula.program(flat(complex_dft(paired(formula.inputs))))


def real_program(n: int) -> LinearProgram:
    formula = Formula(n)
    return formula.program(flat(real_dft(formula.inputs)))


def inverse_program(n: int) -> LinearProgram:
    """Inputs: the spectrum 0 ... n / 2, the first and last imaginary parts being ignored."""
    formula = Formula(n + 2)
    spectrum = paired(formula.inputs)
    spectrum[0], spectrum[-1] = (
        Complex(end.re, formula.zero) for end in (spectrum[0], spectrum[-1])
    )
    return formula.program(real_inverse(spectrum))


def transform(x: list[complex]) -> list[complex]:
    n = len(x)
    return [
        sum(value * cmath.exp(-2j * math.pi * j * k / n) for j, value in enumerate(x))
        for k in range(n)
    ]


def random_complex(n: int) -> list[complex]:
    rng = random.Random(n)
    return [complex(rng.gauss(0, 1), rng.gauss(0, 1)) for _ in range(n)]


def parts(numbers: list[complex]) -> list[float]:
    return [part for number in numbers for part in (number.real, number.imag)]


@pytest.mark.parametrize("n", LENGTHS)
def test_complex_transforms(n: int) -> None:
    x = random_complex(n)
    result = evaluate(complex_program(n), parts(x))
    assert result == pytest.approx(parts(transform(x)), abs=EXACT * n)


@pytest.mark.parametrize("n", LENGTHS)
def test_the_inverse_is_n_times_the_inverse(n: int) -> None:
    formula = Formula(2 * n)
    program = formula.program(flat(complex_inverse(paired(formula.inputs))))
    x = random_complex(n)
    assert evaluate(program, parts(transform(x))) == pytest.approx(
        [n * part for part in parts(x)], abs=EXACT * n
    )


@pytest.mark.parametrize("n", LENGTHS)
def test_real_transforms_are_half_of_the_complex_ones(n: int) -> None:
    x = [number.real for number in random_complex(n)]
    expected = transform([complex(value) for value in x])[: n // 2 + 1]
    assert evaluate(real_program(n), x) == pytest.approx(parts(expected), abs=EXACT * n)


@pytest.mark.parametrize("n", LENGTHS[1:])
def test_the_real_inverse_takes_halved_ends(n: int) -> None:
    x = [number.real for number in random_complex(n)]
    spectrum = transform([complex(value) for value in x])[: n // 2 + 1]
    spectrum[0] /= 2
    spectrum[-1] /= 2
    result = evaluate(inverse_program(n), parts(spectrum))
    assert result == pytest.approx([n / 2 * value for value in x], abs=EXACT * n)


@pytest.mark.parametrize(
    ("n", "of_complex", "of_real", "of_inverse"),
    [
        (2, (4, 1), (2, 1), (2, 1)),
        (4, (16, 2), (6, 2), (6, 2)),
        (8, (52, 4), (21, 4), (22, 4)),
        (16, (144, 5), (61, 5), (62, 5)),
    ],
)
def test_instructions_and_their_longest_chain(
    n: int, of_complex: tuple[int, int], of_real: tuple[int, int], of_inverse: tuple[int, int]
) -> None:
    """Split-radix has 168 additions and multiplications of 16 complex numbers: fma saves 24."""
    programs = complex_program(n), real_program(n), inverse_program(n)
    counts = [(len(program.ops), program.depth) for program in programs]
    assert counts == [of_complex, of_real, of_inverse]


def test_constants_are_few_and_at_most_1() -> None:
    expected = {math.sqrt(0.5), math.cos(math.pi / 8), math.tan(math.pi / 8)}
    for program in (complex_program(16), real_program(16), inverse_program(16)):
        assert sorted(program.constants) == pytest.approx(sorted(expected))


@pytest.mark.parametrize("n", [8, 16, 32])
def test_angles_of_equal_cosine_give_the_same_bits(n: int) -> None:
    for k in range(-n, 2 * n):
        assert cosine(k, n) == pytest.approx(math.cos(2 * math.pi * k / n), abs=1e-14)
        assert sine(k, n) == pytest.approx(math.sin(2 * math.pi * k / n), abs=1e-14)
        assert abs(cosine(k, n)) == abs(sine(k + n // 4, n)) == abs(cosine(n // 2 - k, n))
