"""What kernels compute with: SSA values with operators, and the types they have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Union

from llvmlite import ir

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler

I1, I32, I64 = ir.IntType(1), ir.IntType(32), ir.IntType(64)
F16, F32 = ir.HalfType(), ir.FloatType()
POINTER = ir.PointerType()


class _HalfPointerType(ir.PointerType):  # type: ignore[misc]
    """The type of pointers that count in halves, for LLVM the same as all other pointers."""


HALF_POINTER = _HalfPointerType()


def element_type(pointer: Any) -> Any:
    """What an LLVM value, a pointer, counts in: F16 or F32."""
    return F16 if isinstance(pointer.type, _HalfPointerType) else F32


Index = Union["Value", int]
Mask = Union["Value", None]


class Value:
    """One SSA value: an index (i64), a pointer, a float, a vector of floats, or a mask.

    Pointers count in float32 elements, or in halves: what is loaded from those are floats as well.
    """

    __slots__ = ("asm", "ir")

    def __init__(self, asm: Assembler, value: Any) -> None:
        self.asm = asm
        self.ir = value

    def __add__(self, other: Operand) -> Value:
        return self.asm.add(self, other)

    def __radd__(self, other: Operand) -> Value:
        return self.asm.add(self, other)

    def __sub__(self, other: Operand) -> Value:
        return self.asm.sub(self, other)

    def __rsub__(self, other: Operand) -> Value:
        return self.asm.sub(other, self)

    def __mul__(self, other: Operand) -> Value:
        return self.asm.mul(self, other)

    def __rmul__(self, other: Operand) -> Value:
        return self.asm.mul(self, other)

    def __neg__(self) -> Value:
        return self.asm.neg(self)

    def __floordiv__(self, other: Operand) -> Value:
        """Quotient of non-negative indices."""
        return self.asm.binary("udiv", self, other)

    def __mod__(self, other: Operand) -> Value:
        """Remainder of non-negative indices."""
        return self.asm.binary("urem", self, other)

    def __and__(self, other: Operand) -> Value:
        return self.asm.binary("and_", self, other)

    def __or__(self, other: Operand) -> Value:
        return self.asm.binary("or_", self, other)

    def __lshift__(self, other: Operand) -> Value:
        return self.asm.binary("shl", self, other)

    def __rshift__(self, other: Operand) -> Value:
        return self.asm.binary("lshr", self, other)

    def __lt__(self, other: Operand) -> Value:
        return self.asm.compare("<", self, other)

    def __le__(self, other: Operand) -> Value:
        return self.asm.compare("<=", self, other)

    def __gt__(self, other: Operand) -> Value:
        return self.asm.compare(">", self, other)

    def __ge__(self, other: Operand) -> Value:
        return self.asm.compare(">=", self, other)

    def equals(self, other: Operand) -> Value:
        """``self == other`` (a method, for ``==`` compares Python objects)."""
        return self.asm.compare("==", self, other)


Operand = Value | int | float
