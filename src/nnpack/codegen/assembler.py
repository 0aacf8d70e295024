"""A structured assembler for vector code: functions, counted loops, masks, shuffles, over LLVM IR.

Everything a kernel computes with is a `Value`; arithmetic on values emits instructions, arithmetic
on Python ints stays in Python, so that a quantity known at compile time costs nothing.
Pointers count in float32 elements: ``p + 3`` is three floats on.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any, Union

from llvmlite import ir

from nnpack.codegen.target import Target

I1, I32, I64 = ir.IntType(1), ir.IntType(32), ir.IntType(64)
F32 = ir.FloatType()
POINTER = ir.PointerType()

_MXCSR_CONTROL = 0xFFC0  # the rest are flags of what has happened

_PARAMETER_TYPES: Mapping[str, Any] = {"pointer": POINTER, "index": I64, "float": F32}

Index = Union["Value", int]
Mask = Union["Value", None]


class Value:
    """One SSA value: an index (i64), a pointer, a float, a vector of floats, or a mask."""

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


class Assembler:
    """Emits one LLVM module for one target."""

    def __init__(self, target: Target, name: str = "kernel") -> None:
        self.target = target
        self.lanes = target.lanes
        self.module = ir.Module(name=name)
        self.module.triple = target.triple
        self.builder: Any = None
        self._functions: dict[str, Any] = {}
        self._locals: dict[tuple[str, str, int], Any] = {}

    def __str__(self) -> str:
        return str(self.module)

    def wrap(self, value: Any) -> Value:
        """The `Value` of an LLVM value."""
        return Value(self, value)

    # Functions

    @contextmanager
    def function(
        self, name: str, *, exported: bool = False, **parameters: str
    ) -> Iterator[tuple[Value, ...]]:
        """Define ``void name(parameters...)``, each a "pointer", "index" or "float"."""
        types = [_PARAMETER_TYPES[kind] for kind in parameters.values()]
        function = ir.Function(self.module, ir.FunctionType(ir.VoidType(), types), name)
        function.linkage = "external" if exported else "internal"
        function.attributes.add("nounwind")
        self._functions[name] = function
        outer, self.builder = self.builder, ir.IRBuilder(function.append_basic_block("entry"))
        yield tuple(self.wrap(argument) for argument in function.args)
        self.builder.ret_void()
        self.builder = outer

    def call(self, name: str, *arguments: Operand) -> None:
        """Call a function defined before in this module."""
        function = self._functions[name]
        values = [self.constant(a, p.type) for a, p in zip(arguments, function.args, strict=True)]
        self.builder.call(function, values)

    def call_address(self, address: Value, *arguments: Operand, returns: bool = False) -> Value:
        """Call a C function at ``address``, all of whose arguments are pointers or indices."""
        values = [a.ir if isinstance(a, Value) else self.constant(a, I64) for a in arguments]
        result = I64 if returns else ir.VoidType()
        kind = ir.FunctionType(result, [v.type for v in values])
        function = self.builder.inttoptr(address.ir, ir.PointerType())
        return self.wrap(self.builder.call(_Callee(function, kind), values))

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
            return ir.Constant(kind, [scalar] * kind.count)
        if kind == F32:
            return ir.Constant(kind, struct.unpack("f", struct.pack("f", float(value)))[0])
        return ir.Constant(kind, int(value))

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
        """``a + b``; a pointer plus an index advances by that many floats."""
        if isinstance(a, int) and isinstance(b, int):
            return a + b  # type: ignore[return-value]
        if isinstance(b, int) and b == 0 and isinstance(a, Value) and not self._is_float(a.ir):
            return a
        if isinstance(a, Value) and a.ir.type == POINTER:
            return self.wrap(self.builder.gep(a.ir, [self.constant(b, I64)], source_etype=F32))
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

    def fma(self, a: Operand, b: Operand, c: Value) -> Value:
        """``a * b + c``, fused where the target can (one rounding), else multiplied and added."""
        kind = c.ir.type
        suffix = f"v{kind.count}f32" if isinstance(kind, ir.VectorType) else "f32"
        operands = [self.constant(v, kind) for v in (a, b, c)]
        return self.wrap(self.intrinsic(f"llvm.fmuladd.{suffix}", kind, *operands))

    def compare(self, operator: str, a: Operand, b: Operand) -> Value:
        """Compare signed indices, or floats (false when either is NaN)."""
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

    # Memory

    def zeros(self, lanes: int | None = None) -> Value:
        """A vector of zeros."""
        return self.splat(0.0, lanes)

    def splat(self, value: Operand, lanes: int | None = None) -> Value:
        """A vector with ``value`` in every lane."""
        kind = self.vector_type(lanes)
        if not isinstance(value, Value):
            return self.wrap(self.constant(value, kind))
        undefined = ir.Constant(kind, ir.Undefined)
        first = self.builder.insert_element(undefined, value.ir, ir.Constant(I32, 0))
        return self.shuffle(self.wrap(first), None, [0] * kind.count)

    def load(
        self, pointer: Value, offset: Index = 0, *, mask: Mask = None, lanes: int | None = None
    ) -> Value:
        """``lanes`` floats from ``pointer + offset``; lanes outside ``mask`` are zero, unread."""
        kind = self.vector_type(lanes)
        address = self.add(pointer, offset).ir
        if mask is None:
            return self.wrap(self.builder.load(address, align=4, typ=kind))
        zeros = self.constant(0.0, kind)
        name = f"llvm.masked.load.v{kind.count}f32.p0"
        return self.wrap(self._masked(name, kind, (address,), 0, (mask.ir, zeros)))

    def store(self, value: Value, pointer: Value, offset: Index = 0, *, mask: Mask = None) -> None:
        """Store a float or a vector at ``pointer + offset``; lanes outside ``mask`` stay."""
        address = self.add(pointer, offset).ir
        if mask is None:
            self.builder.store(value.ir, address, align=4)
            return
        name = f"llvm.masked.store.v{value.ir.type.count}f32.p0"
        self._masked(name, ir.VoidType(), (value.ir, address), 1, (mask.ir,))

    def _masked(
        self, name: str, returns: Any, head: tuple[Any, ...], pointer: int, tail: tuple[Any, ...]
    ) -> Any:
        """A masked load or store; LLVM 22 moved the alignment from an argument to an attribute."""
        arguments = [*head, ir.Constant(I32, 4), *tail]
        return self.intrinsic(name, returns, *arguments)

    def local_floats(self, count: int) -> Value:
        """A buffer of ``count`` floats on the stack, one a function and size; aligned to 64."""
        return self._local(F32, count)

    def local_words(self, count: int) -> Value:
        """A buffer of ``count`` i64 on the stack, one a function and size."""
        return self._local(I64, count)

    def _local(self, kind: Any, count: int) -> Value:
        key = self.builder.function.name, str(kind), count
        if key not in self._locals:
            with self.builder.goto_entry_block():
                buffer = self.builder.alloca(kind, ir.Constant(I32, count))
                buffer.align = 64
                buffer.type = POINTER
            self._locals[key] = buffer
        return self.wrap(self._locals[key])

    def store_first(self, value: Value, count: int, pointer: Value, offset: Index = 0) -> None:
        """Store the first ``count`` lanes at ``pointer + offset``, in pieces of powers of two."""
        start = 0
        while start < count:
            size = 1 << ((count - start).bit_length() - 1)
            size = min(size, self.lanes)
            piece = value
            if size != value.ir.type.count:
                piece = self.shuffle(value, None, list(range(start, start + size)))
            self.store(piece, pointer, self.add(offset, start))
            start += size

    def load_float(self, pointer: Value, offset: Index = 0) -> Value:
        """One float from ``pointer + offset``."""
        return self.wrap(self.builder.load(self.add(pointer, offset).ir, align=4, typ=F32))

    def broadcast(self, pointer: Value, offset: Index = 0, lanes: int | None = None) -> Value:
        """A vector with the float at ``pointer + offset`` in every lane."""
        return self.splat(self.load_float(pointer, offset), lanes)

    def load_index(self, pointer: Value, offset: Index = 0) -> Value:
        """The i64 at ``offset`` (counted in i64) behind ``pointer``."""
        return self.wrap(self.builder.load(self._index_address(pointer, offset), align=8, typ=I64))

    def store_index(self, value: Index, pointer: Value, offset: Index = 0) -> None:
        """Store an i64 at ``offset`` (counted in i64) behind ``pointer``."""
        address = self._index_address(pointer, offset)
        self.builder.store(self.constant(value, I64), address, align=8)

    def load_pointer(self, pointer: Value, offset: Index = 0) -> Value:
        """The pointer at ``offset`` (counted in i64) behind ``pointer``."""
        address = self._index_address(pointer, offset)
        return self.wrap(self.builder.load(address, align=8, typ=POINTER))

    def index_pointer(self, pointer: Value, offset: Index) -> Value:
        """``pointer`` advanced by ``offset`` i64."""
        return self.wrap(self._index_address(pointer, offset))

    def _index_address(self, pointer: Value, offset: Index) -> Any:
        return self.builder.gep(pointer.ir, [self.constant(offset, I64)], source_etype=I64)

    def prefetch(self, pointer: Value, offset: Index = 0) -> None:
        """Ask for the cache line of ``pointer + offset``; never faults."""
        address = self.add(pointer, offset).ir
        flags = [ir.Constant(I32, n) for n in (0, 3, 1)]
        self.intrinsic("llvm.prefetch.p0", ir.VoidType(), address, *flags)

    def gather(self, pointer: Value, stride: Index, mask: Value) -> Value:
        """Lanes l from ``pointer + l * stride``; lanes outside ``mask`` are zero, unread."""
        lanes = mask.ir.type.count
        kind = self.vector_type(lanes)
        numbers = ir.Constant(ir.VectorType(I64, lanes), list(range(lanes)))
        offsets = self.builder.mul(numbers, self._splat_index(stride, lanes))
        gep = self.builder.gep(pointer.ir, [offsets], source_etype=F32)
        gep.type = ir.VectorType(POINTER, lanes)
        name = f"llvm.masked.gather.v{lanes}f32.v{lanes}p0"
        arguments = (gep, ir.Constant(I32, 4), mask.ir, self.constant(0.0, kind))
        return self.wrap(self.intrinsic(name, kind, *arguments))

    def _splat_index(self, value: Index, lanes: int) -> Any:
        kind = ir.VectorType(I64, lanes)
        if isinstance(value, int):
            return self.constant(value, kind)
        undefined = ir.Constant(kind, ir.Undefined)
        first = self.builder.insert_element(undefined, value.ir, ir.Constant(I32, 0))
        return self.shuffle(self.wrap(first), None, [0] * lanes).ir

    # Masks and shuffles

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
        clamped = self.minimum(self.maximum(bound, 0), width)
        kind = ir.VectorType(I32, width)
        scalar = self.builder.trunc(clamped.ir, I32)
        undefined = ir.Constant(kind, ir.Undefined)
        first = self.builder.insert_element(undefined, scalar, ir.Constant(I32, 0))
        return self.shuffle(self.wrap(first), None, [0] * width)

    def shuffle(self, a: Value, b: Value | None, lanes: Sequence[int]) -> Value:
        """Lanes of ``a`` then ``b`` in the given order."""
        second = b.ir if b is not None else ir.Constant(a.ir.type, ir.Undefined)
        kind = ir.VectorType(I32, len(lanes))
        order = [ir.Constant(I32, n) for n in lanes]
        return self.wrap(self.builder.shuffle_vector(a.ir, second, ir.Constant(kind, order)))

    def extract(self, vector: Value, lane: int) -> Value:
        """The float in one lane."""
        return self.wrap(self.builder.extract_element(vector.ir, ir.Constant(I32, lane)))

    # Control flow

    @contextmanager
    def loop(
        self,
        stop: Index,
        *,
        start: Index = 0,
        step: Index = 1,
        carry: MutableMapping[Any, Value] | None = None,
    ) -> Iterator[Value]:
        """``for i in range(start, stop, step)``; ``carry`` holds what each pass hands to the next.

        Inside, ``carry`` maps to this pass's values; what it maps to at the end of the body goes
        to the next pass, and after the loop it maps to the last (with no pass, the first) values.
        """
        carried: MutableMapping[Any, Value] = {} if carry is None else carry
        begin = self.constant(start, I64)
        limit = self.constant(stop, I64)
        before = self.builder.block
        body = self.builder.append_basic_block("loop")
        after = self.builder.append_basic_block("after")
        initial = {key: value.ir for key, value in carried.items()}
        self.builder.cbranch(self.builder.icmp_signed("<", begin, limit), body, after)
        self.builder.position_at_end(body)
        index = self._phi(begin, before)
        phis = {key: self._phi(value, before) for key, value in initial.items()}
        for key, phi in phis.items():
            carried[key] = self.wrap(phi)
        yield self.wrap(index)
        following = self.builder.add(index, self.constant(step, I64))
        index.add_incoming(following, self.builder.block)
        for key, phi in phis.items():
            phi.add_incoming(carried[key].ir, self.builder.block)
        again = self.builder.icmp_signed("<", following, limit)
        self.builder.cbranch(again, body, after)
        last = self.builder.block
        self.builder.position_at_end(after)
        for key, value in initial.items():
            merged = self._phi(value, before)
            merged.add_incoming(carried[key].ir, last)
            carried[key] = self.wrap(merged)

    def _phi(self, value: Any, block: Any) -> Any:
        phi = self.builder.phi(value.type)
        phi.add_incoming(value, block)
        return phi

    @contextmanager
    def when(self, condition: Value) -> Iterator[None]:
        """Run the body when ``condition`` holds."""
        with self.builder.if_then(condition.ir):
            yield

    @contextmanager
    def repeat(self) -> Iterator[Repetition]:
        """Run the body again and again, until its `Repetition` is told to stop."""
        body = self.builder.append_basic_block("repeat")
        after = self.builder.append_basic_block("done")
        self.builder.branch(body)
        self.builder.position_at_end(body)
        yield Repetition(self, after)
        self.builder.branch(body)
        self.builder.position_at_end(after)

    # Memory shared between threads: 8-byte aligned i64, sequentially consistent unless told.

    def atomic_load(self, pointer: Value, offset: int = 0, *, order: str = "seq_cst") -> Value:
        """The i64 at ``offset`` (in i64), read atomically."""
        address = self._index_address(pointer, offset)
        return self.wrap(self.builder.load_atomic(address, order, 8, typ=I64))

    def atomic_store(
        self, value: Operand, pointer: Value, offset: int = 0, *, order: str = "seq_cst"
    ) -> None:
        """Store an i64 or a pointer at ``offset`` (in i64) atomically."""
        address = self._index_address(pointer, offset)
        number = self.constant(value, I64)
        # The builder's own `store_atomic` asks an opaque pointer what it points to (llvmlite 0.50).
        self.builder._insert(
            ir.instructions.StoreAtomicInstr(self.builder.block, number, address, order, 8)
        )

    def atomic_add(self, value: Index, pointer: Value, offset: int = 0) -> Value:
        """Add to the i64 at ``offset`` (in i64); returns what was there before."""
        return self._atomic_update("add", value, pointer, offset)

    def atomic_and(self, value: Index, pointer: Value, offset: int = 0) -> Value:
        """Keep the bits of ``value`` in the i64 at ``offset``; returns what was there before."""
        return self._atomic_update("and", value, pointer, offset)

    def atomic_or(self, value: Index, pointer: Value, offset: int = 0) -> Value:
        """Set the bits of ``value`` in the i64 at ``offset``; returns what was there before."""
        return self._atomic_update("or", value, pointer, offset)

    def _atomic_update(self, operation: str, value: Index, pointer: Value, offset: int) -> Value:
        address = self._index_address(pointer, offset)
        number = self.constant(value, I64)
        return self.wrap(self.builder.atomic_rmw(operation, address, number, "seq_cst"))

    def compare_exchange(
        self, pointer: Value, offset: int, expected: Index, new: Index
    ) -> tuple[Value, Value]:
        """Replace the i64 by ``new`` if it is ``expected``: (what was there, whether replaced)."""
        address = self._index_address(pointer, offset)
        pair = self.builder.cmpxchg(
            address, self.constant(expected, I64), self.constant(new, I64), "seq_cst", "seq_cst"
        )
        seen = self.builder.extract_value(pair, 0)
        return self.wrap(seen), self.wrap(self.builder.extract_value(pair, 1))

    def cycle_counter(self) -> Value:
        """The processor's time-stamp counter."""
        return self.wrap(self.intrinsic("llvm.readcyclecounter", I64))

    def pause(self) -> None:
        """Tell the processor that this is a spin-wait."""
        if self._is_aarch64():
            self.intrinsic("llvm.aarch64.hint", ir.VoidType(), ir.Constant(I32, 1))  # yield
        else:
            self.intrinsic("llvm.x86.sse2.pause", ir.VoidType())

    # State of the running thread

    def local(self, count: int) -> Value:
        """A pointer to stack memory for ``count`` i64, undefined at first, until the return."""
        with self.builder.goto_entry_block():  # once a call, however often the code here runs
            return self.wrap(self.builder.alloca(I64, ir.Constant(I32, count)))

    def float_state(self) -> Value:
        """Rounding, denormal and trap control of float arithmetic, without its sticky flags."""
        if self._is_aarch64():
            return self.wrap(self.intrinsic("llvm.aarch64.get.fpcr", I64))
        word = self.local(1)
        self.intrinsic("llvm.x86.sse.stmxcsr", ir.VoidType(), word.ir)
        state = self.builder.zext(self.builder.load(word.ir, align=8, typ=I32), I64)
        return self.wrap(state) & _MXCSR_CONTROL

    def set_float_state(self, state: Value) -> None:
        """Set what `float_state` reads."""
        if self._is_aarch64():
            self.intrinsic("llvm.aarch64.set.fpcr", ir.VoidType(), state.ir)
            return
        word = self.local(1)
        self.store_index(state, word)
        self.intrinsic("llvm.x86.sse.ldmxcsr", ir.VoidType(), word.ir)

    def _is_aarch64(self) -> bool:
        return bool(self.target.triple.startswith(("aarch64", "arm64")))


class Repetition:
    """The handle of a `repeat` body."""

    def __init__(self, asm: Assembler, after: Any) -> None:
        self._asm = asm
        self._after = after

    def stop_when(self, condition: Value) -> None:
        """Leave the loop when ``condition`` holds."""
        builder = self._asm.builder
        go_on = builder.append_basic_block("go_on")
        builder.cbranch(condition.ir, self._after, go_on)
        builder.position_at_end(go_on)


class _Callee:
    """A function pointer with its type, as the IR builder's ``call`` wants a callee."""

    def __init__(self, pointer: Any, function_type: Any) -> None:
        self.type = ir.PointerType()
        self.function_type = function_type
        self._pointer = pointer

    def get_reference(self) -> str:
        return str(self._pointer.get_reference())
