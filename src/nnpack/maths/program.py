"""Short straight-line programs for products with a constant matrix.

A transform matrix is applied once to every tile, so what counts is the number of vector
instructions and the length of the chains they form.  Two properties of Cook-Toom matrices with
points in pairs ``+p, -p`` halve the work (Lavin and Gray, 2016, section 4.3; Winograd, 1980):

* the *rows* of the input and the kernel transform for ``+p`` and ``-p`` agree in the even columns
  and are opposite in the odd ones, so they are ``e + o`` and ``e - o`` with ``e`` and ``o`` formed
  once;
* the *columns* of the output transform are such pairs too, so only ``s = v(p) + v(-p)`` and
  ``d = v(p) - v(-p)`` take part in its sums.

What remains are short sums, no two of which share terms in the same proportion, so a search for
common subexpressions finds nothing more.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Vector = tuple[Fraction, ...]
Matrix = tuple[Vector, ...]
Kind = Literal["add", "sub", "mul", "fma", "fms", "fnma", "neg"]
Number = Fraction | float
"""A constant: exact where it is rational."""

Row = dict[int, Fraction]
"""A linear combination: the non-zero coefficient of each value that takes part."""


@dataclass(frozen=True, slots=True)
class Op:
    """One vector instruction on values ``a`` (and ``b``) with the constant ``c``.

    ``add`` a + b, ``sub`` a - b, ``mul`` a c, ``fma`` a c + b, ``fms`` a c - b, ``fnma`` b - a c,
    ``neg`` -a.  ``operands`` are the indices of a and b; ``constant`` is c or None.
    """

    kind: Kind
    operands: tuple[int, ...]
    constant: Number | None = None


@dataclass(frozen=True, slots=True)
class LinearProgram:
    """``outputs = matrix @ inputs`` as instructions in single-assignment form.

    Values are numbered: the ``inputs`` first, then the result of each op in order, and every op
    uses lower numbers only.  ``outputs[i]`` is the value of row i, or None where the row is zero.
    """

    inputs: int
    ops: tuple[Op, ...]
    outputs: tuple[int | None, ...]

    @property
    def constants(self) -> tuple[Number, ...]:
        """The distinct constants, in order of first use."""
        used = (op.constant for op in self.ops)
        return tuple(dict.fromkeys(constant for constant in used if constant is not None))

    @property
    def depth(self) -> int:
        """The number of ops on the longest chain from an input to an output."""
        depths = [0] * self.inputs
        for op in self.ops:
            depths.append(1 + max(depths[operand] for operand in op.operands))
        return max((depths[output] for output in self.outputs if output is not None), default=0)


@lru_cache(maxsize=256)
def linear_program(matrix: Matrix) -> LinearProgram:
    """Return the shortest program found for ``matrix @ inputs``; among equals the shallowest.

    Butterflies are tried on the columns, on the rows, on both and on neither.  Each coefficient
    belongs to one path from an input to an output, so intermediate values never cancel that the
    matrix itself does not cancel, and rounding errors are those of plain sums.
    """
    choices = [(columns, rows) for columns in (False, True) for rows in (False, True)]
    programs = [_compile(matrix, columns=columns, rows=rows) for columns, rows in choices]
    return min(programs, key=lambda program: (len(program.ops), program.depth))


def evaluate(
    program: LinearProgram,
    values: Sequence[Any],
    constant: Callable[[Number], Any] = lambda value: value,
) -> list[Any]:
    """``matrix @ values`` by the program's own steps, over any type with +, - and *.

    ``constant`` converts the constants to the type they are multiplied in, such as ``float``.
    Rows that are zero come out as the integer 0.
    """
    values = list(values)
    for op in program.ops:
        c = None if op.constant is None else constant(op.constant)
        values.append(_result(op.kind, values[op.operands[0]], values[op.operands[-1]], c))
    return [0 if output is None else values[output] for output in program.outputs]


def _result(kind: Kind, a: Any, b: Any, c: Any) -> Any:
    match kind:
        case "add":
            return a + b
        case "sub":
            return a - b
        case "mul":
            return a * c
        case "fma":
            return a * c + b
        case "fms":
            return a * c - b
        case "fnma":
            return b - a * c
        case "neg":
            return -a


class _Builder:
    """Collects ops, each distinct one once."""

    def __init__(self, inputs: int) -> None:
        self.inputs = inputs
        self.ops: dict[Op, int] = {}

    def value(self, kind: Kind, *operands: int, constant: Fraction | None = None) -> int:
        op = Op(kind, operands, constant)
        return self.ops.setdefault(op, self.inputs + len(self.ops))

    def add_scaled(self, accumulator: int, coefficient: Fraction, value: int) -> int:
        """``accumulator + coefficient * value`` in one op.

        The constant is positive, so that the terms of +c and -c share one register.
        """
        if abs(coefficient) == 1:
            return self.value("add" if coefficient > 0 else "sub", accumulator, value)
        kind: Kind = "fma" if coefficient > 0 else "fnma"
        return self.value(kind, value, accumulator, constant=abs(coefficient))

    def sum(self, row: Row) -> int:
        """``sum(coefficient * value)`` as one chain: n - 1 ops if a coefficient is 1, else n."""
        (first, scale), *rest = sorted(row.items(), key=_summation_order)
        minus_one = next((term for term in rest if term[1] == -1), None)
        if scale == 1:
            accumulator = first
        elif scale > 0 and minus_one:
            rest.remove(minus_one)
            accumulator = self.value("fms", first, minus_one[0], constant=scale)
        elif scale == -1:
            accumulator = self.value("neg", first)
        else:
            accumulator = self.value("mul", first, constant=scale)
        for value, coefficient in rest:
            accumulator = self.add_scaled(accumulator, coefficient, value)
        return accumulator

    def butterfly(self, even: Row, odd: Row) -> tuple[int, int]:
        """``e + o`` and ``e - o``, one factor taken out of e or o and fused into both."""
        if _has_unit(odd) and not _has_unit(even):
            scale = _common_scale(even)
            e, o = self.sum(_divided(even, scale)), self.sum(odd)
            return self.value("fma", e, o, constant=scale), self.value("fms", e, o, constant=scale)
        scale = _common_scale(odd)
        e, o = self.sum(even), self.sum(_divided(odd, scale))
        return self.add_scaled(e, scale, o), self.add_scaled(e, -scale, o)


def _summation_order(term: tuple[int, Fraction]) -> tuple[bool, bool, bool, int]:
    """Sort a term that needs no op first, then the positive ones; inputs before later values."""
    value, coefficient = term
    return coefficient != 1, coefficient < 0, coefficient != -1, value


def _has_unit(row: Row) -> bool:
    return any(abs(coefficient) == 1 for coefficient in row.values())


def _divided(row: Row, scale: Fraction) -> Row:
    return {value: coefficient / scale for value, coefficient in row.items()}


def _common_scale(row: Row) -> Fraction:
    """Choose the positive factor that leaves ``row`` a 1 and the simplest other coefficients."""
    if _has_unit(row):
        return Fraction(1)
    scales = sorted({abs(coefficient) for coefficient in row.values()})
    return min(scales, key=lambda scale: sum(_complexity(c / scale) for c in row.values()))


def _complexity(value: Fraction) -> int:
    """Count the bits of a fraction, a divisor that makes it inexact in binary twice."""
    odd_divisor = value.denominator >> _trailing_zeros(value.denominator)
    return sum(n.bit_length() for n in (value.numerator, value.denominator, odd_divisor))


def _trailing_zeros(number: int) -> int:
    return (number & -number).bit_length() - 1


def _compile(matrix: Matrix, *, columns: bool, rows: bool) -> LinearProgram:
    builder = _Builder(len(matrix[0]))
    sparse = [{j: c for j, c in enumerate(row) if c} for row in matrix]
    if columns:
        _share_column_pairs(builder, sparse)
    outputs = _share_row_pairs(builder, sparse) if rows else {}
    for i, row in enumerate(sparse):
        if row and i not in outputs:
            outputs[i] = builder.sum(row)
    numbers = tuple(outputs.get(i) for i in range(len(matrix)))
    return LinearProgram(builder.inputs, tuple(builder.ops), numbers)


def _share_column_pairs(builder: _Builder, rows: list[Row]) -> None:
    """Rewrite columns i and j with ``|column i| == |column j|`` on their sum and difference."""
    free = {j for row in rows for j in row}
    for i, j in combinations(sorted(free), 2):
        users = [row for row in rows if i in row or j in row]
        paired = all(abs(row.get(i, 0)) == abs(row.get(j, 0)) for row in users)
        if not (paired and {i, j} <= free and len(users) >= 2):
            continue
        free -= {i, j}
        for row in users:
            left, right = row.pop(i), row.pop(j)
            row[builder.value("add" if left == right else "sub", i, j)] = left


def _share_row_pairs(builder: _Builder, rows: list[Row]) -> dict[int, int]:
    """Emit the rows that come in pairs ``e + o``, ``e - o``; return their values by row number."""
    outputs: dict[int, int] = {}
    for i, j in combinations(range(len(rows)), 2):
        even = {v: c for v, c in rows[i].items() if rows[j].get(v) == c}
        odd = {v: c for v, c in rows[i].items() if rows[j].get(v) == -c}
        whole = len(even) + len(odd) == len(rows[i]) == len(rows[j])
        if whole and even and odd and not {i, j} & outputs.keys():
            outputs[i], outputs[j] = builder.butterfly(even, odd)
    return outputs
