"""Gradients of batch normalisation: of gamma and beta by chunks, then of x."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnpack.frozen import dataclass
from nnpack.kernels.chunks import CHUNKS, EXTENTS, emit_each, find_chunk
from nnpack.kernels.stage import Arguments, emit_stage

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Mask, Value


@dataclass(frozen=True)
class ChunkGradients:
    """The stage ``bias, slope = sum(g), sum(g * (x - mean))`` of every chunk, (chunks, channels).

    ``grad`` is the gradient of y. Chunks and tasks are those of `ChunkMoments`.
    """

    planes: bool

    @property
    def fields(self) -> dict[str, str]:
        """The argument words."""
        pointers = dict.fromkeys(("x", "grad", "mean", "bias_sums", "slope_sums"), "pointer")
        return {**pointers, **EXTENTS, **CHUNKS}

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        with emit_stage(asm, self.fields) as (args, first, last, _):
            with asm.loop(last, start=first) as task:
                chunk = find_chunk(asm, args, task, self.planes)
                x, grad, mean = args["x"], args["grad"], chunk.load(args["mean"])

                def product(offset: Value, mask: Mask, mean: Value = mean) -> Value:
                    distance = asm.load(x, offset, mask=mask) - mean
                    return distance * asm.load(grad, offset, mask=mask)

                total = chunk.sum(lambda offset, mask: asm.load(grad, offset, mask=mask))
                chunk.store(total, args["bias_sums"])
                chunk.store(chunk.sum(product), args["slope_sums"])


@dataclass(frozen=True)
class CombineGradients:
    """The stage that adds the chunks: gradients of gamma and beta, and the terms of that of x.

    ``grad_gamma = inverse_std * sum(g (x - mean))``, ``grad_beta = sum(g)``; with
    ``a = gamma * inverse_std`` and m numbers a channel the gradient of x is
    ``a * g - slope * (x - mean) - bias``, where ``slope = a inverse_std^2 sum(g (x - mean)) / m``
    and ``bias = a sum(g) / m`` (Ioffe & Szegedy, 2015, section 3), or ``a * g`` when mean and
    variance are ``constant``. A task is a vector of channels.
    """

    gamma: bool
    constant: bool

    @property
    def fields(self) -> dict[str, str]:
        """The argument words."""
        names = ("bias_sums", "slope_sums", "inverse_std", "grad_gamma", "grad_beta", "factor")
        more = (*(("gamma",) if self.gamma else ()), *(() if self.constant else ("slope", "bias")))
        return {**dict.fromkeys((*names, *more), "pointer"), **EXTENTS, **CHUNKS}

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        with emit_stage(asm, self.fields) as (args, first, last, _):
            with asm.loop(last, start=first) as task:
                channel = task * asm.lanes
                mask = asm.lanes_below(args["channels"] - channel)
                sums = {"bias_sums": asm.zeros(), "slope_sums": asm.zeros()}
                with asm.loop(args["image_chunks"] * args["parts"], carry=sums) as number:
                    for name, value in list(sums.items()):
                        offset = number * args["channels"] + channel
                        sums[name] = value + asm.load(args[name], offset, mask=mask)
                for name, value in self._terms(asm, args, channel, mask, sums).items():
                    asm.store(value, args[name], channel, mask=mask)

    def _terms(
        self, asm: Assembler, args: Arguments, channel: Value, mask: Value, sums: dict[str, Value]
    ) -> dict[str, Value]:
        inverse = asm.load(args["inverse_std"], channel, mask=mask)
        grad_gamma = sums["slope_sums"] * inverse
        factor = inverse
        if self.gamma:
            factor = inverse * asm.load(args["gamma"], channel, mask=mask)
        terms = {"grad_gamma": grad_gamma, "grad_beta": sums["bias_sums"], "factor": factor}
        if not self.constant:
            count = asm.splat(asm.to_float(args["batch"] * args["pixels"]))
            share = asm.divide(factor, count)
            terms["slope"] = share * grad_gamma * inverse
            terms["bias"] = share * sums["bias_sums"]
        return terms


@dataclass(frozen=True)
class InputGradient:
    """The stage ``y = factor * g - slope * (x - mean) - bias``, or ``factor * g`` if ``constant``.

    y is the gradient of x. A task is as in `Normalize`.
    """

    planes: bool
    constant: bool

    @property
    def fields(self) -> dict[str, str]:
        """The argument words."""
        more = () if self.constant else ("x", "mean", "slope", "bias")
        pointers = dict.fromkeys(("grad", "y", "factor", *more), "pointer")
        return {**pointers, **EXTENTS, "block": "index"}

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        names = ("factor",) if self.constant else ("factor", "mean", "slope", "bias")
        with emit_stage(asm, self.fields) as (args, first, last, _):

            def terms_of(channel: Value, mask: Mask) -> tuple[Value, ...]:
                if self.planes:
                    return tuple(asm.broadcast(args[name], channel) for name in names)
                return tuple(asm.load(args[name], channel, mask=mask) for name in names)

            def write(offset: Value, mask: Mask, factor: Value, *terms: Value) -> None:
                value = asm.load(args["grad"], offset, mask=mask) * factor
                if terms:
                    mean, slope, bias = terms
                    distance = asm.load(args["x"], offset, mask=mask) - mean
                    value = value - asm.fma(slope, distance, bias)
                asm.store(value, args["y"], offset, mask=mask)

            emit_each(asm, args, (first, last), self.planes, terms_of, write)
