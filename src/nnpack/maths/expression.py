"""Sums and multiples written as formulae, collected into a short `LinearProgram`.

A codelet is written as its index equation on `Term` values; what makes the program short happens
as they are added (Frigo, 1999, section 5; Linzer and Feig, 1993):

* a term is ``scale * value``: multiplying by a number takes no op until the term is added to one of
  another magnitude, and then it is fused into that op,

      c a + d b = c (a + (d / c) b),   |c| >= |d|,

  the greater magnitude outside, so that constants are at most 1; signs are never ops either;
* what is zero vanishes, so that a transform of fewer inputs is the transform of zeros;
* equal ops are one, ``a - b`` and ``b - a`` too;
* what no output depends on is left out.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nnpack.maths.program import LinearProgram, Op

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nnpack.maths.program import Kind, Number


@dataclass(frozen=True, slots=True)
class Term:
    """``scale * value(number)`` in a `Formula`; zero when the scale is 0."""

    formula: Formula
    number: int
    scale: float = 1.0

    def __add__(self, other: Term) -> Term:
        return self.formula.add(self, other)

    def __sub__(self, other: Term) -> Term:
        return self.formula.add(self, -other)

    def __neg__(self) -> Term:
        return self * -1.0

    def __mul__(self, factor: float) -> Term:
        return Term(self.formula, self.number, self.scale * factor)

    __rmul__ = __mul__


class Formula:
    """Collects the ops that the terms of ``inputs`` inputs are combined by."""

    def __init__(self, inputs: int) -> None:
        self._inputs = inputs
        self._ops: list[Op] = []
        self._numbers: dict[Op, int] = {}

    @property
    def inputs(self) -> list[Term]:
        """The inputs."""
        return [Term(self, number) for number in range(self._inputs)]

    @property
    def zero(self) -> Term:
        """A term that vanishes from every sum."""
        return Term(self, 0, 0.0)

    def add(self, a: Term, b: Term) -> Term:
        """``a + b``: no op if one is zero, else one."""
        if a.scale == 0 or b.scale == 0:
            return b if a.scale == 0 else a
        if abs(a.scale) == abs(b.scale):
            first, second = sorted((a, b), key=lambda term: term.number)
            kind: Kind = "add" if a.scale == b.scale else "sub"
            return Term(self, self._value(kind, first.number, second.number), first.scale)
        small, great = sorted((a, b), key=lambda term: abs(term.scale))
        ratio = small.scale / great.scale
        fused: Kind = "fma" if ratio > 0 else "fnma"
        number = self._value(fused, small.number, great.number, constant=abs(ratio))
        return Term(self, number, great.scale)

    def program(self, outputs: Sequence[Term]) -> LinearProgram:
        """The program of ``outputs``; one that is zero has no value."""
        numbers = [self._materialise(output) for output in outputs]
        return without_dead_code(LinearProgram(self._inputs, tuple(self._ops), tuple(numbers)))

    def _materialise(self, output: Term) -> int | None:
        """The value of a term with its scale applied."""
        if output.scale == 0:
            return None
        if output.scale == 1:
            return output.number
        if output.scale == -1:
            return self._negated(output.number)
        kind: Kind = "mul"
        return self._value(kind, output.number, constant=output.scale)

    def _negated(self, number: int) -> int:
        """``-value``: a difference the other way round where it is one, else an op more."""
        if number >= self._inputs:
            op = self._ops[number - self._inputs]
            if op.kind == "sub":
                return self._value("sub", op.operands[1], op.operands[0])
            if op.kind == "fnma":
                return self._value("fms", *op.operands, constant=op.constant)
        return self._value("neg", number)

    def _value(self, kind: Kind, *operands: int, constant: Number | None = None) -> int:
        op = Op(kind, operands, constant)
        if op not in self._numbers:
            self._numbers[op] = self._inputs + len(self._ops)
            self._ops.append(op)
        return self._numbers[op]


def without_dead_code(program: LinearProgram) -> LinearProgram:
    """The program without the ops no output depends on."""
    live = Counter(output for output in program.outputs if output is not None)
    for number in range(program.inputs + len(program.ops) - 1, program.inputs - 1, -1):
        if live[number]:
            live.update(program.ops[number - program.inputs].operands)
    renumbered = {number: number for number in range(program.inputs)}
    ops: list[Op] = []
    for number, op in enumerate(program.ops, start=program.inputs):
        if live[number]:
            renumbered[number] = program.inputs + len(ops)
            ops.append(Op(op.kind, tuple(renumbered[n] for n in op.operands), op.constant))
    outputs = tuple(None if n is None else renumbered[n] for n in program.outputs)
    return LinearProgram(program.inputs, tuple(ops), outputs)
