"""Batch normalisation: moments of each channel, its terms, and their application."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from nnpack.frozen import dataclass, replace
from nnpack.kernels.chunks import CHUNKS, EXTENTS, chunk_size, emit_each, find_chunk
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
                chunk = find_chunk(asm, args, task, self.planes)
                x = args["x"]
                # Relative to one of them, so that a great mean takes no digits from the sum.
                origin = chunk.load_first(x)

                def distance(offset: Value, mask: Mask, origin: Value = origin) -> Value:
                    return asm.load(x, offset, mask=mask) - origin

                count = asm.splat(asm.to_float(chunk.count))
                mean = origin + asm.divide(chunk.sum(distance), count)

                def deviation(offset: Value, mask: Mask, mean: Value = mean) -> Value:
                    distance = asm.load(x, offset, mask=mask) - mean
                    return distance * distance

                chunk.store(mean, args["mean"])
                chunk.store(chunk.sum(deviation), args["square"])


_COUNTED = {
    **dict.fromkeys(("shifts", "counts"), "pointer"),
    **dict.fromkeys(("channels", "chunks"), "index"),
}


@dataclass(frozen=True)
class CombineMoments:
    """The stage that combines the chunks of each channel (Chan, Golub & LeVeque, 1979).

    Writes (channels,): ``batch_mean`` and the biased ``variance``; with ``terms`` besides
    ``inverse_std = 1/sqrt(variance + eps)`` and ``slope = gamma * inverse_std``, or inverse_std
    itself. A task is a vector of channels. With ``counted`` there are ``chunks`` chunks, ``counts``
    (chunks, channels) says how many numbers each has, and ``shifts`` what its mean is relative to.
    """

    terms: bool
    gamma: bool = False
    counted: bool = False

    @property
    def fields(self) -> dict[str, str]:
        """The argument words."""
        fields = dict.fromkeys(("mean", "square", "batch_mean", "variance"), "pointer")
        if self.terms:
            fields |= {"inverse_std": "pointer", "slope": "pointer", "eps": "float"}
        if self.gamma:
            fields["gamma"] = "pointer"
        if self.counted:
            return fields | _COUNTED
        return {**fields, **EXTENTS, **CHUNKS}

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        with emit_stage(asm, self.fields) as (args, first, last, _):
            with asm.loop(last, start=first) as task:
                channel = task * asm.lanes
                mask = asm.lanes_below(args["channels"] - channel)
                mean, square, count = self._combine(asm, args, channel, mask)
                variance = asm.divide(square, count)
                asm.store(mean, args["batch_mean"], channel, mask=mask)
                asm.store(variance, args["variance"], channel, mask=mask)
                if self.terms:
                    _store_terms(asm, args, variance, channel, mask, self.gamma)

    def _combine(
        self, asm: Assembler, args: Arguments, channel: Value, mask: Value
    ) -> tuple[Value, Value, Value]:
        # Relative to the first chunk's mean, so that a great mean does not round off the steps.
        origin = asm.load(args["shifts" if self.counted else "mean"], channel, mask=mask)
        carry = dict.fromkeys(("mean", "square", "count"), asm.zeros())
        chunks = args["chunks"] if self.counted else args["image_chunks"] * args["parts"]
        with asm.loop(chunks, carry=carry) as number:
            offset = number * args["channels"] + channel
            mean = asm.load(args["mean"], offset, mask=mask)
            if self.counted:
                size = asm.load(args["counts"], offset, mask=mask)
                mean = asm.load(args["shifts"], offset, mask=mask) - origin + mean
            else:
                size = asm.splat(asm.to_float(chunk_size(asm, args, number)))
                mean = mean - origin
            distance = mean - carry["mean"]
            count = carry["count"] + size
            share = asm.divide(size, count)
            step = distance * share
            between = distance * step * carry["count"]
            carry["square"] = (
                carry["square"] + asm.load(args["square"], offset, mask=mask) + between
            )
            carry["mean"] = carry["mean"] + step
            carry["count"] = count
        return origin + carry["mean"], carry["square"], carry["count"]


def _store_terms(
    asm: Assembler, args: Arguments, variance: Value, channel: Value, mask: Value, gamma: bool
) -> None:
    """Write ``inverse_std`` and ``slope`` of a vector of channels."""
    inverse = asm.divide(asm.splat(1.0), asm.sqrt(variance + asm.splat(args["eps"])))
    slope = inverse * asm.load(args["gamma"], channel, mask=mask) if gamma else inverse
    asm.store(inverse, args["inverse_std"], channel, mask=mask)
    asm.store(slope, args["slope"], channel, mask=mask)


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
            x, y = args["x"], args["y"]

            def write(offset: Value, mask: Mask, mean: Value, terms: ChannelTerms) -> None:
                value = asm.load(x, offset, mask=mask) - mean
                epilogue.store(epilogue.prepare(value, terms), y, offset, mask=mask, terms=terms)

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
