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

_UNROLL = 4

Element = Callable[["Value", "Mask"], "Value"]
"""What is summed of the numbers at an offset, under a mask."""


def emit_each(
    asm: Assembler,
    args: Arguments,
    tasks: tuple[Index, Index],
    planes: bool,
    terms_of: Callable[..., tuple[object, ...]],
    write: Callable[..., None],
) -> None:
    """Emit ``write(offset, mask, *terms_of(channel, mask))`` for all numbers of the tasks.

    A task is ``block`` planes; without ``planes`` it is a vector of channels of ``block`` images.
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
    with asm.loop(tasks[1], start=tasks[0]) as task:
        vectors = asm.ceil_div(channels, asm.lanes)
        channel = task % vectors * asm.lanes
        mask = asm.lanes_below(channels - channel)
        terms = terms_of(channel, mask)
        image = task // vectors * block
        with asm.loop(asm.minimum(image + block, batch), start=image) as row:
            write(row * channels + channel, mask, *terms)


def chunk_size(asm: Assembler, args: Arguments, number: Value) -> Value:
    """How many numbers of a channel the chunk ``number`` has."""
    image, pixel = number // args["parts"] * args["images"], number % args["parts"] * args["part"]
    images = asm.minimum(args["batch"] - image, args["images"])
    return images * asm.minimum(args["pixels"] - pixel, args["part"])


def find_chunk(asm: Assembler, args: Arguments, task: Value, planes: bool) -> _Chunk:
    """The chunk of a task."""
    return (_Chunk if planes else _ColumnChunk)(asm, args, task)


class _Chunk:
    """The numbers of one channel in some images, or in a part of one."""

    def __init__(self, asm: Assembler, args: Arguments, task: Value) -> None:
        self.asm = asm
        self.args = args
        chunks = args["image_chunks"] * args["parts"]
        self.number, self.channel = task % chunks, task // chunks
        self.count = chunk_size(asm, args, self.number)

    def sum(self, element: Element) -> Value:
        """The sum over the chunk, in every lane."""
        asm, args = self.asm, self.args
        image = self.number // args["parts"] * args["images"]
        pixel = self.number % args["parts"] * args["part"]
        width = asm.minimum(args["pixels"] - pixel, args["part"])
        sums = {n: asm.zeros() for n in range(_UNROLL)}
        stop = asm.minimum(args["batch"], image + args["images"])
        with asm.loop(stop, start=image, carry=sums) as row:
            start = (row * args["channels"] + self.channel) * args["pixels"] + pixel

            def add(offset: Value, mask: Mask, n: int, start: Value = start) -> None:
                value = element(start + offset, mask)
                if mask is not None:
                    value = asm.select(mask, value, asm.zeros())
                sums[n] = sums[n] + value

            emit_vectors(asm, width, add, carry=sums, unroll=_UNROLL)
        return asm.splat(emit_lane_sum(asm, list(sums.values())))

    def load_first(self, x: Value) -> Value:
        """The first number of the chunk, in every lane."""
        pixel = self.number % self.args["parts"] * self.args["part"]
        image = self.number // self.args["parts"] * self.args["images"]
        plane = image * self.args["channels"] + self.channel
        return self.asm.broadcast(x, plane * self.args["pixels"] + pixel)

    def store(self, value: Value, to: Value) -> None:
        """Write what every lane has to ``to[number, channel]``."""
        offset = self.number * self.args["channels"] + self.channel
        self.asm.store(self.asm.extract(value, 0), to, offset)

    def load(self, source: Value) -> Value:
        """The number of the channel, in every lane."""
        return self.asm.broadcast(source, self.channel)


class _ColumnChunk(_Chunk):
    """The numbers of a vector of channels in some images of one pixel."""

    def __init__(self, asm: Assembler, args: Arguments, task: Value) -> None:
        super().__init__(asm, args, task)
        self.channel = self.channel * asm.lanes
        self.mask = asm.lanes_below(args["channels"] - self.channel)

    def sum(self, element: Element) -> Value:
        """The sum over the chunk, of each channel."""
        asm, image, channels = self.asm, self.number * self.args["images"], self.args["channels"]
        sums = {n: asm.zeros() for n in range(_UNROLL)}
        stop = asm.minimum(self.args["batch"], image + self.args["images"])
        several = image + (stop - image) // _UNROLL * _UNROLL
        with asm.loop(several, start=image, step=_UNROLL, carry=sums) as row:
            for n in range(_UNROLL):
                sums[n] = sums[n] + element((row + n) * channels + self.channel, self.mask)
        with asm.loop(stop, start=several, carry=sums) as row:
            sums[0] = sums[0] + element(row * channels + self.channel, self.mask)
        return (sums[0] + sums[1]) + (sums[2] + sums[3])

    def load_first(self, x: Value) -> Value:
        """The first numbers of the channels."""
        image = self.number * self.args["images"]
        offset = image * self.args["channels"] + self.channel
        return self.asm.load(x, offset, mask=self.mask)

    def store(self, value: Value, to: Value) -> None:
        """Write the lanes to ``to[number, channel ...]``."""
        offset = self.number * self.args["channels"] + self.channel
        self.asm.store(value, to, offset, mask=self.mask)

    def load(self, source: Value) -> Value:
        """The numbers of the channels."""
        return self.asm.load(source, self.channel, mask=self.mask)
