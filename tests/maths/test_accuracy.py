"""Expected errors are those measured in float32, and the limits hold for hostile data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nnpack.maths.accuracy import error_limit, worst_amplification
from nnpack.maths.cook_toom import CookToom, cook_toom
from nnpack.maths.expectation import expected_winograd_error
from nnpack.maths.program import Matrix, evaluate, linear_program

Array = np.ndarray[Any, Any]


def transform(h: Matrix, w: Matrix, x: Array) -> Array:
    """``h @ x @ w^T`` over the first two axes, in float32 by the programs."""
    for matrix in (h, w):
        rows = evaluate(linear_program(matrix), list(x), lambda c: np.float32(float(c)))
        x = np.stack(rows).swapaxes(0, 1)
    return x


def tiles(h: CookToom, w: CookToom, d: Array, g: Array) -> Array:
    """(h.m, w.m, n) from d (h.t, w.t, channels, n) and g (h.r, w.r, channels, 1), all float32."""
    products = transform(h.input, w.input, d) * transform(h.kernel, w.kernel, g)
    total = products[:, :, 0]
    for c in range(1, products.shape[2]):
        total = total + products[:, :, c]
    return transform(h.output, w.output, total)


def correlation(d: Array, g: Array) -> Array:
    """The float64 oracle, of the shape of ``tiles`` for whatever sizes d and g have."""
    d, g = d.astype(np.float64), g.astype(np.float64)
    height, width = (d.shape[axis] - g.shape[axis] + 1 for axis in (0, 1))
    terms = [
        (d[a : a + height, b : b + width] * g[a, b]).sum(axis=2)
        for a in range(g.shape[0])
        for b in range(g.shape[1])
    ]
    return np.asarray(sum(terms))


def full_magnitude(d: Array, g: Array) -> Array:
    """(n,): the greatest value of the full convolution of |d| and |g|."""
    rows, columns = g.shape[0] - 1, g.shape[1] - 1
    padded = np.pad(abs(d), ((rows, rows), (columns, columns), (0, 0), (0, 0)))
    return np.asarray(correlation(padded, abs(g)).max(axis=(0, 1)))


@pytest.mark.parametrize(
    ("down", "across"),
    [((2, 3), (2, 3)), ((4, 3), (4, 3)), ((6, 3), (6, 3)), ((4, 5), (4, 5)), ((1, 1), (3, 6))],
)
@pytest.mark.parametrize("channels", [16, 128])
def test_expected_errors_are_within_a_quarter_of_measured_ones(
    down: tuple[int, int], across: tuple[int, int], channels: int
) -> None:
    h, w = cook_toom(*down), cook_toom(*across)
    rng = np.random.default_rng(3)
    d = rng.standard_normal((h.t, w.t, channels, 200), dtype=np.float32)
    g = rng.standard_normal((h.r, w.r, channels, 1), dtype=np.float32)
    reference = correlation(d, g)
    error = tiles(h, w, d, g) - reference
    relative_l2, greatest = expected_winograd_error(
        h.output_amplifications, w.output_amplifications, channels
    )
    assert np.linalg.norm(error) / np.linalg.norm(reference) == pytest.approx(relative_l2, rel=0.25)
    # The extreme of a sample scatters more than its mean.
    assert 0.5 < abs(error).max() / abs(reference).max() / greatest < 1.7


@pytest.mark.parametrize(
    ("m", "relative_l2", "greatest"),
    [(2, 4.8e-7, 6.5e-7), (4, 1.4e-6, 3.0e-6), (6, 6.2e-6, 1.8e-5)],
)
def test_expected_errors_at_256_channels(m: int, relative_l2: float, greatest: float) -> None:
    kappas = cook_toom(m, 3).output_amplifications
    assert expected_winograd_error(kappas, kappas, 256) == pytest.approx(
        (relative_l2, greatest), rel=0.05
    )


@pytest.mark.parametrize("sizes", [(1, 3), (2, 3), (4, 3), (6, 3), (2, 7)])
@pytest.mark.parametrize("decades", [0, 3, 9])
def test_limits_hold_for_data_of_many_magnitudes(sizes: tuple[int, int], decades: int) -> None:
    f = cook_toom(*sizes)
    rng = np.random.default_rng(4)

    def wild(*shape: int) -> Array:
        magnitudes = 10.0 ** rng.uniform(-decades, decades, shape)
        return (rng.standard_normal(shape) * magnitudes).astype(np.float32)

    d, g = wild(f.t, f.t, 3, 500), wild(f.r, f.r, 3, 1)
    errors = abs(tiles(f, f, d, g) - correlation(d, g)).max(axis=(0, 1))
    assert (errors <= error_limit(f, f, 3) * full_magnitude(d, g)).all()


def test_limits_do_not_hold_relative_to_the_outputs_of_a_cropped_convolution() -> None:
    """The image's first row times the kernel's last is in no output, yet adds to the error."""
    f, one = cook_toom(2, 3), cook_toom(1, 1)
    d = np.array([0, 1e6, 0.1, 0], np.float32).reshape(4, 1, 1, 1)
    g = np.array([0, 0, 1], np.float32).reshape(3, 1, 1, 1)
    error = abs(tiles(f, one, d, g) - correlation(d, g)).max()
    assert error > error_limit(f, one, 1) * correlation(abs(d), abs(g)).max()
    assert error <= error_limit(f, one, 1) * full_magnitude(d, g).max()


def test_direct_summation_amplifies_nothing() -> None:
    assert worst_amplification(cook_toom(1, 5)) == worst_amplification(cook_toom(5, 1)) == 1
