"""Expected errors of Fourier tiles are those measured in float32; the limits hold for any data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nnpack.maths.expectation import UNIT_ROUNDOFF, expected_fourier_error
from nnpack.maths.form import Form
from nnpack.maths.fourier_accuracy import error_limit, worst_amplification
from tests.maths.fourier_tiles import correlation, tiles

Array = np.ndarray[Any, Any]

FORMS = [Form(n, count) for n in (8, 16) for count in (3, 4)]
BY_FORM = pytest.mark.parametrize("form", FORMS, ids=lambda f: f"{f.n}-by-{f.multiplications}")


@BY_FORM
@pytest.mark.parametrize("taps", [3, 7])
@pytest.mark.parametrize("channels", [1, 16, 128])
def test_expected_errors_are_within_a_quarter_of_measured_ones(
    form: Form, taps: int, channels: int
) -> None:
    rng = np.random.default_rng(3)
    samples = 12800 // form.n**2 // channels + 640 // (form.n - taps + 1) ** 2
    d = rng.standard_normal((form.n, form.n, channels, samples), dtype=np.float32)
    g = rng.standard_normal((taps, taps, channels, 1), dtype=np.float32)
    reference = correlation(d, g)
    error = tiles(form, d, g) - reference
    relative_l2, greatest = expected_fourier_error(form.n, channels)
    assert np.linalg.norm(error) / np.linalg.norm(reference) == pytest.approx(relative_l2, rel=0.25)
    # The extreme of a sample scatters more than its mean.
    assert 0.5 < abs(error).max() / abs(reference).max() / greatest < 1.7


def test_tiles_are_exact_in_the_sense_of_the_promise() -> None:
    """accuracy="exact" allows 1e-6 in the Euclidean norm and 2e-6 at most, chains of 512."""
    relative_l2, greatest = expected_fourier_error(16, 520)
    assert relative_l2 < 1e-6
    assert greatest < 2e-6


def _wild(rng: np.random.Generator, decades: int, *shape: int) -> Array:
    magnitudes = 10.0 ** rng.uniform(-decades, decades, shape)
    return (rng.standard_normal(shape) * magnitudes).astype(np.float32)


@BY_FORM
@pytest.mark.parametrize("decades", [0, 3, 9])
def test_limits_hold_for_data_of_many_magnitudes(form: Form, decades: int) -> None:
    rng = np.random.default_rng(4)
    n = form.n
    d, g = _wild(rng, decades, n, n, 3, 20), _wild(rng, decades, 5, 3, 3, 1)
    errors = abs(tiles(form, d, g) - correlation(d, g)).max(axis=(0, 1))
    full = correlation(np.pad(abs(d), ((4, 4), (2, 2), (0, 0), (0, 0))), abs(g)).max(axis=(0, 1))
    assert (errors <= error_limit(form, 5, 3, 3) * full).all()


@BY_FORM
def test_the_amplification_is_of_the_order_of_1(form: Form) -> None:
    assert 1 <= worst_amplification(form, 5, 5) <= 11
    assert error_limit(form, 5, 5, 64) < 100_000 * 64 * UNIT_ROUNDOFF
