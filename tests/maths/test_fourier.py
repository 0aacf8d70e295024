"""Tiles in the Fourier domain are correlations, for every kernel that fits, in few instructions."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

from nnpack.maths.form import Form
from nnpack.maths.fourier import input_side, kernel_side, output_side
from tests.maths.fourier_tiles import correlation, tiles

FORMS = [Form(n, count) for n in (8, 16) for count in (3, 4)]
BY_FORM = pytest.mark.parametrize("form", FORMS, ids=lambda f: f"{f.n}-by-{f.multiplications}")


@BY_FORM
@pytest.mark.parametrize("r_h", range(1, 17))
def test_every_kernel_that_fits(form: Form, r_h: int) -> None:
    if r_h > form.n:
        return
    rng = np.random.default_rng(r_h)
    for r_w in {1, 2, 3, 5, r_h, form.n - 1, form.n}:
        d, g = rng.standard_normal((form.n, form.n, 2, 3)), rng.standard_normal((r_h, r_w, 2, 1))
        np.testing.assert_allclose(tiles(form, d, g), correlation(d, g), rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    ("n", "count", "planes"), [(8, 3, 94), (8, 4, 32), (16, 3, 382), (16, 4, 128)]
)
def test_planes(n: int, count: Literal[3, 4], planes: int) -> None:
    assert Form(n, count).planes == planes


@pytest.mark.parametrize(
    ("n", "count", "r", "ops"),
    [
        (8, 3, 3, ((21, 25, 60), (10, 16, 46), (20, 26, 64))),
        (8, 3, 5, ((21, 25, 60), (14, 22, 64), (17, 23, 60))),
        (16, 3, 5, ((61, 69, 160), (32, 46, 126), (58, 72, 168))),
        (16, 4, 5, ((61, 68, 160), (32, 34, 90), (58, 58, 136))),
        (16, 3, 7, ((61, 69, 160), (39, 52, 136), (55, 69, 164))),
    ],
)
def test_instructions(
    n: int, count: Literal[3, 4], r: int, ops: tuple[tuple[int, ...], ...]
) -> None:
    """Of a row, a real and a complex column, on each side: what is not needed is not computed."""
    form = Form(n, count)
    sides = input_side(form), kernel_side(form, r, r), output_side(form, n - r + 1, n - r + 1)
    assert tuple(tuple(len(p.ops) for p in side.programs) for side in sides) == ops
