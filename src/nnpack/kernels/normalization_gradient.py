"""Gradients of batch normalisation: of gamma and beta by chunks, then of x.

Behind the normalisation may be an activation, whose input ``v = scale * (x - mean) + beta`` is
computed again from x, as the forward pass did, to the last bit: what is read then is x and the
gradient of the activation's output, and nothing in between was ever stored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from nnpack.frozen import dataclass
from nnpack.kernels.activations import ACTIVATIONS
from nnpack.kernels.chunks import (
    CHUNKS,
    EXTENTS,
    Channels,
    Chunk,
    emit_channels,
    emit_each,
    find_chunk,
)
from nnpack.kernels.derivatives import GRADIENTS, KINKED
from nnpack.kernels.stage import Arguments, emit_stage
from nnpack.problem import ActivationKind

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Mask, Value


_SUMS = ("bias_sums", "slope_sums")

_Load = Callable[[str], "Value"]
"""Loads an argument's numbers of the channels at hand."""
_Mask = Callable[["Value", "Value"], "Value"]
"""Makes the gradient in an activation's input of that in its output and ``x - mean``."""


@dataclass(frozen=True)
class Behind:
    """The activation behind a normalisation: ``g = grad * act'(v)``, v being its input.

    A derivative that is more than a comparison is computed once: g is ``stored`` where the gradient
    of x will be, which is computed from it there.
    """

    activation: ActivationKind
    gamma: bool
    beta: bool

    @property
    def fields(self) -> dict[str, str]:
        """The argument words, but for those of the scale."""
        numbers = dict.fromkeys(self.numbers, "float")
        return {**({"beta": "pointer"} if self.beta else {}), **numbers}

    @property
    def numbers(self) -> tuple[str, ...]:
        """The words of the activation's numbers."""
        return tuple(f"activation_{name}" for name in ACTIVATIONS[self.activation].parameters)

    @property
    def scale_fields(self) -> dict[str, str]:
        """The words of what `scale` loads."""
        return dict.fromkeys(("inverse_std", *(("gamma",) if self.gamma else ())), "pointer")

    @property
    def stored(self) -> bool:
        """Whether g is stored in y."""
        return self.activation not in KINKED

    def scale(self, load: _Load) -> Value:
        """``gamma * inverse_std``, as `normalization.Terms` has it."""
        inverse = load("inverse_std")
        return inverse * load("gamma") if self.gamma else inverse

    def mask(self, asm: Assembler, args: Arguments, scale: Value, load: _Load) -> _Mask:
        """What makes g of ``grad`` and ``x - mean``, with the ``scale`` of the channels."""
        gradient = GRADIENTS[self.activation]
        numbers = [asm.splat(args[name]) for name in self.numbers]
        beta = load("beta") if self.beta else None

        def masked(grad: Value, distance: Value) -> Value:
            value = distance * scale if beta is None else asm.fma(scale, distance, beta)
            return gradient(asm, grad, value, *numbers)

        return masked


@dataclass(frozen=True)
class ChunkGradients:
    """The stage ``bias, slope = sum(g), sum(g * (x - mean))`` of every chunk, (chunks, channels).

    g is ``grad``, the gradient of y, or what `Behind` makes of it. Chunks and tasks are those of
    `ChunkMoments`.
    """

    planes: bool
    behind: Behind | None = None

    @property
    def fields(self) -> dict[str, str]:
        """The argument words."""
        pointers = dict.fromkeys(("x", "grad", "mean", "bias_sums", "slope_sums"), "pointer")
        return {**pointers, **_behind_fields(self.behind), **EXTENTS, **CHUNKS}

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        with emit_stage(asm, self.fields) as (args, first, last, _):
            with asm.loop(last, start=first) as task:
                _store_sums(asm, args, find_chunk(asm, args, task, self.planes), self.behind)


def _behind_fields(behind: Behind | None) -> dict[str, str]:
    """The words of sums: of the activation, and where g is stored."""
    if behind is None:
        return {}
    stored = {"y": "pointer"} if behind.stored else {}
    return {**behind.fields, **behind.scale_fields, **stored}


