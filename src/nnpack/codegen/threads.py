"""What threads share: atomic memory, the cycle counter, and the state of float arithmetic."""

from __future__ import annotations

from llvmlite import ir

from nnpack.codegen.memory import Memory
from nnpack.codegen.values import I32, I64, Index, Operand, Value

_MXCSR_CONTROL = 0xFFC0  # the rest are flags of what has happened


class Threads(Memory):
    """Atomic operations on 8-byte aligned i64, sequentially consistent unless told otherwise."""

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
