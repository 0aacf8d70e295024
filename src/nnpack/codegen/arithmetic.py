"""Arithmetic, masks and shuffles: the part of the assembler that stays in registers."""

from __future__ import annotations

import functools
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from llvmlite import ir

from nnpack.codegen.target import Target
from nnpack.codegen.values import F32, I32, I64, POINTER, Index, Operand, Value, element_type

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler


# Kernels are full of the same few constants, and each object of one keeps its text: to make them
# anew every time was a third of the time of emitting a transform.


@functools.lru_cache(maxsize=1024)
def _float_constant(bits: bytes) -> Any:
    """The float32 with these ``bits``, of which 0.0 and -0.0 have others."""
    return ir.Constant(F32, struct.unpack("f", bits)[0])


@functools.lru_cache(maxsize=4096)
def _integer_constant(kind: Any, value: int) -> Any:
    return ir.Constant(kind, value)


@functools.lru_cache(maxsize=1024)
def _splat(element: Any, count: int, text: str) -> Any:
    """A vector of constants, all of which have this ``text``."""
    return ir.Constant(ir.VectorType(element, count), [ir.FormattedConstant(element, text)] * count)


@functools.cache
def _undefined(kind: Any) -> Any:
    return ir.Constant(kind, ir.Undefined)


@functools.lru_cache(maxsize=1024)
def _order(lanes: tuple[int, ...]) -> Any:
    """The constant operand of a shuffle."""
    numbers = [_integer_constant(I32, n) for n in lanes]
    return ir.Constant(ir.VectorType(I32, len(lanes)), numbers)


