"""Softmax along rows, or along columns side by side in the lanes, and its gradient.

Both layouts share the mathematics; an `_Axis` knows where the numbers of one softmax stand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from nnpack.frozen import dataclass
from nnpack.kernels.exponential import emit_exp, emit_log
from nnpack.kernels.stage import Arguments, emit_stage
from nnpack.kernels.vectors import emit_lane_maximum, emit_lane_sum, emit_vectors

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Index, Mask, Value

Element = Callable[["Value", "Mask"], "Value"]
"""What is to be summed of the numbers at an offset, under a mask."""

_UNROLL = 4
# Rows that are added one after the other.
_CHAIN = 256
_FIELDS = dict.fromkeys(("length", "inner", "count", "block"), "index")


@dataclass(frozen=True)
class Softmax:
    """The stage ``y = factor * exp(x - max) / sum(exp(x - max))``, or the logarithm of that.

    x and y are (outer, length, inner), dense, of which the middle axis sums to one. ``rows``: inner
    is 1. Otherwise lanes stand along inner. There are ``count`` rows, or vectors of columns; a task
    is a block of them. The logarithm takes no factor.
    """

    rows: bool
    logarithm: bool

    @property
    def fields(self) -> dict[str, str]:
        """The argument words."""
        return {"x": "pointer", "y": "pointer", **_FIELDS, "factor": "float"}

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        emit_chosen = _emit_log_softmax if self.logarithm else _emit_softmax
        with emit_stage(asm, self.fields) as (args, first, last, _):
            for axis in _each_axis(asm, args, first, last, self.rows):
                emit_chosen(axis, args)


@dataclass(frozen=True)
class SoftmaxGradient:
    """The stage ``x = y * (g - sum(g * y))``, or of the logarithm ``x = g - exp(y) * sum(g)``.

    Arrays are as in `Softmax`; ``grad`` is the gradient of y, x is written.
    """

    rows: bool
    logarithm: bool

    @property
    def fields(self) -> dict[str, str]:
        """The argument words."""
        return {"x": "pointer", "y": "pointer", "grad": "pointer", **_FIELDS}

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        emit_chosen = _emit_log_gradient if self.logarithm else _emit_gradient
        with emit_stage(asm, self.fields) as (args, first, last, _):
            for axis in _each_axis(asm, args, first, last, self.rows):
                emit_chosen(axis, args)


def _emit_softmax(axis: _Axis, args: Arguments) -> None:
    asm, x, y = axis.asm, args["x"], args["y"]
    greatest = axis.maximum(x)

    def exponential(offset: Value, mask: Mask) -> Value:
        value = emit_exp(asm, asm.load(x, offset, mask=mask) - greatest)
        asm.store(value, y, offset, mask=mask)
        return value

    scale = asm.divide(asm.splat(args["factor"]), axis.sum(exponential))

    def normalise(offset: Value, mask: Mask) -> None:
        asm.store(asm.load(y, offset, mask=mask) * scale, y, offset, mask=mask)

    axis.sweep(normalise)


def _emit_log_softmax(axis: _Axis, args: Arguments) -> None:
    asm, x, y = axis.asm, args["x"], args["y"]
    greatest = axis.maximum(x)

    def exponential(offset: Value, mask: Mask) -> Value:
        return emit_exp(asm, asm.load(x, offset, mask=mask) - greatest)

    logarithm = emit_log(asm, axis.sum(exponential))

    def shift(offset: Value, mask: Mask) -> None:
        value = (asm.load(x, offset, mask=mask) - greatest) - logarithm
        asm.store(value, y, offset, mask=mask)

    axis.sweep(shift)


def _emit_gradient(axis: _Axis, args: Arguments) -> None:
    asm, x, y, grad = axis.asm, args["x"], args["y"], args["grad"]
    total = axis.sum(
        lambda offset, mask: asm.load(grad, offset, mask=mask) * asm.load(y, offset, mask=mask)
    )

    def write(offset: Value, mask: Mask) -> None:
        value = asm.load(grad, offset, mask=mask) - total
        asm.store(asm.load(y, offset, mask=mask) * value, x, offset, mask=mask)

    axis.sweep(write)


def _emit_log_gradient(axis: _Axis, args: Arguments) -> None:
    asm, x, y, grad = axis.asm, args["x"], args["y"], args["grad"]
    total = axis.sum(lambda offset, mask: asm.load(grad, offset, mask=mask))

    def write(offset: Value, mask: Mask) -> None:
        share = emit_exp(asm, asm.load(y, offset, mask=mask)) * total
        asm.store(asm.load(grad, offset, mask=mask) - share, x, offset, mask=mask)

    axis.sweep(write)


class _Axis:
    """The numbers of one softmax in a row from offset ``start``."""

    def __init__(self, asm: Assembler, start: Value, length: Value) -> None:
        self.asm = asm
        self.start = start
        self.length = length

    def sweep(self, body: Callable[[Value, Mask], None]) -> None:
        """``body`` at all offsets."""
        emit_vectors(
            self.asm,
            self.length,
            lambda offset, mask, _: body(self.start + offset, mask),
            unroll=_UNROLL,
        )

    def sum(self, element: Element) -> Value:
        """The sum of all elements, in every lane."""
        zeros = {n: self.asm.zeros() for n in range(_UNROLL)}

        def add(offset: Value, mask: Mask, n: int) -> None:
            value = element(self.start + offset, mask)
            if mask is not None:
                value = self.asm.select(mask, value, self.asm.zeros())
            zeros[n] = zeros[n] + value

        emit_vectors(self.asm, self.length, add, carry=zeros, unroll=_UNROLL)
        return self.asm.splat(emit_lane_sum(self.asm, list(zeros.values())))

    def maximum(self, x: Value) -> Value:
        """The greatest number of x that is none of NaN, in every lane."""
        lowest = self.asm.splat(-math.inf)
        found = dict.fromkeys(range(_UNROLL), lowest)

        def compare(offset: Value, mask: Mask, n: int) -> None:
            value = self.asm.load(x, self.start + offset, mask=mask)
            if mask is not None:
                value = self.asm.select(mask, value, lowest)
            found[n] = self.asm.maximum(value, found[n])

        emit_vectors(self.asm, self.length, compare, carry=found, unroll=_UNROLL)
        return self.asm.splat(emit_lane_maximum(self.asm, list(found.values())))


class _Columns(_Axis):
    """The numbers of softmaxes side by side, ``inner`` floats from one row to the next."""

    def __init__(
        self, asm: Assembler, start: Value, length: Value, inner: Value, mask: Value
    ) -> None:
        super().__init__(asm, start, length)
        self.inner = inner
        self.mask = mask

    def sweep(self, body: Callable[[Value, Mask], None]) -> None:
        """``body`` at all offsets."""
        with self.asm.loop(self.length) as row:
            body(self.start + row * self.inner, self.mask)

    def sum(self, element: Element) -> Value:
        """The sum of all elements of each column: of chains, or its error would grow with them."""
        asm, total = self.asm, {0: self.asm.zeros()}
        with asm.loop(self.length, step=_CHAIN, carry=total) as first:
            chain = {0: asm.zeros()}
            with asm.loop(asm.minimum(self.length - first, _CHAIN), carry=chain) as n:
                chain[0] = chain[0] + element(self.start + (first + n) * self.inner, self.mask)
            total[0] = total[0] + chain[0]
        return total[0]

    def maximum(self, x: Value) -> Value:
        """The greatest number of each column of x that is none of NaN."""
        found = {0: self.asm.splat(-math.inf)}
        with self.asm.loop(self.length, carry=found) as row:
            value = self.asm.load(x, self.start + row * self.inner, mask=self.mask)
            found[0] = self.asm.maximum(value, found[0])
        return found[0]


def _each_axis(
    asm: Assembler, args: Arguments, first: Index, last: Index, rows: bool
) -> Iterator[_Axis]:
    """The loop over the rows, or vectors of columns, of the tasks; yields once."""
    length, inner, block = args.load("length", "inner", "block")
    stop = asm.minimum(asm.index(last) * block, args["count"])
    with asm.loop(stop, start=asm.index(first) * block) as number:
        if rows:
            yield _Axis(asm, number * length, length)
        else:
            vectors = asm.ceil_div(inner, asm.lanes)
            column = number % vectors * asm.lanes
            start = number // vectors * (length * inner) + column
            yield _Columns(asm, start, length, inner, asm.lanes_below(inner - column))
