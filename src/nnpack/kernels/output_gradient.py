"""Gradients behind an activation: masked by its derivative and summed, in one pass over memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnpack.frozen import dataclass
from nnpack.kernels.stage import Arguments, emit_stage
from nnpack.kernels.vectors import emit_lane_sum, emit_vectors
from nnpack.problem import ActivationKind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from nnpack.codegen.assembler import Assembler, Mask, Value

# Chains of additions in a plane.
_CHAINS = 4

# The numbers of the activations whose output tells the derivative.
_PARAMETERS: Mapping[str, tuple[str, ...]] = {
    "relu": (),
    "leaky_relu": ("slope",),
    "elu": ("alpha",),
    "clip": ("low", "high"),
    "sigmoid": (),
    "tanh": (),
}


@dataclass(frozen=True)
class OutputGradient:
    """The stage ``masked = grad * act'(y)`` and ``sums[k] (+)= sum of masked``; a channel a task.

    ``act'`` is told from the output y of the activation, as PyTorch does: where it has a corner,
    the derivative is that from the left. ``activation`` None: masked is grad, and there is no y.
    ``masked``: masked is stored; ``sums``: it is summed, image after image and each image in
    chains of vectors, added to what sums holds with ``accumulate``. Planes are dense.
    """

    activation: ActivationKind | None
    masked: bool
    sums: bool
    accumulate: bool

    @property
    def fields(self) -> dict[str, str]:
        """The argument words."""
        pointers = ["grad", *(["output"] if self.activation else [])]
        pointers += [name for name in ("masked", "sums") if getattr(self, name)]
        names = ("batch", "pixels", "grad_n", "grad_c", "output_n", "output_c", "y_n", "y_c")
        numbers = _PARAMETERS[self.activation] if self.activation else ()
        return {
            **dict.fromkeys(pointers, "pointer"),
            **dict.fromkeys(names, "index"),
            **dict.fromkeys(numbers, "float"),
        }

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        with emit_stage(asm, self.fields) as (args, first, last, _):
            derivative = self._derivative(asm, args)
            with asm.loop(last, start=first) as k:
                state = {"sum": asm.zeros()}
                with asm.loop(args["batch"], carry=state) as n:
                    plane = self._emit_plane(asm, args, derivative, n, k)
                    state["sum"] = state["sum"] + plane
                if self.sums:
                    total = emit_lane_sum(asm, [state["sum"]])
                    if self.accumulate:
                        total = total + asm.load_float(args["sums"], k)
                    asm.store(total, args["sums"], k)

    def _emit_plane(
        self,
        asm: Assembler,
        args: Arguments,
        derivative: Callable[[Value, Value], Value],
        n: Value,
        k: Value,
    ) -> Value:
        """One plane; returns the vector of its sums."""
        grad = args["grad"] + n * args["grad_n"] + k * args["grad_c"]
        chains: dict[int, Value] = {c: asm.zeros() for c in range(_CHAINS)}
        output = grad
        if self.activation:
            output = args["output"] + n * args["output_n"] + k * args["output_c"]
        target = args["masked"] + n * args["y_n"] + k * args["y_c"] if self.masked else grad

        def body(offset: Value, mask: Mask, chain: int) -> None:
            value = asm.load(grad, offset, mask=mask)
            if self.activation:
                value = derivative(value, asm.load(output, offset, mask=mask))
            if self.masked:
                asm.store(value, target, offset, mask=mask)
            if self.sums:
                chains[chain] = chains[chain] + value

        emit_vectors(asm, args["pixels"], body, carry=chains, unroll=_CHAINS)
        return (chains[0] + chains[1]) + (chains[2] + chains[3])

    def _derivative(self, asm: Assembler, args: Arguments) -> Callable[[Value, Value], Value]:
        """The function that takes a gradient and an output to the gradient before the activation.

        A NaN in the output lets the gradient through. Lanes beyond a plane hold zeros, and keep
        them.
        """
        zero = asm.zeros()
        if self.activation is None:
            return lambda grad, _: grad
        numbers = [asm.splat(args[name]) for name in _PARAMETERS[self.activation]]
        match self.activation:
            case "relu":
                return lambda grad, y: asm.select(y <= 0.0, zero, grad)
            case "leaky_relu":
                return lambda grad, y: asm.select(y <= 0.0, grad * numbers[0], grad)
            case "elu":
                return lambda grad, y: asm.select(y <= 0.0, grad * (y + numbers[0]), grad)
            case "clip":
                low, high = numbers
                return lambda grad, y: asm.select((y <= low) | (y >= high), zero, grad)
            case "sigmoid":
                return lambda grad, y: grad * (y * (1.0 - y))
            case "tanh":
                return lambda grad, y: grad * (1.0 - y * y)
            case other:
                raise NotImplementedError(f"{other} cannot be told from its output")
