"""The error of convolutions by Fourier tiles in float32: what is certain (see `expectation`).

With the absolute values of all coefficients, |B| of the input, |G| of the kernel and |A| of the
output side, one tile of one output channel is

    y = A [ sum_c (B d_c) * (G g_c) ]

over the planes of a `Form`, d_c the n x n inputs and g_c the weights of channel c.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

from nnpack.maths.expectation import UNIT_ROUNDOFF
from nnpack.maths.fourier import Side, input_side, kernel_side, output_side
from nnpack.maths.program import LinearProgram, Op, evaluate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nnpack.maths.form import Form
    from nnpack.maths.program import Kind

_ROUNDINGS_PER_OP = 3

_ABSOLUTE: Mapping[Kind, Kind] = {"sub": "add", "fms": "fma", "fnma": "fma"}


def error_limit(form: Form, r_h: int, r_w: int, channels: int) -> float:
    """E with ``|error| <= E * max(full(|x|, |weight|))`` for any data without over- or underflow.

    ``full`` is the convolution at every place where kernel and image overlap at all, of which
    `accuracy.error_limit` says why less does not do.

    Proof. At most N = 3 (sum of the depths of the six programs) + fold * channels roundings act on
    any product of an input and a weight on its way to the output (Higham, 2002, section 3.1), so

        |error| <= gamma_N |A| [ sum_c (|B| |d_c|) * (|G| |g_c|) ],   gamma_N = N u / (1 - N u),

    where |A|, |B| and |G| are what the programs compute with every sign positive. In plane p, the
    brackets are at most ``max_a |B_pa| max_b |G_pb|`` times ``sum_c |d_c|_1 |g_c|_1``. That sum is
    the sum of ``full`` of the tile over its ``(n + r_h - 1) (n + r_w - 1)`` places.
    """
    sides = input_side(form), kernel_side(form, r_h, r_w), output_side(form, 1, 1)
    depth = sum(side.row.depth + max(side.real.depth, side.full.depth) for side in sides)
    roundings = _ROUNDINGS_PER_OP * depth + form.fold * channels
    gamma = roundings * UNIT_ROUNDOFF / (1 - roundings * UNIT_ROUNDOFF)
    places = (form.n + r_h - 1) * (form.n + r_w - 1)
    return gamma * places * worst_amplification(form, r_h, r_w)


@lru_cache(maxsize=256)
def worst_amplification(form: Form, r_h: int, r_w: int) -> float:
    """``max_i sum_p |A_ip| max_a |B_pa| max_b |G_pb|``, at least ``max_(i, a, b)`` of the sum."""
    n = form.n
    scale = 2.0 / n**2
    d = _greatest(input_side(form), n)
    w = [[scale * v for v in column] for column in _greatest(kernel_side(form, r_h, r_w), n)]
    sums = [_products(form, column, weights) for column, weights in zip(d, w, strict=True)]
    output = output_side(form, n - r_h + 1, n - r_w + 1)
    columns = [
        evaluate(absolute(output.real if j < 2 else output.full), values)
        for j, values in enumerate(sums)
    ]
    first, last, *inner = columns
    rows = (
        [first[i], last[i], *(part for c in inner for part in c[2 * i : 2 * i + 2])]
        for i in range(n - r_h + 1)
    )
    return float(max(max(evaluate(absolute(output.row), row)) for row in rows))


def _products(form: Form, d: Sequence[float], w: Sequence[float]) -> list[float]:
    """The products of one column; a folded plane has the factors ``d[row][depth] w[depth]``."""
    fold = form.fold
    return [
        sum(
            d[plane * fold * fold + row * fold + depth] * w[plane * fold + depth]
            for depth in range(fold)
        )
        for plane in range(len(w) // fold)
        for row in range(fold)
    ]


def _greatest(side: Side, n: int) -> list[list[float]]:
    """For every column and factor, a bound of what one input of 1 makes of it."""
    taps = side.row.inputs
    units = ([float(a == b) for a in range(taps)] for b in range(taps))
    responses = [evaluate(absolute(side.row), unit) for unit in units]
    row = [max(response[j] for response in responses) for j in range(n)]
    columns = [(side.real, row[:1]), (side.real, row[1:2])]
    columns += [(side.full, row[2 * j : 2 * j + 2]) for j in range(1, n // 2)]
    return [_greatest_in_column(program, entry) for program, entry in columns]


def _greatest_in_column(program: LinearProgram, entry: Sequence[float]) -> list[float]:
    """The greatest outputs of a column that is zero but for ``entry`` in one of its rows."""
    parts = len(entry)
    responses = []
    for i in range(0, program.inputs, parts):
        column = [*[0.0] * i, *entry, *[0.0] * (program.inputs - parts - i)]
        responses.append(evaluate(absolute(program), column))
    return [max(values) for values in zip(*responses, strict=True)]


def absolute(program: LinearProgram) -> LinearProgram:
    """The program with every sign made positive."""
    ops = tuple(_absolute(op) for op in program.ops)
    return LinearProgram(program.inputs, ops, program.outputs)


def _absolute(op: Op) -> Op:
    if op.kind == "neg":
        return Op("mul", op.operands, 1.0)
    constant = None if op.constant is None else math.fabs(op.constant)
    return Op(_ABSOLUTE.get(op.kind, op.kind), op.operands, constant)
