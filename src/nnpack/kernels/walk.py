"""Rows of input seen through the taps of a row, block by block, each float loaded once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from nnpack.kernels.stage import Arguments
from nnpack.kernels.taps import TapLoad, split_order

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Value


def walk_reach(taps: int, stride: int) -> int:
    """Floats that taps reach to the left of the first of a block, when tiles walk."""
    return max(0, taps - stride)


def can_walk(taps: int, stride: int, pad_left: int, lanes: int) -> bool:
    """Whether tiles can walk: no block begins in the padding, and one vector is to their left."""
    reach = walk_reach(taps, stride)
    return pad_left <= reach and reach + stride <= lanes


class Walk:
    """The rows at ``sources``, from left to right.

    ``sources`` are at column ``-pad_left``, ``zeros`` at a row of zeros. ``carry`` goes from block
    to block, as `Assembler.loop` has it. The argument ``inner_first`` is zero.

    Block v of a row is ``stride`` vectors, parted into as many phases, such that the last tap of
    the first column is the last float of the first lane of all phases. Taps further left read a
    phase shifted, its first lanes those that were last in the block before.
    """

    def __init__(
        self,
        asm: Assembler,
        taps: int,
        stride: int,
        args: Arguments,
        sources: Sequence[Value],
        zeros: Value,
    ) -> None:
        self._asm = asm
        self._stride = stride
        self._args = args
        self._sources = sources
        self._before = walk_reach(taps, stride)
        self._taps = [divmod(s - self._before, stride) for s in range(taps)]
        least = min(shift for shift, _ in self._taps)
        # Parting within quarters of registers beside multiply-adds is free, across them it is not.
        self._split = stride == 2 and least >= -2 and asm.lanes >= 8
        self._order = split_order(asm.lanes) if self._split else range(asm.lanes)
        # LLVM does not know that this is zero, and so leaves blends alone.
        end = args["inner_first"] + asm.lanes
        self._last = {n: asm.lanes_between(end + n, asm.lanes) for n in range(least, 0)}
        carried = sorted({phase for shift, phase in self._taps if shift < 0})
        self.carry: dict[Any, Value] = {}
        if carried:
            self._load_first(carried, zeros)

    def _load_first(self, phases: Sequence[int], zeros: Value) -> None:
        """What is left of the first block: padding, and up to ``kw - sw`` floats."""
        asm, stride, lanes = self._asm, self._stride, self._asm.lanes
        start = self._before - lanes
        inside = self._args["pad_left"] - start
        mask = asm.lanes_between(inside, inside + self._args["width"])
        any_inside = asm.compare(">", self._before, self._args["pad_left"])
        for t, source in enumerate(self._sources):
            pointer = asm.select(any_inside, source + start, zeros)
            vector = asm.load(pointer, mask=mask)
            for phase in phases:
                places = [max(0, phase + (pixel - lanes) * stride + lanes) for pixel in self._order]
                self.carry[t, phase] = asm.shuffle(vector, None, places)

    def bounds(self, v: Value) -> tuple[Value, Value]:
        """Which floats of block ``v`` are inside the image."""
        first = v * self._stride + self._before - self._args["pad_left"]
        return 0 - first, self._args["width"] - first

    def columns(self, v: Value, bounds: tuple[Value, Value] | None) -> Callable[[int], list[Value]]:
        """For row t of a tile at output column ``v`` what each tap column reads."""
        stride = self._stride
        load = TapLoad(self._asm, stride, stride, bounds, self._order)
        column = v * stride + self._before

        def read(t: int) -> list[Value]:
            phases = load(self._sources[t] + column)
            taps = [self._shifted(t, phases, shift, phase) for shift, phase in self._taps]
            self.carry.update({key: phases[key[1]] for key in self.carry if key[0] == t})
            return taps

        return read

    def _shifted(self, t: int, phases: Sequence[Value], shift: int, phase: int) -> Value:
        """Phase ``phase`` of row t, lane l its lane ``l + shift``, some from the block before."""
        asm, lanes = self._asm, self._asm.lanes
        if shift == 0:
            return phases[phase]
        if not self._split:
            order = range(lanes + shift, 2 * lanes + shift)
            return asm.shuffle(self.carry[t, phase], phases[phase], order)
        joined = asm.select(self._last[shift], self.carry[t, phase], phases[phase])
        place = self._order.index
        turned = [place((pixel + shift) % lanes) for pixel in self._order]
        return asm.shuffle(joined, None, turned)

    def restore(self, value: Value) -> Value:
        """The pixels of a sum in their own order."""
        if not self._split:
            return value
        return self._asm.shuffle(
            value, None, [self._order.index(p) for p in range(self._asm.lanes)]
        )
