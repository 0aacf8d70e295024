"""The numbers of each channel of (batch, channels, pixels), dense: loops over them, and sums.

Numbers of a channel are summed in *chunks*, a few images or a part of one, each small enough for
the first-level cache, and chunks are combined in order: whatever the number of threads, the same
is added in the same order.

With ``planes`` lanes stand along the pixels; without, there is one pixel, and lanes stand along
the channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from nnpack.kernels.stage import Arguments
from nnpack.kernels.vectors import emit_lane_sum, emit_vectors

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Index, Mask, Value

EXTENTS = dict.fromkeys(("batch", "channels", "pixels"), "index")
CHUNKS = dict.fromkeys(("images", "part", "image_chunks", "parts"), "index")
"""A chunk has ``images`` images and ``part`` pixels of each; there are image_chunks * parts."""

CHANNEL_VECTORS = 4
"""Vectors of channels that are walked side by side: whole pairs of cache lines of each image."""

_UNROLL = 4

Elements = Callable[["Value", "Mask"], tuple["Value", ...]]
"""What is summed of the numbers at an offset, under a mask."""
Write = Callable[["Value", "Mask"], None]
"""Writes the numbers at an offset, under a mask."""


def emit_each(
    asm: Assembler,
    args: Arguments,
    tasks: tuple[Index, Index],
    planes: bool,
    terms_of: Callable[..., tuple[object, ...]],
    write: Callable[..., None],
) -> None:
    """Emit ``write(offset, mask, *terms_of(channel, mask))`` for all numbers of the tasks.

    A task is ``block`` planes; without ``planes`` it is CHANNEL_VECTORS vectors of channels of
    ``block`` images.
    """
    batch, channels, pixels, block = args.load("batch", "channels", "pixels", "block")
    if planes:
        stop = asm.minimum(asm.index(tasks[1]) * block, batch * channels)
        begin = asm.index(tasks[0]) * block
        state = {"channel": begin % channels}
        with asm.loop(stop, start=begin, carry=state) as plane:
            terms = terms_of(state["channel"], None)
            following = state["channel"] + 1
            state["channel"] = asm.select(following.equals(channels), asm.index(0), following)
            start = plane * pixels
            emit_vectors(
                asm,
                pixels,
                lambda offset, mask, _: write(start + offset, mask, *terms),
                unroll=_UNROLL,
            )
        return
    several = CHANNEL_VECTORS * asm.lanes
    with asm.loop(tasks[1], start=tasks[0]) as task:
        groups = asm.ceil_div(channels, several)
        channel, image = task % groups * several, task // groups * block
        images = image, asm.minimum(image + block, batch)
        full = asm.compare(">=", channels - channel, several)
        with asm.when(full):
            starts = [channel + n * asm.lanes for n in range(CHANNEL_VECTORS)]
            columns = [(start, terms_of(start, None)) for start in starts]
            with asm.loop(images[1], start=images[0]) as row:
                for start, terms in columns:
                    write(row * channels + start, None, *terms)
        with asm.when(full.equals(0)), asm.loop(channels, start=channel, step=asm.lanes) as start:
            mask = asm.lanes_below(channels - start)
            terms = terms_of(start, mask)
            with asm.loop(images[1], start=images[0]) as row:
                write(row * channels + start, mask, *terms)


def chunk_size(asm: Assembler, args: Arguments, number: Value) -> Value:
    """How many numbers of a channel the chunk ``number`` has."""
    image, pixel = number // args["parts"] * args["images"], number % args["parts"] * args["part"]
    images = asm.minimum(args["batch"] - image, args["images"])
    return images * asm.minimum(args["pixels"] - pixel, args["part"])


class Channels:
    """A vector of channels: what there is of each is in a lane of its own."""

    def __init__(self, asm: Assembler, first: Value, count: Value) -> None:
        """Channel ``first`` of ``count`` and those behind it."""
        self.asm = asm
        self.first = first
        self.mask: Mask = asm.lanes_below(count - first)

    def load(self, source: Value, offset: Index = 0) -> Value:
        """``source[offset + channel]``."""
        return self.asm.load(source, self.first + offset, mask=self.mask)

    def store(self, value: Value, to: Value, offset: Index = 0) -> None:
        """Write ``to[offset + channel]``."""
        self.asm.store(value, to, self.first + offset, mask=self.mask)


class Channel(Channels):
    """A single channel: what there is of it is in every lane."""

    def __init__(self, asm: Assembler, number: Value) -> None:
        self.asm = asm
        self.first = number

    def load(self, source: Value, offset: Index = 0) -> Value:
        """``source[offset + channel]``."""
        return self.asm.broadcast(source, self.first + offset)

    def store(self, value: Value, to: Value, offset: Index = 0) -> None:
        """Write ``to[offset + channel]``."""
        self.asm.store(self.asm.extract(value, 0), to, self.first + offset)


def emit_channels(
    asm: Assembler,
    args: Arguments,
    tasks: tuple[Index, Index],
    each_chunk: Callable[[Chunk], None],
    then: Callable[[Channel], Write],
) -> None:
    """Emit all that is done to the channels of the tasks, which have planes, one after the other.

    First ``each_chunk`` of the channel's, in order; then the numbers are written in the way that
    ``then`` gives, once it has made of the chunks what there is to be made. A task is ``block``
    channels.
    """
    batch, channels, pixels, block = args.load("batch", "channels", "pixels", "block")
    stop = asm.minimum(asm.index(tasks[1]) * block, channels)
    with asm.loop(stop, start=asm.index(tasks[0]) * block) as number:
        channel = Channel(asm, number)
        with asm.loop(args["image_chunks"] * args["parts"]) as chunk:
            each_chunk(Chunk(asm, args, chunk, channel))
        write = then(channel)
        with asm.loop(batch) as image:
            start = (image * channels + number) * pixels

            def write_at(
                offset: Value, mask: Mask, _: int, write: Write = write, start: Value = start
            ) -> None:
                write(start + offset, mask)

            emit_vectors(asm, pixels, write_at, unroll=_UNROLL)


def find_chunk(asm: Assembler, args: Arguments, task: Value, planes: bool) -> Chunk:
    """The chunk of a task."""
    chunks = args["image_chunks"] * args["parts"]
    number, place = task % chunks, task // chunks
    if planes:
        return Chunk(asm, args, number, Channel(asm, place))
    channels = Channels(asm, place * asm.lanes, args["channels"])
    return _ColumnChunk(asm, args, number, channels)


class Chunk:
    """The numbers of one channel in some images, or in a part of one."""

    def __init__(self, asm: Assembler, args: Arguments, number: Value, channels: Channels) -> None:
        self.asm = asm
        self.args = args
        self.number = number
        self.channels = channels
        self.count = chunk_size(asm, args, number)

    def sums(self, elements: Elements, count: int) -> list[Value]:
        """The sums over the chunk of the ``count`` values of ``elements``, each in every lane."""
        asm, args = self.asm, self.args
        image = self.number // args["parts"] * args["images"]
        pixel = self.number % args["parts"] * args["part"]
        width = asm.minimum(args["pixels"] - pixel, args["part"])
        chains = _Chains(asm, count)
        stop = asm.minimum(args["batch"], image + args["images"])
        with asm.loop(stop, start=image, carry=chains.state) as row:
            start = (row * args["channels"] + self.channels.first) * args["pixels"] + pixel

            def add(offset: Value, mask: Mask, n: int, start: Value = start) -> None:
                values = elements(start + offset, mask)
                if mask is not None:
                    values = tuple(asm.select(mask, value, asm.zeros()) for value in values)
                chains.add(values, n)

            emit_vectors(asm, width, add, carry=chains.state, unroll=_UNROLL)
        return [asm.splat(emit_lane_sum(asm, vectors)) for vectors in chains.vectors()]

    def load_first(self, x: Value) -> Value:
        """The first number of the chunk, in every lane."""
        pixel = self.number % self.args["parts"] * self.args["part"]
        image = self.number // self.args["parts"] * self.args["images"]
        plane = image * self.args["channels"] + self.channels.first
        return self.asm.broadcast(x, plane * self.args["pixels"] + pixel)

    def store(self, value: Value, to: Value) -> None:
        """Write ``value`` to ``to[number, channel]``."""
        self.channels.store(value, to, self.number * self.args["channels"])


class _ColumnChunk(Chunk):
    """The numbers of a vector of channels in some images of one pixel."""

    def sums(self, elements: Elements, count: int) -> list[Value]:
        """The sums over the chunk of the ``count`` values of ``elements``, of each channel."""
        asm, image, pitch = self.asm, self.number * self.args["images"], self.args["channels"]
        first, mask, chains = self.channels.first, self.channels.mask, _Chains(asm, count)
        stop = asm.minimum(self.args["batch"], image + self.args["images"])
        several = image + (stop - image) // _UNROLL * _UNROLL
        with asm.loop(several, start=image, step=_UNROLL, carry=chains.state) as row:
            for n in range(_UNROLL):
                chains.add(elements((row + n) * pitch + first, mask), n)
        with asm.loop(stop, start=several, carry=chains.state) as row:
            chains.add(elements(row * pitch + first, mask), 0)
        return [(a + b) + (c + d) for a, b, c, d in chains.vectors()]

    def load_first(self, x: Value) -> Value:
        """The first numbers of the channels."""
        return self.channels.load(x, self.number * self.args["images"] * self.args["channels"])


class _Chains:
    """Sums of several things, each in as many vectors as are added one behind the other."""

    def __init__(self, asm: Assembler, count: int) -> None:
        self._numbers = range(count)
        keys = ((number, n) for number in self._numbers for n in range(_UNROLL))
        self.state = dict.fromkeys(keys, asm.zeros())

    def add(self, values: tuple[Value, ...], n: int) -> None:
        """Add a vector of each to chain ``n``."""
        for number, value in zip(self._numbers, values, strict=True):
            self.state[number, n] = self.state[number, n] + value

    def vectors(self) -> list[list[Value]]:
        """Those of each sum."""
        return [[self.state[number, n] for n in range(_UNROLL)] for number in self._numbers]
