"""Cook-Toom matrices are exact for every F(m, r), and their points the best of their kind."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from nnpack.maths.cook_toom import CookToom, bounded_cook_toom, cook_toom, default_points

if TYPE_CHECKING:
    from nnpack.maths.program import Matrix, Vector

SIZES = [(m, r) for m in range(1, 9) for r in range(1, 8) if m + r - 1 <= 12]
EIGHTHS = [Fraction(n, 8) for n in range(1, 33)]


def assert_correlates(f: CookToom, first: int = 0) -> None:
    """Each product of an input, from ``first`` on, and a weight reaches its one output, exactly."""
    for i in range(f.m):
        for a in range(len(f.input[0])):
            weighted = [f.output[i][j] * f.input[j][a] for j in range(f.t)]
            for b in range(f.r):
                reached = sum(v * row[b] for v, row in zip(weighted, f.kernel, strict=True))
                assert reached == (first + a - b == i)


@pytest.mark.parametrize(("m", "r"), SIZES)
def test_every_size_is_an_exact_correlation(m: int, r: int) -> None:
    assert_correlates(cook_toom(m, r))


@pytest.mark.parametrize(("m", "r"), [(1, 3), (2, 3), (4, 3), (2, 5), (3, 4)])
def test_few_inputs_take_as_many_products_less(m: int, r: int) -> None:
    for count in range(1, r):
        for first in range(m + r - count):
            f = bounded_cook_toom(m, r, first, count)
            assert f.t == m + count - 1
            assert_correlates(f, first)


@pytest.mark.parametrize(("m", "r"), [(1, 4), (4, 1), (1, 1)])
def test_given_points_are_used_in_degenerate_sizes_too(m: int, r: int) -> None:
    f = cook_toom(m, r, default_points(m + r - 2))
    assert len(f.points) == m + r - 2
    assert_correlates(f)


def test_any_distinct_points_will_do() -> None:
    assert_correlates(cook_toom(3, 3, tuple(Fraction(p) for p in (3, 1, -2, 5))))


def numbers(matrix: Matrix) -> list[list[Fraction | int]]:
    return [list(row) for row in matrix]


def test_f_2_3_is_the_textbook_one() -> None:
    """Lavin and Gray (2016), equation 7, up to the order of rows and one sign."""
    f = cook_toom(2, 3)
    half = Fraction(1, 2)
    assert numbers(f.input) == [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, -1, 0, 1]]
    assert numbers(f.kernel) == [[1, 0, 0], [half, half, half], [half, -half, half], [0, 0, 1]]
    assert numbers(f.output) == [[1, 1, 1, 0], [0, 1, -1, 1]]


@pytest.mark.parametrize("count", range(41))
def test_default_points_are_distinct_pairs(count: int) -> None:
    points = default_points(count)
    assert len(points) == len(set(points)) == count
    assert set(points) == {-p for p in points}


def exchanges(points: Vector) -> list[Vector]:
    """All sets of points in which another multiple of 1/8 stands for one pair."""
    zero, pairs = points[: len(points) % 2], points[len(points) % 2 :: 2]
    return [
        (*zero, *(q for p in pairs for q in ((new, -new) if p == old else (p, -p))))
        for old in pairs
        for new in EIGHTHS
        if new not in pairs
    ]


@pytest.mark.parametrize("t", range(3, 15))
def test_exchanging_a_pair_of_points_raises_the_expected_error(t: int) -> None:
    r = min(3, t - 1)
    best = cook_toom(t + 1 - r, r)
    for points in exchanges(best.points):
        assert cook_toom(best.m, r, points).amplification > best.amplification


def test_the_expected_error_grows_with_the_tile() -> None:
    assert [cook_toom(1, 3).amplification, cook_toom(3, 1).amplification] == pytest.approx([1, 1])
    kappas = [cook_toom(m, 3).amplification for m in range(1, 9)]
    assert all(a < b for a, b in pairwise(kappas))
    assert [kappas[m - 1] for m in (2, 4, 6)] == pytest.approx([1.29, 2.19, 4.54], abs=0.005)


@pytest.mark.parametrize(
    ("m", "r", "points"),
    [(0, 3, None), (2, 0, None), (2, 3, (Fraction(1),) * 3), (2, 3, (Fraction(0), Fraction(1)))],
)
def test_impossible_arguments_are_refused(m: int, r: int, points: Vector | None) -> None:
    with pytest.raises(ValueError, match="needs"):
        cook_toom(m, r, points)
