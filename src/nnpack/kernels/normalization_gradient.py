"""Gradients of batch normalisation: of gamma and beta by chunks, then of x."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from nnpack.frozen import dataclass
from nnpack.kernels.chunks import (
    CHUNKS,
    EXTENTS,
    Channels,
    Chunk,
    emit_channels,
    emit_each,
    find_chunk,
)
from nnpack.kernels.stage import Arguments, emit_stage

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Mask, Value


_SUMS = ("bias_sums", "slope_sums")


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
                _store_sums(asm, args, find_chunk(asm, args, task, self.planes))


def _store_sums(asm: Assembler, args: Arguments, chunk: Chunk) -> None:
    """Write ``sum(g), sum(g * (x - mean))`` of a chunk."""
    x, grad, mean = args["x"], args["grad"], chunk.channels.load(args["mean"])

    def elements(offset: Value, mask: Mask) -> tuple[Value, Value]:
        slope = asm.load(grad, offset, mask=mask)
        return slope, (asm.load(x, offset, mask=mask) - mean) * slope

    for name, value in zip(_SUMS, chunk.sums(elements, len(_SUMS)), strict=True):
        chunk.store(value, args[name])


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
                channels = Channels(asm, task * asm.lanes, args["channels"])
                terms = _combine(asm, args, channels, self.gamma, self.constant)
                for name, value in terms.items():
                    channels.store(value, args[name])


def _combine(
    asm: Assembler, args: Arguments, channels: Channels, gamma: bool, constant: bool
) -> dict[str, Value]:
    """Gradients of gamma and beta, written, and the terms of that of x, which are not."""
    sums = dict.fromkeys(_SUMS, asm.zeros())
    with asm.loop(args["image_chunks"] * args["parts"], carry=sums) as number:
        for name, value in list(sums.items()):
            sums[name] = value + channels.load(args[name], number * args["channels"])
    inverse = channels.load(args["inverse_std"])
    grad_beta, grad_gamma = sums["bias_sums"], sums["slope_sums"] * inverse
    channels.store(grad_gamma, args["grad_gamma"])
    channels.store(grad_beta, args["grad_beta"])
    factor = inverse * channels.load(args["gamma"]) if gamma else inverse
    if constant:
        return {"factor": factor}
    share = asm.divide(factor, asm.splat(asm.to_float(args["batch"] * args["pixels"])))
    return {"factor": factor, "slope": share * grad_gamma * inverse, "bias": share * grad_beta}


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

            write = _write_gradient(asm, args)
            emit_each(asm, args, (first, last), self.planes, terms_of, write)


def _write_gradient(asm: Assembler, args: Arguments) -> Callable[..., None]:
    """What writes the numbers at an offset, given the factor and, if any, mean, slope and bias."""

    def write(offset: Value, mask: Mask, factor: Value, *terms: Value) -> None:
        value = asm.load(args["grad"], offset, mask=mask) * factor
        if terms:
            mean, slope, bias = terms
            distance = asm.load(args["x"], offset, mask=mask) - mean
            value = value - asm.fma(slope, distance, bias)
        asm.store(value, args["y"], offset, mask=mask)

    return write


@dataclass(frozen=True)
class GradientChannels:
    """`ChunkGradients`, `CombineGradients` and `InputGradient`, one channel after the other.

    As in `normalization.NormalizeChannels`.
    """

    gamma: bool
    constant: bool

    @property
    def fields(self) -> dict[str, str]:
        """The argument words."""
        names = ["x", "grad", "mean", "inverse_std", *(["gamma"] if self.gamma else [])]
        pointers = dict.fromkeys((*names, *_SUMS, "y", "grad_gamma", "grad_beta"), "pointer")
        return {**pointers, "block": "index", **EXTENTS, **CHUNKS}

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        with emit_stage(asm, self.fields) as (args, first, last, _):
            write = _write_gradient(asm, args)

            def differentiate(channel: Channels) -> Callable[[Value, Mask], None]:
                found = _combine(asm, args, channel, self.gamma, self.constant)
                terms = [found.pop("factor")]
                if found:
                    terms += [channel.load(args["mean"]), *found.values()]
                return lambda offset, mask: write(offset, mask, *terms)

            def sum_chunk(chunk: Chunk) -> None:
                _store_sums(asm, args, chunk)

            emit_channels(asm, args, (first, last), sum_chunk, differentiate)