def _store_sums(asm: Assembler, args: Arguments, chunk: Chunk, behind: Behind | None) -> None:
    """Write ``sum(g), sum(g * (x - mean))`` of a chunk, and g itself where that is stored."""
    x, grad, mean = args["x"], args["grad"], chunk.channels.load(args["mean"])
    mask: _Mask | None = None
    if behind is not None:

        def load(name: str) -> Value:
            return chunk.channels.load(args[name])

        mask = behind.mask(asm, args, behind.scale(load), load)

    def elements(offset: Value, lanes: Mask) -> tuple[Value, Value]:
        slope = asm.load(grad, offset, mask=lanes)
        distance = asm.load(x, offset, mask=lanes) - mean
        if behind is not None and mask is not None:
            slope = mask(slope, distance)
            if behind.stored:
                asm.store(slope, args["y"], offset, mask=lanes)
        return slope, distance * slope

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

    y is the gradient of x, g as in `ChunkGradients`. A task is as in `Normalize`.
    """

    planes: bool
    constant: bool
    behind: Behind | None = None

    @property
    def fields(self) -> dict[str, str]:
        """The argument words."""
        pointers = dict.fromkeys((*self._names, "y"), "pointer")
        if not (self.constant and self._masks is None):
            pointers["x"] = "pointer"
        if self.behind is None or not self.behind.stored:
            pointers["grad"] = "pointer"
        more = {} if self._masks is None else self._masks.fields
        return {**pointers, **more, **EXTENTS, "block": "index"}

    @property
    def _masks(self) -> Behind | None:
        """The activation, if g is computed here."""
        return None if self.behind is None or self.behind.stored else self.behind

    @property
    def _names(self) -> tuple[str, ...]:
        """Of each channel."""
        if not self.constant:
            return "factor", "mean", "slope", "bias"
        return ("factor", "mean") if self._masks is not None else ("factor",)

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        with emit_stage(asm, self.fields) as (args, first, last, _):

            def terms_of(channel: Value, lanes: Mask) -> tuple[dict[str, Value], _Mask | None]:
                def load(name: str) -> Value:
                    if self.planes:
                        return asm.broadcast(args[name], channel)
                    return asm.load(args[name], channel, mask=lanes)

                terms = {name: load(name) for name in self._names}
                if self._masks is None:
                    return terms, None
                return terms, self._masks.mask(asm, args, terms["factor"], load)

            write = _write_gradient(asm, args, self.behind)
            emit_each(asm, args, (first, last), self.planes, terms_of, write)


def _write_gradient(asm: Assembler, args: Arguments, behind: Behind | None) -> Callable[..., None]:
    """What writes the numbers at an offset, given the terms of the channel and what masks."""
    source = args["y" if behind is not None and behind.stored else "grad"]

    def write(offset: Value, lanes: Mask, terms: dict[str, Value], mask: _Mask | None) -> None:
        value, distance = asm.load(source, offset, mask=lanes), asm.zeros()
        if "mean" in terms:
            distance = asm.load(args["x"], offset, mask=lanes) - terms["mean"]
        if mask is not None:
            value = mask(value, distance)
        value = value * terms["factor"]
        if "slope" in terms:
            value = value - asm.fma(terms["slope"], distance, terms["bias"])
        asm.store(value, args["y"], offset, mask=lanes)

    return write


@dataclass(frozen=True)
class GradientChannels:
    """`ChunkGradients`, `CombineGradients` and `InputGradient`, one channel after the other.

    As in `normalization.NormalizeChannels`. ``ahead``: while a channel is written, the next one is
    asked for into the second-level cache, for hardware follows no planes that are far apart.
    """

    gamma: bool
    constant: bool
    behind: Behind | None = None
    ahead: bool = False

    @property
    def fields(self) -> dict[str, str]:
        """The argument words."""
        names = ["x", "grad", "mean", "inverse_std", *(["gamma"] if self.gamma else [])]
        pointers = dict.fromkeys((*names, *_SUMS, "y", "grad_gamma", "grad_beta"), "pointer")
        more = {} if self.behind is None else self.behind.fields
        return {**pointers, **more, "block": "index", **EXTENTS, **CHUNKS}

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        behind = self.behind
        with emit_stage(asm, self.fields) as (args, first, last, _):
            write = _write_gradient(asm, args, behind)

            def differentiate(channel: Channels) -> Callable[[Value, Mask], None]:
                def load(name: str) -> Value:
                    return channel.load(args[name])

                terms = _combine(asm, args, channel, self.gamma, self.constant)
                masks = behind is not None and not behind.stored
                if masks or not self.constant:
                    terms["mean"] = load("mean")
                mask = behind.mask(asm, args, terms["factor"], load) if behind and masks else None

                def then(offset: Value, lanes: Mask) -> None:
                    if self.ahead:
                        for name in ("x", "grad"):
                            asm.prefetch(args[name], offset + args["pixels"], level=2)
                    write(offset, lanes, terms, mask)

                return then

            def sum_chunk(chunk: Chunk) -> None:
                _store_sums(asm, args, chunk, behind)

            emit_channels(asm, args, (first, last), sum_chunk, differentiate)
