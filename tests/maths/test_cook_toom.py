"""Cook-Toom matrices are exact, for every F(m, r)."""

from __future__ import annotations

from fractions import Fraction

import pytest

from nnpack.maths.cook_toom import CookToom, cook_toom

SIZES = [(m, r) for m in range(1, 9) for r in range(1, 8) if m + r - 1 <= 12]


def assert_correlates(f: CookToom) -> None:
    """Each product of an input and a weight reaches the one output it belongs to, exactly."""
    for i in range(f.m):
        for a in range(f.t):
            for b in range(f.r):
                reached = sum(f.output[i][j] * f.input[j][a] * f.kernel[j][b] for j in range(f.t))
                assert reached == (a - b == i)


@pytest.mark.parametrize(("m", "r"), SIZES)
def test_every_size_is_an_exact_correlation(m: int, r: int) -> None:
    assert_correlates(cook_toom(m, r))


@pytest.mark.parametrize(("m", "r"), SIZES)
def test_points_are_distinct(m: int, r: int) -> None:
    points = cook_toom(m, r).points
    assert len(set(points)) == len(points)


def test_any_distinct_points_will_do() -> None:
    assert_correlates(cook_toom(3, 3, tuple(Fraction(p) for p in (3, 1, -2, 5))))


@pytest.mark.parametrize(
    ("m", "r", "points"), [(0, 3, None), (2, 0, None), (2, 3, (Fraction(1),) * 3)]
)
def test_impossible_arguments_are_refused(
    m: int, r: int, points: tuple[Fraction, ...] | None
) -> None:
    with pytest.raises(ValueError, match="needs"):
        cook_toom(m, r, points)
