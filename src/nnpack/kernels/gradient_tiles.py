"""What weight gradients in a transform domain share: tiles transformed, multiplied, summed.

Over the tiles of all images, gw is the inverse transform of ``sum V * H``, V the transformed tiles
of x, H those of the gradient, a sum over tiles by itself for each *plane* f (a frequency, or a
part of one). A block of tiles is transformed,

    V[f][c block][tile][lanes],   H[f][k block][tile][lanes],

and multiplied into ``S[f][c block][panel][lane of c][width]``, which all blocks add to in order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from nnpack.frozen import dataclass
from nnpack.kernels.gemm import GemmTile
from nnpack.kernels.stage import Arguments, Fields, emit_stage

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Value

TRANSFORM_FIELDS: Fields = {
    **dict.fromkeys(("x", "v"), "pointer"),
    **dict.fromkeys(
        (
            "x_n",
            "x_c",
            "x_h",
            "channels",
            "height",
            "width",
            "pad_top",
            "pad_left",
            "step_h",
            "step_w",
            "phases_h",
            "phases_w",
            "tiles_h",
            "tiles_w",
            "block_tiles",
            "v_f",
            "first_tile",
            "tiles",
            "task_tiles",
        ),
        "index",
    ),
}
"""The words of a stage that fills V or H for one block of tiles; ``x`` is what is transformed."""

INVERSE_FIELDS: Fields = {
    **dict.fromkeys(("sums", "y"), "pointer"),
    **dict.fromkeys(("s_f", "panels", "channels", "y_channels", "group_out_channels"), "index"),
}
"""The words of a stage that makes kernels of S; of ``y_channels`` of gw, ``channels`` are made."""


def emit_transform_stage(asm: Assembler, fields: Fields) -> None:
    """Emit the stage that fills V; ``transform_input`` is defined.

    A task is a block of channels and ``task_tiles`` tiles.
    """
    with emit_stage(asm, fields) as (args, first, last, _):
        parts = asm.ceil_div(args["tiles"], args["task_tiles"])
        with asm.loop(last, start=first) as task:
            start = task % parts * args["task_tiles"]
            count = asm.minimum(args["tiles"] - start, args["task_tiles"])
            c = task // parts
            v = args["v"] + start * asm.lanes
            tile = args["first_tile"] + start
            asm.call("transform_input", args.block, args["x"], v, tile, count, c, c + 1)


def emit_inverse_stage(
    asm: Assembler,
    fields: Fields,
    nv: int,
    emit_kernels: Callable[[Arguments, Value, Value, Value, Value], None],
) -> None:
    """Emit the stage that makes kernels of S; a task is a block of input channels and a panel.

    ``emit_kernels(args, source, channel, output, count)`` makes those of one input channel and
    ``count`` output channels from ``output`` on, which stand in the lanes.
    """
    lanes, width = asm.lanes, nv * asm.lanes
    with emit_stage(asm, fields) as (args, first, last, _):
        channels, panels, outputs = args.load("channels", "panels", "group_out_channels")
        with asm.loop(last, start=first) as task:
            c, k = task // panels * lanes, task % panels * width
            sums = args["sums"] + task * (lanes * width)
            vectors = asm.minimum(asm.ceil_div(outputs - k, lanes), nv)
            with asm.loop(asm.minimum(channels - c, lanes)) as i, asm.loop(vectors) as j:
                source, output = sums + i * width + j * lanes, k + j * lanes
                count = asm.minimum(outputs - output, lanes)
                emit_kernels(args, source, c + i, output, count)


def kernel_place(args: Arguments, channel: Value, output: Value, taps: int) -> Value:
    """Where the kernel of a pair of channels stands in gw, which is dense."""
    return args["y"] + (output * args["y_channels"] + channel) * taps


@dataclass(frozen=True)
class MultiplyTiles:
    """The stage ``S[f] (+)= V[f]^T H[f]``, the sum over the tiles of one block.

    A task is a frequency and ``task_blocks`` blocks of input channels. ``tile`` divides the lanes
    into its rows. With the word ``done`` 0, S is stored, else added to.
    """

    tile: GemmTile

    @property
    def fields(self) -> dict[str, str]:
        """The argument words."""
        names = (
            "v_f",
            "h_f",
            "s_f",
            "block_tiles",
            "tiles",
            "channel_blocks",
            "task_blocks",
            "panels",
            "done",
        )
        return {**dict.fromkeys(("v", "h", "sums"), "pointer"), **dict.fromkeys(names, "index")}

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        self._emit_product(asm)
        width = self.tile.nv * asm.lanes
        with emit_stage(asm, self.fields) as (args, first, last, _):
            blocks, panels = args.load("channel_blocks", "panels")
            parts = asm.ceil_div(blocks, args["task_blocks"])
            row = args["block_tiles"] * asm.lanes
            with asm.loop(last, start=first) as task:
                f, start = task // parts, task % parts * args["task_blocks"]
                stop = asm.minimum(start + args["task_blocks"], blocks)
                with asm.loop(stop, start=start) as c:
                    v = args["v"] + f * args["v_f"] + c * row
                    sums = args["sums"] + f * args["s_f"] + c * panels * (asm.lanes * width)
                    with asm.loop(panels) as panel:
                        h = args["h"] + f * args["h_f"] + panel * self.tile.nv * row
                        place = sums + panel * (asm.lanes * width)
                        for i in range(0, asm.lanes, self.tile.mr):
                            words = v + i, h, place + i * width
                            asm.call("product", *words, row, args["tiles"], args["done"])

    def _emit_product(self, asm: Assembler) -> None:
        """Define ``product``: a register tile of S over ``count`` tiles of the transform."""
        tile, lanes = self.tile, asm.lanes
        tile.check(asm.target)
        with asm.function(
            "product",
            v="pointer",
            h="pointer",
            sums="pointer",
            row="index",
            count="index",
            done="index",
        ) as (v, h, sums, row, count, done):
            places = {
                (i, j): (i * tile.nv + j) * lanes for i in range(tile.mr) for j in range(tile.nv)
            }
            for offset in places.values():
                asm.prefetch(sums, offset, write=True)
            state: dict[object, Value] = dict.fromkeys(places, asm.zeros())
            state["v"] = v
            state |= {j: h + row * j for j in range(tile.nv)}
            with asm.loop(count, carry=state):
                vectors = [asm.load(state[j]) for j in range(tile.nv)]
                for i in range(tile.mr):
                    v_i = asm.broadcast(state["v"], i)
                    for j in range(tile.nv):
                        state[i, j] = asm.fma(v_i, vectors[j], state[i, j])
                for key in ("v", *range(tile.nv)):
                    state[key] = state[key] + lanes
            with asm.when(done.equals(0)):
                for key, offset in places.items():
                    asm.store(state[key], sums, offset)
            with asm.when(asm.compare(">", done, 0)):
                for key, offset in places.items():
                    asm.store(asm.load(sums, offset) + state[key], sums, offset)
