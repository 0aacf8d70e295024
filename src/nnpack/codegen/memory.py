"""Memory: the part of the assembler that loads and stores: float32, in memory also float16."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from nnpack.codegen.arithmetic import Arithmetic
from nnpack.codegen.target import Target
from nnpack.codegen.values import (
    F16,
    F32,
    HALF_POINTER,
    I32,
    I64,
    POINTER,
    Index,
    Mask,
    Value,
    element_type,
)


class Memory(Arithmetic):
    """Loads and stores of floats, vectors, indices and pointers; buffers on the stack."""

    def __init__(self, target: Target, name: str) -> None:
        super().__init__(target, name)
        self._locals: dict[tuple[str, str, int, str], Any] = {}

    def load(
        self, pointer: Value, offset: Index = 0, *, mask: Mask = None, lanes: int | None = None
    ) -> Value:
        """``lanes`` floats from ``pointer + offset``; lanes outside ``mask`` are zero, unread.

        A mask goes with float32 only, here and in `store`.
        """
        kind = self.vector_type(lanes)
        address = self.add(pointer, offset).ir
        if mask is None:
            return self._load(address, kind)
        zeros = self.constant(0.0, kind)
        name = f"llvm.masked.load.v{kind.count}f32.p0"
        return self.wrap(self._masked(name, kind, (address,), (mask.ir, zeros)))

    def store(self, value: Value, pointer: Value, offset: Index = 0, *, mask: Mask = None) -> None:
        """Store a float or a vector at ``pointer + offset``; lanes outside ``mask`` stay."""
        address = self.add(pointer, offset).ir
        if mask is None:
            self._store(value.ir, address)
            return
        name = f"llvm.masked.store.v{value.ir.type.count}f32.p0"
        self._masked(name, ir.VoidType(), (value.ir, address), (mask.ir,))

    def _load(self, address: Any, kind: Any) -> Value:
        """A float or a vector of floats; halves are widened."""
        if element_type(address) == F32:
            return self.wrap(self.builder.load(address, align=4, typ=kind))
        halves = self.builder.load(address, align=2, typ=_of_halves(kind))
        return self.wrap(self.builder.fpext(halves, kind))

    def _store(self, value: Any, address: Any) -> None:
        """Store a float or a vector of floats; as halves they are rounded to nearest even."""
        if element_type(address) == F32:
            self.builder.store(value, address, align=4)
            return
        self.builder.store(self.builder.fptrunc(value, _of_halves(value.type)), address, align=2)

    def _masked(self, name: str, returns: Any, head: tuple[Any, ...], tail: tuple[Any, ...]) -> Any:
        """A masked load or store, its alignment an argument (LLVM 22 upgrades that by itself)."""
        arguments = [*head, ir.Constant(I32, 4), *tail]
        return self.intrinsic(name, returns, *arguments)

    def local_floats(self, count: int, name: str = "") -> Value:
        """A buffer of ``count`` floats on the stack, one a function, size and name; on 64 bytes.

        What is asked for again is the same buffer: two that are in use at once need two names.
        """
        return self._local(F32, count, name)

    def local_words(self, count: int) -> Value:
        """A buffer of ``count`` i64 on the stack, one a function and size."""
        return self._local(I64, count, "")

    def _local(self, kind: Any, count: int, name: str) -> Value:
        key = self.builder.function.name, str(kind), count, name
        if key not in self._locals:
            with self.builder.goto_entry_block():
                buffer = self.builder.alloca(kind, ir.Constant(I32, count))
                buffer.align = 64
                buffer.type = POINTER
            self._locals[key] = buffer
        return self.wrap(self._locals[key])

    def store_first(self, value: Value, count: int, pointer: Value, offset: Index = 0) -> None:
        """Store the first ``count`` lanes at ``pointer + offset``, in pieces of powers of two."""
        for start, size in self._pieces(count):
            piece = value
            if size != value.ir.type.count:
                piece = self.shuffle(value, None, list(range(start, start + size)))
            self.store(piece, pointer, self.add(offset, start))

    def load_first(self, count: int, pointer: Value, offset: Index = 0, *, lanes: int) -> Value:
        """``count`` floats at ``pointer + offset`` in the first of ``lanes`` lanes, no more read.

        Under a mask where the target has them, else in pieces of powers of two; the other lanes
        are undefined.
        """
        if self.target.masks and count < lanes:
            return self.load(pointer, offset, mask=self.lanes_below(count, lanes), lanes=lanes)
        whole: Value | None = None
        for start, size in self._pieces(count):
            piece = self.load(pointer, self.add(offset, start), lanes=size)
            if size == lanes:
                return piece
            spread = [max(0, n - start) if n < start + size else 0 for n in range(lanes)]
            wide = self.shuffle(piece, None, spread)
            chosen = [n if n < start else lanes + n for n in range(lanes)]
            whole = wide if whole is None else self.shuffle(whole, wide, chosen)
        assert whole is not None
        return whole

    def _pieces(self, count: int) -> list[tuple[int, int]]:
        """First lane and size, a power of two, of the pieces of ``count`` lanes."""
        pieces, start = [], 0
        while start < count:
            size = min(1 << ((count - start).bit_length() - 1), self.lanes)
            pieces.append((start, size))
            start += size
        return pieces

    def load_float(self, pointer: Value, offset: Index = 0) -> Value:
        """One float from ``pointer + offset``."""
        return self._load(self.add(pointer, offset).ir, F32)

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

    def store_indices(
        self, value: Value, pointer: Value, offset: Index = 0, *, mask: Mask = None
    ) -> None:
        """Store i32 lanes as i64 at ``offset`` (counted in i64); lanes outside ``mask`` stay."""
        address = self._index_address(pointer, offset)
        count = value.ir.type.count
        wide = self.builder.sext(value.ir, ir.VectorType(I64, count))
        if mask is None:
            self.builder.store(wide, address, align=8)
            return
        name = f"llvm.masked.store.v{count}i64.p0"
        self._masked(name, ir.VoidType(), (wide, address), (mask.ir,))

    def load_pointer(self, pointer: Value, offset: Index = 0, *, halves: bool = False) -> Value:
        """The pointer, to halves or floats, at ``offset`` (counted in i64) behind ``pointer``."""
        address = self._index_address(pointer, offset)
        kind = HALF_POINTER if halves else POINTER
        return self.wrap(self.builder.load(address, align=8, typ=kind))

    def index_pointer(self, pointer: Value, offset: Index) -> Value:
        """``pointer`` advanced by ``offset`` i64."""
        return self.wrap(self._index_address(pointer, offset))

    def _index_address(self, pointer: Value, offset: Index) -> Any:
        return self.builder.gep(pointer.ir, [self.constant(offset, I64)], source_etype=I64)

    def element_bytes(self, pointer: Value) -> int:
        """Bytes of what ``pointer`` counts in."""
        return 4 if element_type(pointer.ir) == F32 else 2

    def prefetch(
        self, pointer: Value, offset: Index = 0, *, write: bool = False, level: int = 1
    ) -> None:
        """Ask for the cache line of ``pointer + offset``, to ``write`` it or read; never faults.

        ``level`` is the cache it is wanted in.
        """
        address = self.add(pointer, offset).ir
        flags = [ir.Constant(I32, n) for n in (int(write), 4 - level, 1)]
        self.intrinsic("llvm.prefetch.p0", ir.VoidType(), address, *flags)

    def gather(self, pointer: Value, stride: Index, mask: Value) -> Value:
        """Lanes l from ``pointer + l * stride``; lanes outside ``mask`` are zero, unread."""
        lanes = mask.ir.type.count
        numbers = ir.Constant(ir.VectorType(I64, lanes), list(range(lanes)))
        offsets = self.builder.mul(numbers, self._splat_index(stride, lanes))
        return self._gather(pointer, offsets, mask)

    def gather_at(self, pointer: Value, offsets: Value, mask: Value) -> Value:
        """Lanes l from ``pointer + offsets[l]`` (i32); lanes outside ``mask`` are zero, unread."""
        return self._gather(pointer, offsets.ir, mask)

    def _gather(self, pointer: Value, offsets: Any, mask: Value) -> Value:
        lanes = mask.ir.type.count
        kind = self.vector_type(lanes)
        gep = self.builder.gep(pointer.ir, [offsets], source_etype=F32)
        gep.type = ir.VectorType(POINTER, lanes)
        name = f"llvm.masked.gather.v{lanes}f32.v{lanes}p0"
        arguments = (gep, ir.Constant(I32, 4), mask.ir, self.constant(0.0, kind))
        return self.wrap(self.intrinsic(name, kind, *arguments))


def _of_halves(kind: Any) -> Any:
    """The type of halves for a type of floats."""
    return ir.VectorType(F16, kind.count) if isinstance(kind, ir.VectorType) else F16
