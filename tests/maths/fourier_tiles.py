"""Tiles by the programs of `maths.fourier`, in any precision, and what they should be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nnpack.maths.form import Form
from nnpack.maths.fourier import Side, input_side, kernel_side, output_side
from nnpack.maths.program import LinearProgram, evaluate

Array = np.ndarray[Any, Any]


def tiles(form: Form, d: Array, g: Array) -> Array:
    """(n - r_h + 1, n - r_w + 1, samples), computed channel after channel in the precision of d.

    d is (n, n, channels, samples), g (r_h, r_w, channels, 1).
    """
    n, (r_h, r_w) = form.n, g.shape[:2]
    scale = np.array(2 / n**2, g.dtype)
    inputs = _factors(input_side(form), form, d)
    weights = _factors(kernel_side(form, r_h, r_w), form, g * scale)
    return _inverse(output_side(form, n - r_h + 1, n - r_w + 1), _sums(form, inputs, weights))


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


def _run(program: LinearProgram, values: Sequence[Array]) -> list[Array]:
    def constant(number: Any) -> Any:
        return np.array(float(number), values[0].dtype)

    zero = np.zeros_like(values[0])
    return [value + zero for value in evaluate(program, values, constant)]


def _factors(side: Side, form: Form, x: Array) -> list[list[Array]]:
    """The factors of every column."""
    rows = [_run(side.row, list(row)) for row in x]
    real = [_run(side.real, [row[j] for row in rows]) for j in (0, 1)]
    pairs = ([row[2 * j + part] for row in rows for part in (0, 1)] for j in range(1, form.n // 2))
    return real + [_run(side.full, pair) for pair in pairs]


def _sums(form: Form, d: list[list[Array]], w: list[list[Array]]) -> list[list[Array]]:
    """Products summed over depth: factor by factor, or the two rows of every folded plane."""
    fold = form.fold
    return [
        [
            _running_sum(
                [(d_j[(plane * fold + row) * fold + k], w_j[plane * fold + k]) for k in range(fold)]
            )
            for plane in range(len(w_j) // fold)
            for row in range(fold)
        ]
        for d_j, w_j in zip(d, w, strict=True)
    ]


def _running_sum(factors: list[tuple[Array, Array]]) -> Array:
    products = [p for a, b in factors for p in a * b]
    total = products[0]
    for product in products[1:]:
        total = total + product
    return np.asarray(total)


def _inverse(side: Side, sums: list[list[Array]]) -> Array:
    real = [_run(side.real, values) for values in sums[:2]]
    full = [_run(side.full, values) for values in sums[2:]]
    rows = []
    for i in range(len(real[0])):
        pairs = [part for column in full for part in column[2 * i : 2 * i + 2]]
        rows.append(_run(side.row, [real[0][i], real[1][i], *pairs]))
    return np.array(rows)