class Arithmetic:
    """Emits instructions on values; arithmetic on Python numbers stays in Python."""

    def __init__(self, target: Target, name: str) -> None:
        self.target = target
        self.lanes = target.lanes
        self.module = ir.Module(name=name)
        self.module.triple = target.triple
        self.builder: Any = None

    def wrap(self, value: Any) -> Value:
        """The `Value` of an LLVM value."""
        return Value(cast("Assembler", self), value)

    def intrinsic(self, name: str, returns: Any, *arguments: Any) -> Any:
        """Call the LLVM intrinsic ``name`` on LLVM values."""
        kind = ir.FunctionType(returns, [a.type for a in arguments])
        function = self.module.globals.get(name)
        if function is None:
            function = ir.Function(self.module, kind, name)
        return self.builder.call(function, arguments)

    # Constants and arithmetic

    def constant(self, value: Operand, kind: Any) -> Any:
        """``value`` as an LLVM value of type ``kind``; Python numbers are splatted to vectors."""
        if isinstance(value, Value):
            return value.ir
        if isinstance(kind, ir.VectorType):
            scalar = self.constant(value, kind.element)
            return _splat(kind.element, kind.count, scalar.get_reference())
        if kind == F32:
            return _float_constant(struct.pack("f", float(value)))
        return _integer_constant(kind, int(value))

    def vector_type(self, lanes: int | None = None) -> Any:
        """``<lanes x float>``; by default a full register."""
        return ir.VectorType(F32, lanes or self.lanes)

    def index(self, value: Operand) -> Value:
        """``value`` as an i64."""
        return self.wrap(self.constant(value, I64))

    def _pair(self, a: Operand, b: Operand) -> tuple[Any, Any]:
        kind = a.ir.type if isinstance(a, Value) else b.ir.type  # type: ignore[union-attr]
        return self.constant(a, kind), self.constant(b, kind)

    def binary(self, operation: str, a: Operand, b: Operand) -> Value:
        """Emit a two-operand instruction of the IR builder."""
        return self.wrap(getattr(self.builder, operation)(*self._pair(a, b)))

    @staticmethod
    def _is_float(value: Any) -> bool:
        return bool(getattr(value.type, "element", value.type) == F32)

    def add(self, a: Operand, b: Operand) -> Value:
        """``a + b``; a pointer plus an index advances by that many of its elements."""
        if isinstance(a, int) and isinstance(b, int):
            return a + b  # type: ignore[return-value]
        if isinstance(b, int) and b == 0 and isinstance(a, Value) and not self._is_float(a.ir):
            return a
        if isinstance(a, Value) and a.ir.type == POINTER:
            offset, element = self.constant(b, I64), element_type(a.ir)
            return self.wrap(self.builder.gep(a.ir, [offset], source_etype=element))
        left, right = self._pair(a, b)
        operation = self.builder.fadd if self._is_float(left) else self.builder.add
        return self.wrap(operation(left, right))

    def sub(self, a: Operand, b: Operand) -> Value:
        """``a - b``."""
        if isinstance(a, Value) and a.ir.type == POINTER:
            return self.add(a, -b)
        left, right = self._pair(a, b)
        operation = self.builder.fsub if self._is_float(left) else self.builder.sub
        return self.wrap(operation(left, right))

    def distance(self, a: Value, b: Value) -> Value:
        """How many floats the pointer ``a`` is behind the pointer ``b``: ``b + distance == a``."""
        addresses = (self.builder.ptrtoint(pointer.ir, I64) for pointer in (a, b))
        nbytes = self.builder.sub(*addresses)
        return self.wrap(self.builder.ashr(nbytes, self.constant(2, I64)))

    def mul(self, a: Operand, b: Operand) -> Value:
        """``a * b``."""
        if isinstance(a, Value) and isinstance(b, int) and b == 1:
            return a
        if isinstance(b, Value) and isinstance(a, int) and a == 1:
            return b
        left, right = self._pair(a, b)
        operation = self.builder.fmul if self._is_float(left) else self.builder.mul
        return self.wrap(operation(left, right))

    def neg(self, a: Value) -> Value:
        """``-a``."""
        return self.wrap((self.builder.fneg if self._is_float(a.ir) else self.builder.neg)(a.ir))

    def sqrt(self, a: Value) -> Value:
        """The square root of floats, correctly rounded."""
        kind = a.ir.type
        suffix = f"v{kind.count}f32" if isinstance(kind, ir.VectorType) else "f32"
        return self.wrap(self.intrinsic(f"llvm.sqrt.{suffix}", kind, a.ir))

    def fma(self, a: Operand, b: Operand, c: Value) -> Value:
        """``a * b + c``, fused where the target can (one rounding), else multiplied and added."""
        kind = c.ir.type
        suffix = f"v{kind.count}f32" if isinstance(kind, ir.VectorType) else "f32"
        operands = [self.constant(v, kind) for v in (a, b, c)]
        return self.wrap(self.intrinsic(f"llvm.fmuladd.{suffix}", kind, *operands))

    def divide(self, a: Operand, b: Operand) -> Value:
        """``a / b`` of floats."""
        return self.binary("fdiv", a, b)

    def to_float(self, value: Value) -> Value:
        """An index as a float, rounded to nearest."""
        return self.wrap(self.builder.sitofp(value.ir, F32))

    def compare(self, operator: str, a: Operand, b: Operand) -> Value:
        """Compare signed indices, or floats (false when either is NaN; "ord" when neither is)."""
        left, right = self._pair(a, b)
        compare = self.builder.fcmp_ordered if self._is_float(left) else self.builder.icmp_signed
        return self.wrap(compare(operator, left, right))

    def select(self, condition: Value, a: Operand, b: Operand) -> Value:
        """``condition ? a : b``, lane by lane when the condition is a mask."""
        if not isinstance(a, Value) and not isinstance(b, Value):
            a = self.index(a)
        return self.wrap(self.builder.select(condition.ir, *self._pair(a, b)))

    def minimum(self, a: Operand, b: Operand) -> Value:
        """``b`` unless ``a < b``: of floats, a NaN in ``b`` stays."""
        return self.select(self.compare("<", a, b), a, b)

    def maximum(self, a: Operand, b: Operand) -> Value:
        """``b`` unless ``a > b``: of floats, a NaN in ``b`` stays."""
        return self.select(self.compare(">", a, b), a, b)

    def ceil_div(self, a: Operand, b: Operand) -> Value:
        """The least index not under ``a / b``, both positive."""
        return self.index(self.add(self.index(a), self.sub(self.index(b), 1))) // b

    def bitcast_to_float(self, value: Value) -> Value:
        """The vector of floats with the bits of a vector of i32."""
        return self.wrap(self.builder.bitcast(value.ir, self.vector_type(value.ir.type.count)))

    def bitcast_to_int(self, value: Value) -> Value:
        """The vector of i32 with the bits of a vector of floats."""
        kind = ir.VectorType(I32, value.ir.type.count)
        return self.wrap(self.builder.bitcast(value.ir, kind))

    # Vectors

    def zeros(self, lanes: int | None = None) -> Value:
        """A vector of zeros."""
        return self.splat(0.0, lanes)

    def splat(self, value: Operand, lanes: int | None = None) -> Value:
        """A vector with ``value`` in every lane."""
        kind = self.vector_type(lanes)
        if not isinstance(value, Value):
            return self.wrap(self.constant(value, kind))
        undefined = _undefined(kind)
        first = self.builder.insert_element(undefined, value.ir, ir.Constant(I32, 0))
        return self.shuffle(self.wrap(first), None, [0] * kind.count)

    def _splat_index(self, value: Index, lanes: int) -> Any:
        kind = ir.VectorType(I64, lanes)
        if isinstance(value, int):
            return self.constant(value, kind)
        undefined = _undefined(kind)
        first = self.builder.insert_element(undefined, value.ir, ir.Constant(I32, 0))
        return self.shuffle(self.wrap(first), None, [0] * lanes).ir

    def splat_index(self, value: Index, lanes: int | None = None) -> Value:
        """The i32 vector with the low half of ``value`` in every lane."""
        count = lanes or self.lanes
        kind = ir.VectorType(I32, count)
        if isinstance(value, int):
            return self.wrap(self.constant(value, kind))
        scalar = self.builder.trunc(value.ir, I32)
        first = self.builder.insert_element(_undefined(kind), scalar, ir.Constant(I32, 0))
        return self.shuffle(self.wrap(first), None, [0] * count)

    def lane_numbers(self, lanes: int | None = None) -> Value:
        """The i32 vector 0, 1, 2, ..."""
        count = lanes or self.lanes
        return self.wrap(ir.Constant(ir.VectorType(I32, count), list(range(count))))

    def lanes_below(self, count: Index, lanes: int | None = None) -> Value:
        """The mask of lanes l < count; any count."""
        return self.lanes_between(0, count, lanes)

    def lanes_between(self, low: Index, high: Index, lanes: int | None = None) -> Value:
        """The mask of lanes low <= l < high; any low and high."""
        width = lanes or self.lanes
        numbers = self.lane_numbers(width)
        mask = self.compare("<", numbers, self._lane_bound(high, width))
        if isinstance(low, int) and low == 0:
            return mask
        return mask & self.compare(">=", numbers, self._lane_bound(low, width))

    def _lane_bound(self, bound: Index, width: int) -> Value:
        if isinstance(bound, int):
            return self.wrap(self.constant(min(max(bound, 0), width), ir.VectorType(I32, width)))
        return self.splat_index(self.minimum(self.maximum(bound, 0), width), width)

    def shuffle(self, a: Value, b: Value | None, lanes: Sequence[int]) -> Value:
        """Lanes of ``a`` then ``b`` in the given order."""
        second = b.ir if b is not None else _undefined(a.ir.type)
        return self.wrap(self.builder.shuffle_vector(a.ir, second, _order(tuple(lanes))))

    def concatenate(self, vectors: Sequence[Value]) -> Value:
        """One vector of the lanes of all ``vectors``, which are equally wide, and zeros.

        The zeros make its width that of one vector times a power of two. It may be more than a
        register holds: what is picked from it counts.
        """
        width = vectors[0].ir.type.count
        zeros = [self.zeros(width)] * ((1 << (len(vectors) - 1).bit_length()) - len(vectors))
        vectors = [*vectors, *zeros]
        while len(vectors) > 1:
            order = range(2 * vectors[0].ir.type.count)
            pairs = zip(vectors[::2], vectors[1::2], strict=True)
            vectors = [self.shuffle(a, b, order) for a, b in pairs]
        return vectors[0]

    def extract(self, vector: Value, lane: int) -> Value:
        """The float in one lane."""
        return self.wrap(self.builder.extract_element(vector.ir, ir.Constant(I32, lane)))
