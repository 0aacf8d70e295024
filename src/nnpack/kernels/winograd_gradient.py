"""Weight gradients in the transform domain: the stages of F(r, m), accumulated over tiles.

    gw = A^T [ sum over tiles (G g G^T) * (B^T d B) ] A

for tiles g of m x m gradients and d of the t x t inputs under them, t = m + r - 1, giving the r x r
taps of every pair of channels: a correlation of d with g (Winograd, 1980; Lavin & Gray, 2016),
whose sum over tiles and images is t * t matrix products, one a frequency f = i * t_w + j,
transformed back once. A block of tiles is transformed,

    V[f][c block][tile][lanes],   H[f][k block][tile][lanes],

and multiplied into ``S[f][c block][panel][lane of c][width]``, which all blocks add to in order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnpack.frozen import dataclass
from nnpack.kernels.gemm import GemmTile
from nnpack.kernels.stage import Arguments, emit_stage
from nnpack.kernels.transform import emit_program
from nnpack.kernels.transpose import emit_rows
from nnpack.kernels.winograd_shape import TileShape

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Value


@dataclass(frozen=True)
class TransformTiles:
    """The stage that fills V from x, or with ``gradient`` H from the gradients, for one block.

    A task is a block of channels and ``task_tiles`` tiles. ``x`` is what is transformed.
    """

    shape: TileShape
    gradient: bool

    @property
    def fields(self) -> dict[str, str]:
        """The argument words."""
        names = (
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
            "tiles_h",
            "tiles_w",
            "block_tiles",
            "v_f",
            "first_tile",
            "tiles",
            "task_tiles",
        )
        return {"x": "pointer", "v": "pointer", **dict.fromkeys(names, "index")}

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        from nnpack.kernels.winograd_input import InputTransform

        InputTransform(asm, self.shape, self.fields, self.gradient).emit()
        with emit_stage(asm, self.fields) as (args, first, last, _):
            parts = asm.ceil_div(args["tiles"], args["task_tiles"])
            with asm.loop(last, start=first) as task:
                start = task % parts * args["task_tiles"]
                count = asm.minimum(args["tiles"] - start, args["task_tiles"])
                c = task // parts
                v = args["v"] + start * asm.lanes
                tile = args["first_tile"] + start
                asm.call("transform_input", args.block, args["x"], v, tile, count, c, c + 1)


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


@dataclass(frozen=True)
class InverseTransform:
    """The stage ``gw[k, c] (+)= A^T S A``; a task is a block of input channels and a panel.

    ``accumulate``: added to gw, which is dense.
    """

    shape: TileShape
    nv: int
    accumulate: bool

    @property
    def fields(self) -> dict[str, str]:
        """The argument words."""
        words = dict.fromkeys(("s_f", "panels", "channels", "group_out_channels"), "index")
        return {"sums": "pointer", "y": "pointer", **words}

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        lanes, width = asm.lanes, self.nv * asm.lanes
        taps = self.shape.r[0] * self.shape.r[1]
        with emit_stage(asm, self.fields) as (args, first, last, _):
            channels, panels, outputs = args.load("channels", "panels", "group_out_channels")
            with asm.loop(last, start=first) as task:
                c, k = task // panels * lanes, task % panels * width
                sums = args["sums"] + task * (lanes * width)
                y = args["y"] + (k * channels + c) * taps
                vectors = asm.minimum(asm.ceil_div(outputs - k, lanes), self.nv)
                with asm.loop(asm.minimum(channels - c, lanes)) as i, asm.loop(vectors) as j:
                    source = sums + i * width + j * lanes
                    target = y + (j * lanes * channels + i) * taps
                    count = asm.minimum(outputs - k - j * lanes, lanes)
                    self._emit_kernels(args, source, target, count)

    def _emit_kernels(self, args: Arguments, source: Value, target: Value, count: Value) -> None:
        """The kernels of ``count`` output channels, which stand in the lanes, and one input."""
        asm, lanes = args.asm, args.asm.lanes
        taps = self._emit_taps(args, source)
        step = args["channels"] * len(taps)
        for start in range(0, len(taps), lanes):
            part = taps[start : start + lanes]
            for lane, value in emit_rows(asm, part):
                with asm.when(asm.compare(">", count, lane)):
                    place = target + step * lane + start
                    size = value.ir.type.count
                    mask = asm.lanes_below(len(part), size)
                    kernel = value
                    if self.accumulate:
                        kernel = value + asm.load(place, mask=mask, lanes=size)
                    asm.store(kernel, place, mask=mask)

    def _emit_taps(self, args: Arguments, source: Value) -> list[Value]:
        """``A^T S A``, the taps row by row."""
        from nnpack.maths.program import linear_program

        asm, (t_h, t_w), r_h = args.asm, self.shape.t, self.shape.r[0]
        along_h = linear_program(self.shape.gradient_rows.output)
        along_w = linear_program(self.shape.gradient_columns.output)
        buffer, s_f = asm.local_floats(r_h * t_w * asm.lanes), args["s_f"]
        with asm.loop(t_w) as j:
            column = [asm.load(source + (j + i * t_w) * s_f) for i in range(t_h)]
            for p, value in enumerate(emit_program(asm, along_h, column)):
                asm.store(value, buffer + j * asm.lanes, p * t_w * asm.lanes)
        taps = []
        for p in range(r_h):
            row = [asm.load(buffer, (p * t_w + j) * asm.lanes) for j in range(t_w)]
            taps += emit_program(asm, along_w, row)
        return taps
