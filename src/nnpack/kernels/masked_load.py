"""Loads of a gradient that is behind an activation, whose output lies as the gradient does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnpack.kernels.activations import ACTIVATIONS
from nnpack.kernels.stage import Arguments, Fields
from nnpack.problem import ActivationKind

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Index, Mask, Value


def masked_load_fields(activation: ActivationKind | None) -> Fields:
    """The argument words of `MaskedLoad`: none without an activation."""
    if activation is None:
        return {}
    return {"output": "pointer", **dict.fromkeys(ACTIVATIONS[activation].parameters, "float")}


class MaskedLoad:
    """Emits ``grad * act'(output)`` where gradients are loaded; without ``activation``, grad.

    The word ``output`` is where the output of the activation begins, whose element is as far from
    it as that of the gradient is from the word ``grad``. Reads its numbers where it is constructed.
    No activation with a slope for each channel.
    """

    def __init__(
        self, asm: Assembler, activation: ActivationKind | None, args: Arguments, grad: str
    ) -> None:
        self.asm = asm
        self.activation = activation
        if activation is not None:
            self._distance = asm.distance(args["output"], args[grad])
            names = ACTIVATIONS[activation].parameters
            self._numbers = tuple(asm.splat(args[name]) for name in names)

    def __call__(
        self, place: Value, offset: Index = 0, *, mask: Mask = None, lanes: int | None = None
    ) -> Value:
        """The numbers at ``place + offset``; nothing is read outside ``mask``, which gives 0."""
        value = self.asm.load(place, offset, mask=mask, lanes=lanes)
        if self.activation is None:
            return value
        from nnpack.kernels.derivatives import OUTPUT_GRADIENTS

        output = self.asm.load(place + self._distance, offset, mask=mask, lanes=lanes)
        numbers, width = self._numbers, value.ir.type.count
        if width != self.asm.lanes:
            numbers = tuple(self.asm.shuffle(n, None, range(width)) for n in numbers)
        return OUTPUT_GRADIENTS[self.activation](self.asm, value, output, *numbers)

    def prefetch(self, place: Value, offset: Index) -> None:
        """Ask for what is at ``place + offset`` of both arrays."""
        self.asm.prefetch(place, offset)
        if self.activation is not None:
            self.asm.prefetch(place + self._distance, offset)
