"""Linear programs of `maths.program` as vector code: one vector a value, lanes independent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Value
    from nnpack.maths.program import LinearProgram, Op


def emit_program(asm: Assembler, program: LinearProgram, inputs: Sequence[Value]) -> list[Value]:
    """``outputs = matrix @ inputs``, lane by lane."""
    values = list(inputs)
    for op in program.ops:
        values.append(_emit_op(asm, op, [values[n] for n in op.operands]))
    zero = asm.zeros()
    return [zero if n is None else values[n] for n in program.outputs]


def _emit_op(asm: Assembler, op: Op, operands: Sequence[Value]) -> Value:
    a, b = operands[0], operands[-1]
    constant = asm.splat(float(op.constant)) if op.constant is not None else asm.zeros()
    match op.kind:
        case "add":
            return a + b
        case "sub":
            return a - b
        case "mul":
            return a * constant
        case "fma":
            return asm.fma(a, constant, b)
        case "fms":
            return asm.fma(a, constant, -b)
        case "fnma":
            return asm.fma(-a, constant, b)
        case "neg":
            return -a
