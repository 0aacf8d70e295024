"""Gradients behind activations: masked by the derivative and summed, in one pass over memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nnpack.frozen import dataclass
from nnpack.kernels.activations import ACTIVATIONS
from nnpack.kernels.stage import Arguments, emit_stage
from nnpack.kernels.vectors import emit_lane_sum, emit_vectors
from nnpack.problem import ActivationKind

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Mask, Value

# Chains of additions in a plane.
_CHAINS = 4
# Pixels of larger planes that are summed by themselves.
PIECE = 1 << 16


def mask_fields(activation: ActivationKind | None) -> dict[str, str]:
    """The argument words of an activation and of its output."""
    if activation is None:
        return {}
    emitted = ACTIVATIONS[activation]
    pointers = ("output", "slopes") if emitted.per_channel else ("output",)
    return {
        **dict.fromkeys(pointers, "pointer"),
        **dict.fromkeys(("output_n", "output_c"), "index"),
        **dict.fromkeys(emitted.parameters, "float"),
    }


@dataclass(frozen=True)
class OutputGradient:
    """The stage ``masked = grad * act'(y)`` and ``sums[k] (+)= sum of masked``; a channel a task.

    ``act'`` is told from the output y of the activation, or for a "prelu" from its input, which
    has the same sign. ``activation`` None: masked is grad, and there is no y. ``masked``: masked is
    stored; ``sums``: it is summed, image after image and each image in chains of vectors, added to
    what sums holds with ``accumulate``; ``falls``: so is ``grad * min(y, 0)``, which is the
    gradient in the slope of a channel if y is the input. Planes are dense; with ``pieces``, larger
    than ``PIECE`` pixels, of which each sums by itself.
    """

    activation: ActivationKind | None
    masked: bool
    sums: bool
    falls: bool
    accumulate: bool
    pieces: bool = False

    @property
    def fields(self) -> dict[str, str]:
        """The argument words."""
        wanted = [name for name in ("masked", *self._sums) if getattr(self, name)]
        names = ("batch", "pixels", "grad_n", "grad_c", "y_n", "y_c")
        return {
            **dict.fromkeys(("grad", *wanted), "pointer"),
            **dict.fromkeys(names, "index"),
            **mask_fields(self.activation),
        }

    @property
    def _sums(self) -> tuple[str, ...]:
        """What is summed."""
        return tuple(name for name in ("sums", "falls") if getattr(self, name))

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        with emit_stage(asm, self.fields) as (args, first, last, _):
            numbers = self._numbers(asm, args)
            with asm.loop(last, start=first) as k:
                slope: tuple[Value, ...] = ()
                if self.activation and ACTIVATIONS[self.activation].per_channel:
                    slope = (asm.broadcast(args["slopes"], k),)
                state = {name: asm.zeros() for name in self._sums}
                with asm.loop(args["batch"], carry=state) as n:
                    with self._pieces(args, state) as begin:
                        sums = self._emit_piece(args, (*slope, *numbers), n, k, begin)
                        for name, value in sums.items():
                            state[name] = state[name] + value
                for name, value in state.items():
                    total = emit_lane_sum(asm, [value])
                    if self.accumulate:
                        total = total + asm.load_float(args[name], k)
                    asm.store(total, args[name], k)

    @contextmanager
    def _pieces(self, args: Arguments, state: dict[str, Value]) -> Iterator[Value]:
        """The loop over the places where the pieces of a plane begin, if it has several."""
        if not self.pieces:
            yield args.asm.index(0)
            return
        with args.asm.loop(args["pixels"], step=PIECE, carry=state) as begin:
            yield begin

    def _numbers(self, asm: Assembler, args: Arguments) -> tuple[Value, ...]:
        names = ACTIVATIONS[self.activation].parameters if self.activation else ()
        return tuple(asm.splat(args[name]) for name in names)

    def _emit_piece(
        self, args: Arguments, numbers: tuple[Value, ...], n: Value, k: Value, begin: Value
    ) -> dict[str, Value]:
        """A plane from ``begin`` on, a piece of it; returns the vectors of its sums."""
        from nnpack.kernels.derivatives import OUTPUT_GRADIENTS

        asm = args.asm
        grad = args["grad"] + n * args["grad_n"] + k * args["grad_c"] + begin
        chains = {(name, c): asm.zeros() for name in self._sums for c in range(_CHAINS)}
        output = target = grad
        if self.activation:
            output = args["output"] + n * args["output_n"] + k * args["output_c"] + begin
        if self.masked:
            target = args["masked"] + n * args["y_n"] + k * args["y_c"] + begin

        def body(offset: Value, mask: Mask, chain: int) -> None:
            # Lanes beyond a plane hold zeros, and keep them.
            value = asm.load(grad, offset, mask=mask)
            if self.activation:
                y = asm.load(output, offset, mask=mask)
                if self.falls:
                    fall = chains["falls", chain]
                    chains["falls", chain] = asm.fma(value, asm.minimum(0.0, y), fall)
                value = OUTPUT_GRADIENTS[self.activation](asm, value, y, *numbers)
            if self.masked:
                asm.store(value, target, offset, mask=mask)
            if self.sums:
                chains["sums", chain] = chains["sums", chain] + value

        count = asm.minimum(args["pixels"] - begin, PIECE) if self.pieces else args["pixels"]
        emit_vectors(asm, count, body, carry=chains, unroll=_CHAINS)
        return {
            name: (chains[name, 0] + chains[name, 1]) + (chains[name, 2] + chains[name, 3])
            for name in self._sums
        }
