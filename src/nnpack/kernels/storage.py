"""Weights in half precision: halves made floats, and the scale of transformed weights.

Packed weights are halves where a kernel's argument word is of the kind "halves": a vector of them
becomes floats as it is loaded. A half that is broadcast would cost a conversion each time: such
panels are widened as a whole before they are used.

Transformed weights may be much smaller than the weights, or larger: they are multiplied by a power
of two that leaves the greatest of them just within the range of halves, and only what is 2^-27 of
it is subnormal. The products are divided by it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnpack.frozen import dataclass
from nnpack.kernels.stage import Arguments, Fields, emit_stage
from nnpack.kernels.weights import WEIGHT_FIELDS
from nnpack.problem import WeightStorage

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Value

SCALE_BYTES = 64
"""A cache line before transformed halves: the scale, and one over it."""


def scaled_fields(name: str, storage: WeightStorage) -> dict[str, str]:
    """The words of transformed weights: the word ``name`` and, of halves, their scale."""
    if storage == "float32":
        return {name: "pointer"}
    return {name: "halves", "weight_scale": "pointer"}


def emit_scale(asm: Assembler, args: Arguments) -> Value:
    """What transformed weights are multiplied by before they are stored as halves."""
    return asm.broadcast(args["weight_scale"])


def emit_inverse_scale(asm: Assembler, args: Arguments) -> Value:
    """What products of such weights are multiplied by."""
    return asm.broadcast(args["weight_scale"], 1)


def emit_widen_function(asm: Assembler) -> None:
    """Define ``widen``: ``count`` halves at ``source`` become floats at ``to``."""
    with asm.function("widen", source="halves", to="pointer", count="index") as (
        source,
        to,
        count,
    ):
        whole = count - count % asm.lanes
        with asm.loop(whole, step=asm.lanes) as i:
            asm.store(asm.load(source, i), to, i)
        with asm.loop(count, start=whole) as i:
            asm.store(asm.load_float(source, i), to, i)


_EXPONENT_MASK = 0x7F800000
_EXPONENT_SHIFT = 23
_BIAS = 127
# The least half above zero, and what stands for weights that are all zeros.
_LEAST_EXPONENT = -24


@dataclass(frozen=True)
class ScaleWeights:
    """The stage that finds the scale: ``2^exponent <= scale * max|weight| < 2^(exponent + 1)``.

    The maximum is that of the finite weights. One task.
    """

    exponent: int

    @property
    def fields(self) -> Fields:
        """The argument words."""
        return {**WEIGHT_FIELDS, "groups": "index", "weight_scale": "pointer"}

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        with emit_stage(asm, self.fields) as (args, first, last, _):
            with asm.loop(last, start=first):
                bits = asm.bitcast_to_int(_emit_greatest(asm, args)) & _EXPONENT_MASK
                bits = asm.maximum(bits, (_BIAS + _LEAST_EXPONENT) << _EXPONENT_SHIFT)
                power = ((2 * _BIAS + self.exponent) << _EXPONENT_SHIFT) - bits
                inverse = bits - (self.exponent << _EXPONENT_SHIFT)
                for n, value in enumerate((power, inverse)):
                    number = asm.extract(asm.bitcast_to_float(value), 0)
                    asm.store(number, args["weight_scale"], n)


def _emit_greatest(asm: Assembler, args: Arguments) -> Value:
    """The greatest finite |weight|, in every lane."""
    state = {"greatest": asm.zeros()}
    with asm.loop(args["groups"], carry=state) as group:
        start = args["weight"] + group * args["weight_group"]
        with asm.loop(args["group_out_channels"], step=asm.lanes, carry=state) as k:
            mask = asm.lanes_below(args["group_out_channels"] - k)
            kernel = start + k * args["weight_out"]
            with asm.loop(args["channels"], carry=state) as c:
                _emit_taps(asm, args, kernel + c * args["weight_channel"], mask, state)
    greatest, step = state["greatest"], asm.lanes // 2
    while step:
        other = asm.shuffle(greatest, None, [lane ^ step for lane in range(asm.lanes)])
        greatest, step = asm.maximum(greatest, other), step // 2
    return greatest


def _emit_taps(
    asm: Assembler, args: Arguments, kernel: Value, mask: Value, state: dict[str, Value]
) -> None:
    """The taps of one channel, output channels in the lanes."""
    with asm.loop(args["kernel_h"], carry=state) as r:
        with asm.loop(args["kernel_w"], carry=state) as s:
            tap = kernel + r * args["weight_row"] + s * args["weight_column"]
            weights = asm.gather(tap, args["weight_out"], mask)
            magnitude = asm.maximum(weights, -weights)
            finite = asm.compare("<", magnitude, float("inf"))
            magnitude = asm.select(finite, magnitude, asm.zeros())
            state["greatest"] = asm.maximum(magnitude, state["greatest"])
