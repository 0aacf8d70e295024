"""Batch normalisation: moments of each channel, its terms, and their application."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from nnpack.frozen import dataclass, replace
from nnpack.kernels.chunks import (
    CHUNKS,
    EXTENTS,
    Channels,
    Chunk,
    chunk_size,
    emit_channels,
    emit_each,
    find_chunk,
)
from nnpack.kernels.epilogue import ChannelTerms, Epilogue, epilogue_fields
from nnpack.kernels.stage import Arguments, emit_stage
from nnpack.problem import EpilogueKind

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Mask, Value


@dataclass(frozen=True)
class ChunkMoments:
    """The stage ``mean, square = sum(x) / n, sum((x - mean)^2)`` of every chunk of a channel.

    Both are (chunks, channels). A chunk has ``images`` images or one, and ``part`` pixels or all;
    there are ``image_chunks * parts``. A task is a chunk of one channel, or of a vector of them.
    """

    planes: bool

    @property
    def fields(self) -> dict[str, str]:
        """The argument words."""
        pointers = dict.fromkeys(("x", "mean", "square"), "pointer")
        return {**pointers, **EXTENTS, **CHUNKS}

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        with emit_stage(asm, self.fields) as (args, first, last, _):
            with asm.loop(last, start=first) as task:
                _emit_moments(asm, args, find_chunk(asm, args, task, self.planes))


def _emit_moments(asm: Assembler, args: Arguments, chunk: Chunk) -> None:
    """Write mean and square of a chunk."""
    x = args["x"]
    # Relative to one of them, so that a great mean takes no digits from the sum.
    origin = chunk.load_first(x)
    (total,) = chunk.sums(lambda offset, mask: (asm.load(x, offset, mask=mask) - origin,), 1)
    mean = origin + asm.divide(total, asm.splat(asm.to_float(chunk.count)))

    def deviation(offset: Value, mask: Mask) -> tuple[Value]:
        distance = asm.load(x, offset, mask=mask) - mean
        return (distance * distance,)

    (square,) = chunk.sums(deviation, 1)
    chunk.store(mean, args["mean"])
    chunk.store(square, args["square"])


_COUNTED = {
    **dict.fromkeys(("shifts", "counts"), "pointer"),
    **dict.fromkeys(("channels", "chunks"), "index"),
}


@dataclass(frozen=True)
class CombineMoments:
    """The stage that combines the chunks of each channel (Chan, Golub & LeVeque, 1979).

    Writes (channels,): ``batch_mean`` and the biased ``variance``; with ``terms`` besides
    ``slope = gamma * inverse_std`` and what `Terms` says. A task is a vector of channels. With
    ``counted`` there are ``chunks`` chunks, ``counts`` (chunks, channels) says how many numbers
    each has, and ``shifts`` what its mean is relative to.
    """

    terms: Terms | None = None
    counted: bool = False

    @property
    def fields(self) -> dict[str, str]:
        """The argument words."""
        fields = dict.fromkeys(("mean", "square", "batch_mean", "variance"), "pointer")
        if self.terms is not None:
            fields |= {**self.terms.fields, "slope": "pointer"}
        return fields | (_COUNTED if self.counted else {**EXTENTS, **CHUNKS})

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        with emit_stage(asm, self.fields) as (args, first, last, _):
            with asm.loop(last, start=first) as task:
                channels = Channels(asm, task * asm.lanes, args["channels"])
                _, variance = _combine(asm, args, channels, self.counted)
                if self.terms is not None:
                    channels.store(self.terms.emit(asm, args, channels, variance), args["slope"])


@dataclass(frozen=True)
class Terms:
    """What is made of the ``variance`` of a channel: ``inverse_std = 1/sqrt(variance + eps)``.

    With ``running`` the moments of former batches are moved: ``running_mean`` and
    ``running_variance`` become ``keep * running + weight * batch``, where ``momentum`` holds three
    numbers: keep, and the weights of the mean and of the biased variance.
    """

    gamma: bool
    running: bool = False

    @property
    def fields(self) -> dict[str, str]:
        """The argument words; ``batch_mean`` besides."""
        names = ["inverse_std", *(["gamma"] if self.gamma else [])]
        names += ["running_mean", "running_variance", "momentum"] if self.running else []
        return {**dict.fromkeys(names, "pointer"), "eps": "float"}

    def emit(self, asm: Assembler, args: Arguments, channels: Channels, variance: Value) -> Value:
        """Write all that; the value is ``gamma * inverse_std``, or inverse_std without gamma."""
        inverse = asm.divide(asm.splat(1.0), asm.sqrt(variance + asm.splat(args["eps"])))
        channels.store(inverse, args["inverse_std"])
        if self.running:
            batch = {"mean": channels.load(args["batch_mean"]), "variance": variance}
            keep = asm.broadcast(args["momentum"])
            for n, (name, value) in enumerate(batch.items(), start=1):
                running = args[f"running_{name}"]
                moved = asm.broadcast(args["momentum"], n) * value
                channels.store(asm.fma(keep, channels.load(running), moved), running)
        return inverse * channels.load(args["gamma"]) if self.gamma else inverse


def _combine(
    asm: Assembler, args: Arguments, channels: Channels, counted: bool = False
) -> tuple[Value, Value]:
    """Mean and variance of channels, of their chunks; written, too."""
    # Relative to the first chunk's mean, so that a great mean does not round off the steps.
    origin = channels.load(args["shifts" if counted else "mean"])
    carry = dict.fromkeys(("mean", "square", "count"), asm.zeros())
    chunks = args["chunks"] if counted else args["image_chunks"] * args["parts"]
    with asm.loop(chunks, carry=carry) as number:
        offset = number * args["channels"]
        mean = channels.load(args["mean"], offset)
        if counted:
            size = channels.load(args["counts"], offset)
            mean = channels.load(args["shifts"], offset) - origin + mean
        else:
            size = asm.splat(asm.to_float(chunk_size(asm, args, number)))
            mean = mean - origin
        distance = mean - carry["mean"]
        count = carry["count"] + size
        share = asm.divide(size, count)
        step = distance * share
        between = distance * step * carry["count"]
        carry["square"] = carry["square"] + channels.load(args["square"], offset) + between
        carry["mean"] = carry["mean"] + step
        carry["count"] = count
    mean, variance = origin + carry["mean"], asm.divide(carry["square"], carry["count"])
    channels.store(mean, args["batch_mean"])
    channels.store(variance, args["variance"])
    return mean, variance


@dataclass(frozen=True)
class Normalize:
    """The stage ``y = activation(scale * (x - mean) + bias)``; ``scale`` is gamma / deviation.

    The difference comes first: it is exact where x is near the mean, however large both are.
    A task is ``block`` planes, or rows of channels.

    ``given`` None: ``scale`` is an argument, found before. Else the ``variance`` is, and ``scale``
    is found for each channel as it is wanted, ``1 / sqrt(variance + eps)``, times ``gamma`` where
    ``given`` says so: as many planes as there are take less than one more pass of the workers.
    """

    planes: bool
    epilogue: EpilogueKind
    given: Literal["plain", "gamma"] | None = None

    @property
    def fields(self) -> dict[str, str]:
        """The argument words."""
        names = ["x", "y", "mean", "variance" if self.given else "scale"]
        names += ["gamma"] if self.given == "gamma" else []
        pointers = dict.fromkeys(names, "pointer")
        numbers = {"eps": "float"} if self.given else {}
        return {**pointers, **EXTENTS, "block": "index", **numbers, **epilogue_fields(self._rest)}

    @property
    def _rest(self) -> EpilogueKind:
        """The epilogue but for its scale."""
        return replace(self.epilogue, scale=False)

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        with emit_stage(asm, self.fields) as (args, first, last, _):
            epilogue = Epilogue(asm, self._rest, args)
            write = _write_normalized(asm, args, epilogue)

            def terms_of(channel: Value, mask: Mask) -> tuple[Value, ChannelTerms]:
                def read(name: str) -> Value:
                    if self.planes:
                        return asm.load_float(args[name], channel)
                    return asm.load(args[name], channel, mask=mask)

                mean, scale = read("mean"), self._scale(asm, args, read)
                if self.planes:
                    terms = epilogue.of_channel(channel)
                    return asm.splat(mean), replace(terms, scale=asm.splat(scale))
                return mean, replace(epilogue.of_lanes(channel, mask), scale=scale)

            emit_each(asm, args, (first, last), self.planes, terms_of, write)

    def _scale(self, asm: Assembler, args: Arguments, read: Callable[[str], Value]) -> Value:
        """The scale of a channel, or of those of a vector."""
        if self.given is None:
            return read("scale")
        eps = args["eps"] if self.planes else asm.splat(args["eps"])
        scale = asm.divide(1.0, asm.sqrt(read("variance") + eps))
        return scale * read("gamma") if self.given == "gamma" else scale


def _write_normalized(
    asm: Assembler, args: Arguments, epilogue: Epilogue
) -> Callable[[Value, Mask, Value, ChannelTerms], None]:
    """What writes the numbers at an offset, given the mean and the other terms of the channel."""
    x, y = args["x"], args["y"]

    def write(offset: Value, mask: Mask, mean: Value, terms: ChannelTerms) -> None:
        value = asm.load(x, offset, mask=mask) - mean
        epilogue.store(epilogue.prepare(value, terms), y, offset, mask=mask, terms=terms)

    return write


@dataclass(frozen=True)
class NormalizeChannels:
    """`ChunkMoments`, `CombineMoments` and `Normalize`, one channel after the other.

    A channel that fits into the second-level cache is so read from memory once. It has planes, and
    what is computed is the same to the last bit. A task is ``block`` channels.
    """

    terms: Terms
    epilogue: EpilogueKind

    @property
    def fields(self) -> dict[str, str]:
        """The argument words; ``mean`` and ``square`` are of chunks, (chunks, channels)."""
        names = ("x", "y", "mean", "square", "batch_mean", "variance")
        fields = {**dict.fromkeys(names, "pointer"), **self.terms.fields, "block": "index"}
        return {**fields, **EXTENTS, **CHUNKS, **epilogue_fields(self._rest)}

    @property
    def _rest(self) -> EpilogueKind:
        return replace(self.epilogue, scale=False)

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        with emit_stage(asm, self.fields) as (args, first, last, _):
            epilogue = Epilogue(asm, self._rest, args)
            write = _write_normalized(asm, args, epilogue)

            def normalize(channel: Channels) -> Callable[[Value, Mask], None]:
                mean, variance = _combine(asm, args, channel)
                scale = self.terms.emit(asm, args, channel, variance)
                terms = replace(epilogue.of_channel(channel.first), scale=scale)
                return lambda offset, mask: write(offset, mask, mean, terms)

            emit_channels(
                asm, args, (first, last), lambda chunk: _emit_moments(asm, args, chunk), normalize
            )
