"""A structured assembler for vector code: functions, counted loops, masks, shuffles, over LLVM IR.

Everything a kernel computes with is a `Value`; arithmetic on values emits instructions, arithmetic
on Python ints stays in Python, so that a quantity known at compile time costs nothing.
Pointers count in float32 elements, ``p + 3`` is three floats on; those of kind "halves" count in
half-precision numbers, which become floats when they are loaded and are rounded when stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any

from llvmlite import ir

from nnpack.codegen.target import Target
from nnpack.codegen.threads import Threads
from nnpack.codegen.values import F32, HALF_POINTER, I64, POINTER, Index, Mask, Operand, Value

__all__ = ["Assembler", "Index", "Mask", "Operand", "Repetition", "Value"]

_PARAMETER_TYPES: Mapping[str, Any] = {
    "pointer": POINTER,
    "halves": HALF_POINTER,
    "index": I64,
    "float": F32,
}

# Bytes to which callers align the stack, on x86-64 and AArch64.
_ABI_ALIGNMENT = 16


class Assembler(Threads):
    """Emits one LLVM module for one target: functions and control flow, and all it inherits."""

    def __init__(self, target: Target, name: str = "kernel") -> None:
        super().__init__(target, name)
        self._functions: dict[str, Any] = {}

    def __str__(self) -> str:
        return str(self.module)

    @contextmanager
    def function(
        self, name: str, *, exported: bool = False, **parameters: str
    ) -> Iterator[tuple[Value, ...]]:
        """Define ``void name(parameters...)``, each a "pointer", "halves", "index" or "float"."""
        with self._define(name, ir.VoidType(), exported, parameters) as values:
            yield values
            self.builder.ret_void()

    @contextmanager
    def function_of_index(self, name: str, **parameters: str) -> Iterator[tuple[Value, ...]]:
        """Define the exported ``i64 name(parameters...)``; its body ends with `give_back`."""
        with self._define(name, I64, True, parameters) as values:
            yield values

    def align_spills(self) -> None:
        """Let registers that this function spills lie in one cache line each.

        LLVM aligns the stack for arrays, but not for spills: of those of 64 bytes three in four
        are in two lines. It takes a register of addresses, so only what spills often is better off.
        """
        if 4 * self.lanes > _ABI_ALIGNMENT:
            self.builder.function.attributes.alignstack = 4 * self.lanes

    def give_back(self, value: Index) -> None:
        """Return from a function that has a result."""
        self.builder.ret(self.constant(value, I64))

    @contextmanager
    def _define(
        self, name: str, result: Any, exported: bool, parameters: Mapping[str, str]
    ) -> Iterator[tuple[Value, ...]]:
        types = [_PARAMETER_TYPES[kind] for kind in parameters.values()]
        function = ir.Function(self.module, ir.FunctionType(result, types), name)
        function.linkage = "external" if exported else "internal"
        function.attributes.add("nounwind")
        self._functions[name] = function
        outer, self.builder = self.builder, ir.IRBuilder(function.append_basic_block("entry"))
        yield tuple(self.wrap(argument) for argument in function.args)
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
