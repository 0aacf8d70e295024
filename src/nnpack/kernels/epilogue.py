"""The epilogue: what happens to a value between its accumulator and memory.

``y = activation(scale * v + bias + residual)``, or with the residual outside. Every kernel that
stores outputs goes through `Epilogue`: it *prepares* a value with the terms of its lanes (one
channel: splatted; channels in the lanes: a vector), turns it into rows of pixels if it is not one,
and *stores* it, which adds the residual. So one description serves every layout.
Where y is pooled, four values are prepared together and give one; a residual, which has the shape
from before the pool, is then loaded like the values and added first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from nnpack.frozen import dataclass
from nnpack.kernels.activations import ACTIVATIONS, STREAMING, Activation
from nnpack.kernels.reduction import Reduction
from nnpack.kernels.stage import Arguments
from nnpack.problem import EpilogueKind

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Index, Mask, Value


SUMS = ("sums_shift", "sums_mean", "sums_square", "sums_count")
"""Arrays (pieces of the outputs, channels), of what was stored: see `kernels.stored_sums`."""

_SUM_WORDS = ("sums_size", "sums_channels")


def _emitted(kind: EpilogueKind) -> Activation | None:
    return None if kind.activation is None else ACTIVATIONS[kind.activation]


def _parameters(kind: EpilogueKind) -> tuple[str, ...]:
    activation = _emitted(kind)
    return () if activation is None else activation.parameters


# The residual of vector j of output row i, of two, laid out like the values; what no output is
# pooled from may be anything.
Residuals = Callable[[int, int], "Value"]

# Activations that never fall, whatever their parameters.
_RISING = (None, "relu", "clip", "sigmoid", "tanh")


# Those of a residual of what is pooled, which does not lie as y does.
RESIDUAL_STRIDES = ("residual_n", "residual_c", "residual_h")


def epilogue_fields(kind: EpilogueKind) -> dict[str, str]:
    """The argument words an epilogue reads."""
    fields = {}
    if kind.scale:
        fields["scale"] = "pointer"
    if kind.bias:
        fields["bias"] = "pointer"
    if kind.residual:
        fields["residual"] = "pointer"
        if kind.pool:
            fields |= dict.fromkeys(RESIDUAL_STRIDES, "index")
    if kind.per_channel:
        fields["slopes"] = "pointer"
    if kind.statistics:
        fields |= {**dict.fromkeys(SUMS, "pointer"), **dict.fromkeys(_SUM_WORDS, "index")}
    return fields | dict.fromkeys(_parameters(kind), "float")


def epilogue_arguments(kind: EpilogueKind, parameters: tuple[float, ...]) -> dict[str, float]:
    """The numbers of the activation under the names of their argument words."""
    return dict(zip(_parameters(kind), parameters, strict=True))


@dataclass(frozen=True)
class ChannelTerms:
    """The terms of the channels of one vector; None where the epilogue has none."""

    scale: Value | None
    bias: Value | None
    slope: Value | None = None


class Epilogue:
    """Emits an epilogue inside one function; reads its numbers where it is constructed.

    The word ``y`` is where the output begins. A residual lies as the output does: what belongs
    to an output is as far from the residual's first element as the output is from y's. That of
    what is pooled has strides of its own: see `residual_row`.
    """

    def __init__(self, asm: Assembler, kind: EpilogueKind, arguments: Arguments) -> None:
        self.asm = asm
        self.kind = kind
        self._arguments = arguments
        self._activation = _emitted(kind)
        self._numbers = tuple(asm.splat(arguments[name]) for name in _parameters(kind))
        if kind.activation not in STREAMING:
            # Behind a product they spill its sums: Gelu took 41 cycles a vector, not 23.
            asm.align_spills()
        # Whether a residual is added to what is stored.
        self.adds = kind.residual is not None and kind.pool is None
        if self.adds:
            self._distance = asm.distance(arguments["residual"], arguments["y"])

    def of_channel(self, channel: Index) -> ChannelTerms:
        """The terms of one channel in every lane."""
        return self._terms(lambda name: self.asm.broadcast(self._arguments[name], channel))

    def of_lanes(self, channel: Index, mask: Mask) -> ChannelTerms:
        """The terms of channels ``channel + l`` in lanes l; nothing is read outside ``mask``."""
        return self._terms(lambda name: self.asm.load(self._arguments[name], channel, mask=mask))

    def _terms(self, read: Callable[[str], Value]) -> ChannelTerms:
        return ChannelTerms(
            read("scale") if self.kind.scale else None,
            read("bias") if self.kind.bias else None,
            read("slopes") if self.kind.per_channel else None,
        )

    def prepare(self, value: Value, terms: ChannelTerms) -> Value:
        """What comes before a residual: ``scale * value + bias``, or its activation."""
        if terms.scale is not None and terms.bias is not None:
            value = self.asm.fma(terms.scale, value, terms.bias)
        elif terms.scale is not None:
            value = value * terms.scale
        elif terms.bias is not None:
            value = value + terms.bias
        return value if self.kind.residual == "before" else self._activate(value, terms.slope)

    @property
    def step(self) -> int:
        """Outputs in either direction that give one number of y: 2 where they are pooled."""
        return 2 if self.kind.pool else 1

    def prepare_rows(
        self,
        rows: Sequence[Sequence[Value]],
        terms: ChannelTerms,
        residuals: Residuals | None = None,
    ) -> list[Value]:
        """What ``step`` rows of neighbouring outputs, an even number where pooled, give of y."""
        if not self.kind.pool:
            return [self.prepare(value, terms) for value in rows[0]]
        upper, lower = self._added(rows, terms, residuals)
        return [
            self.prepare_window([upper[j], lower[j], upper[j + 1], lower[j + 1]], terms)
            for j in range(0, len(upper), 2)
        ]

    def prepare_pixels(
        self,
        upper: Sequence[Value],
        lower: Sequence[Value],
        terms: ChannelTerms,
        residuals: Residuals | None = None,
    ) -> list[Value]:
        """What two rows of neighbouring outputs, in the lanes, give of y.

        Half as many vectors; of an odd number the last one is half as wide.
        """
        asm, lanes = self.asm, self.asm.lanes
        upper, lower = self._added((upper, lower), terms, residuals)
        found = []
        for j in range(0, len(upper), 2):
            window = []
            for side in range(2):
                order = [2 * lane + side for lane in range(lanes)]
                for row in (upper, lower):
                    window.append(asm.shuffle(row[j], row[min(j + 1, len(row) - 1)], order))
            value = self.prepare_window(window, terms)
            if j + 1 == len(upper):
                value = asm.shuffle(value, None, list(range(lanes // 2)))
            found.append(value)
        return found

    def _added(
        self,
        rows: Sequence[Sequence[Value]],
        terms: ChannelTerms,
        residuals: Residuals | None,
    ) -> Sequence[Sequence[Value]]:
        """The rows complete with their residual; as they are where there is none."""
        if residuals is None:
            return rows
        return [
            [
                self.finish(self.prepare(value, terms), residuals(i, j), terms=terms)
                for j, value in enumerate(row)
            ]
            for i, row in enumerate(rows)
        ]

    def prepare_window(self, values: Sequence[Value], terms: ChannelTerms) -> Value:
        """Two columns of two outputs each, prepared and pooled; only pooled if complete.

        What never falls where its argument rises may come after a maximum, once for all four.
        """
        assert self.kind.pool is not None
        reduce = Reduction(self.asm, self.kind.pool)
        if self.kind.residual:
            pooled = reduce(values)
            return pooled if self.kind.pool == "max" else pooled * 0.25
        if self.kind.pool == "max" and terms.scale is None and self.kind.activation in _RISING:
            return self.prepare(reduce(values), terms)
        pooled = reduce([self.prepare(value, terms) for value in values])
        return pooled if self.kind.pool == "max" else pooled * 0.25

    def store(
        self,
        value: Value,
        target: Value,
        offset: Index = 0,
        *,
        mask: Mask = None,
        channel: Index | None = None,
        terms: ChannelTerms | None = None,
    ) -> None:
        """Finish a prepared value, and store it at ``target + offset``.

        ``channel`` is that of all lanes, ``terms`` are those of each: one is given. Neither y nor
        the residual are touched outside ``mask``.
        """
        if self.adds:
            lanes = value.ir.type.count
            residual = self.asm.load(self.residual(target), offset, mask=mask, lanes=lanes)
            value = self.finish(value, residual, channel=channel, terms=terms)
        self.asm.store(value, target, offset, mask=mask)

    def store_first(
        self, value: Value, count: int, target: Value, offset: Index = 0, *, channel: Index
    ) -> None:
        """`store` of the first ``count`` lanes, in pieces of powers of two."""
        if self.adds:
            lanes = value.ir.type.count
            residual = self.asm.load_first(count, self.residual(target), offset, lanes=lanes)
            value = self.finish(value, residual, channel=channel)
        self.asm.store_first(value, count, target, offset)

    def residual_row(self, image: Index, channel: Index, row: Index) -> Value:
        """Where row ``row`` of the residual of what is pooled begins, its pixels side by side."""
        n, c, h = self._arguments.load(*RESIDUAL_STRIDES)
        return self._arguments["residual"] + (image * n + channel * c + row * h)

    def residual_pixels(self, image: Index, channel: Index, place: Index, count: Index) -> Value:
        """That of a pixel, ``place`` behind the first of its plane, ``count`` channels in lanes."""
        source = self.residual_row(image, channel, 0) + place
        stride = self._arguments["residual_c"]
        return self.asm.gather(source, stride, self.asm.lanes_below(count))

    def residual(self, target: Value) -> Value:
        """Where the residual of the output at ``target`` is; only for epilogues that have one."""
        return target + self._distance

    def finish(
        self,
        value: Value,
        residual: Value,
        *,
        channel: Index | None = None,
        terms: ChannelTerms | None = None,
    ) -> Value:
        """A prepared value with its residual; of one channel in all lanes, or with their terms."""
        value = value + residual
        if self.kind.residual != "before":
            return value
        slope = None if terms is None else terms.slope
        if self.kind.per_channel and channel is not None:
            slope = self.asm.broadcast(self._arguments["slopes"], channel, value.ir.type.count)
        return self._activate(value, slope)

    def _activate(self, value: Value, slope: Value | None) -> Value:
        if self._activation is None:
            return value
        # Rows of pixels may be narrower than a register; the first lanes of one cost nothing.
        lanes = value.ir.type.count
        numbers = self._numbers if slope is None else (slope, *self._numbers)
        fitted = (
            n if n.ir.type.count == lanes else self.asm.shuffle(n, None, range(lanes))
            for n in numbers
        )
        return self._activation.emit(self.asm, value, *fitted)
