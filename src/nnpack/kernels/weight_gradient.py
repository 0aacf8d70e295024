"""The weight gradient as a matrix product: patches of x times gradients, summed over pixels.

    gw[(p, q, c), k] = sum_d X[(p, q, c), d] * G[d, k],   d = (n * OH + i) * OW + j

with a row of X for every tap and channel, as in `packing`, and the output channels of G in the
lanes. Depth d runs through the outputs of all images and is cut into blocks. For each block G is
turned, output channels into the lanes, into panels ``[d][width]``; then every ``mr`` rows of X are
copied, depth in their columns, into one panel ``[mr][d]``, which stays in the first-level cache
while all panels of G are multiplied by it.

Blocks are shared out to *chunks*, a number that only the problem decides. A chunk adds its blocks
in order, so that results do not depend on the threads; `pairwise` adds the chunks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnpack.frozen import dataclass
from nnpack.kernels.gemm import GemmTile, emit_rank_one
from nnpack.kernels.gradient_share import PRODUCT_FIELDS, Share, emit_share, row_floats
from nnpack.kernels.masked_load import masked_load_fields
from nnpack.kernels.patch_rows import PatchRows
from nnpack.kernels.stage import Arguments, emit_stage
from nnpack.kernels.transpose import emit_load_transposed
from nnpack.kernels.turned_gradient import TurnedGradient, emit_add_tile, following_gradients
from nnpack.problem import ActivationKind

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Mask, Value


@dataclass(frozen=True)
class WeightGradientProduct:
    """The stage that fills ``sums[chunk][group][row panel][out panel][mr][width]``.

    A task is a group, a chunk of depth and ``task_panels`` row panels. ``block``: steps of depth a
    block, a multiple of the lanes. ``stride_w``: the horizontal stride, or None when it is only
    known at run time. A worker's scratch has `scratch_floats`.

    ``ahead``: rows of the next panel of X that each product asks for; for 1x1 kernels, each of
    whose rows is read once. No hardware prefetcher follows the many planes, and without it memory
    waits for arithmetic (1x1 256->64 @56, batch 16: 81 GFLOP/s). ``activation``: which the
    gradients are behind.
    """

    tile: GemmTile
    block: int
    stride_w: int | None
    ahead: int = 0
    activation: ActivationKind | None = None

    @property
    def fields(self) -> dict[str, str]:
        """The argument words."""
        return {**PRODUCT_FIELDS, **masked_load_fields(self.activation)}

    def panel_floats(self, lanes: int) -> int:
        """Floats of a panel of G, which overruns by up to as many steps as there are lanes."""
        return (self.block + lanes) * self.tile.nv * lanes

    def scratch_floats(self, lanes: int, out_panels: int) -> int:
        """Floats of scratch a worker."""
        return self.tile.mr * row_floats(self.block, lanes) + out_panels * self.panel_floats(lanes)

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        _Emitter(asm, self).emit()


class _Emitter:
    def __init__(self, asm: Assembler, kernel: WeightGradientProduct) -> None:
        self.asm = asm
        self.kernel = kernel
        self.tile = kernel.tile
        self.width = kernel.tile.nv * asm.lanes
        self.tile_floats = kernel.tile.mr * self.width
        self.row = row_floats(kernel.block, asm.lanes)
        self.panel = kernel.panel_floats(asm.lanes)

    def emit(self) -> None:
        self._emit_product()
        asm = self.asm
        PatchRows(asm, self.kernel.fields, self.tile.mr, self.row, self.kernel.stride_w).emit()
        TurnedGradient(asm, self.kernel.fields, self.tile, self.kernel.activation).emit(self.panel)
        with emit_stage(asm, self.kernel.fields) as (args, first, last, worker):
            scratch = args["scratch"] + worker * args["scratch_stride"]
            with asm.loop(last, start=first) as task:
                self._emit_task(args, task, scratch)

    def _emit_task(self, args: Arguments, task: Value, scratch: Value) -> None:
        """All blocks of one chunk of depth, in order."""
        asm = self.asm
        share = emit_share(asm, args, task, self.tile_floats)
        start, stop = share.depth(asm, args, self.kernel.block)
        with asm.loop(stop, start=start, step=self.kernel.block) as d:
            count = asm.minimum(self.kernel.block, stop - d)
            panels = scratch + self.tile.mr * self.row
            asm.call("turn_gradient", args.block, share.grad, panels, d, count)
            with asm.loop(share.last_panel, start=share.first_panel) as panel:
                asm.call("pack_rows", args.block, share.x, scratch, panel, d, count)
                target = share.sums + panel * args["out_panels"] * self.tile_floats
                following = self._following(args, share, panel, d)
                asks = panel.equals(share.first_panel)
                gradients = following_gradients(args, share.grad, d + self.kernel.block)
                with asm.loop(args["out_panels"]) as j:
                    g, place = panels + j * self.panel, target + j * self.tile_floats
                    rows = following + j * self.kernel.ahead * args["x_c"]
                    last = asm.select(asks, args["group_out_channels"] - 1 - j * self.width, 0)
                    following_g = gradients + j * self.width * args["grad_c"]
                    words = count, d - start, rows, following_g, last * args["grad_c"]
                    asm.call("product", args.block, scratch, g, place, *words)

    def _following(self, args: Arguments, share: Share, panel: Value, d: Value) -> Value:
        """Where the panel of X that is copied next starts, for a 1x1 kernel."""
        if not self.kernel.ahead:
            return share.x
        asm = self.asm
        ends = (panel + 1).equals(share.last_panel)
        row = asm.select(ends, share.first_panel, panel + 1) * self.tile.mr
        step = asm.select(ends, d + self.kernel.block, d)
        pixels = args["out_height"] * args["out_width"]
        return share.x + step // pixels * args["x_n"] + step % pixels + row * args["x_c"]

    def _emit_product(self) -> None:
        """Define ``product``: a tile of sums, stored if ``done`` is 0, else added.

        Meanwhile the gradients of the next block are asked for, channels up to ``last``: a block
        has short pieces of many planes, which no hardware prefetcher follows. Asked for while they
        are turned they come no sooner than memory gives them, and it rests during the products.
        """
        asm, tile, lanes = self.asm, self.tile, self.asm.lanes
        unroll = lanes
        with asm.function(
            "product",
            block="pointer",
            rows="pointer",
            g="pointer",
            sums="pointer",
            count="index",
            done="index",
            ahead="pointer",
            following="pointer",
            last="index",
        ) as (block, rows, g, sums, count, done, ahead, following, last):
            x_c, grad_c = Arguments(asm, block, self.kernel.fields).load("x_c", "grad_c")
            tile.check(asm.target)
            places = {
                (i, j): i * self.width + j * lanes for i in range(tile.mr) for j in range(tile.nv)
            }
            for offset in places.values():
                asm.prefetch(sums, offset, write=True)
            zero = asm.zeros()
            state: dict[object, Value] = dict.fromkeys(places, zero)
            state |= {"rows": rows, "g": g, "following": following}
            with asm.loop(count, step=unroll, carry=state) as d:
                channel = asm.index(0)
                for step in range(unroll):
                    for _ in range(tile.nv):
                        asm.prefetch(state["following"] + channel, level=2)
                        channel = asm.minimum(channel + grad_c, last)
                    if step < self.kernel.ahead:
                        asm.prefetch(ahead + step * x_c + d)
                    vectors = state["g"] + step * self.width
                    emit_rank_one(asm, tile, state, state["rows"] + step, self.row, vectors)
                state["rows"] = state["rows"] + unroll
                state["g"] = state["g"] + unroll * self.width
                state["following"] = state["following"] + unroll
            emit_add_tile(asm, state, places, sums, done)


@dataclass(frozen=True)
class StoreWeightGradient:
    """The stage ``gw[k, c, p, q] (+)= sums``, those of one chunk; a task is a vector of channels k.

    ``accumulate``: added to gw.
    """

    tile: GemmTile
    accumulate: bool

    @property
    def fields(self) -> dict[str, str]:
        """The argument words."""
        names = (
            "row_panels",
            "out_panels",
            "channels",
            "taps",
            "group_out_channels",
        )
        return {"sums": "pointer", "y": "pointer", **dict.fromkeys(names, "index")}

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        lanes, (mr, nv) = asm.lanes, (self.tile.mr, self.tile.nv)
        tile_floats = mr * nv * lanes
        with emit_stage(asm, self.fields) as (args, first, last, _):
            channels, taps, out_panels = args.load("channels", "taps", "out_panels")
            vectors = asm.ceil_div(args["group_out_channels"], lanes)
            with asm.loop(last, start=first) as task:
                group, vector = task // vectors, task % vectors
                k = vector * lanes
                count = asm.minimum(args["group_out_channels"] - k, lanes)
                group_floats = args["row_panels"] * out_panels * tile_floats
                column = vector // nv * tile_floats + vector % nv * lanes
                sums = args["sums"] + group * group_floats + column
                row_floats = channels * taps
                y = args["y"] + (group * args["group_out_channels"] + k) * row_floats
                state = {"c": asm.index(0), "tap": asm.index(0)}
                with asm.loop(row_floats, step=lanes, carry=state) as e:
                    rows = []
                    for _ in range(lanes):
                        # Beyond the last channel the last one is read again.
                        r = state["tap"] * channels + asm.minimum(state["c"], channels - 1)
                        place = sums + r // mr * out_panels * tile_floats + r % mr * (nv * lanes)
                        rows.append(asm.load(place))
                        ends = (state["tap"] + 1).equals(taps)
                        state["tap"] = asm.select(ends, 0, state["tap"] + 1)
                        state["c"] = asm.select(ends, state["c"] + 1, state["c"])
                    self._emit_turned(asm, rows, y + e, row_floats, count, row_floats - e)

    def _emit_turned(
        self,
        asm: Assembler,
        rows: list[Value],
        y: Value,
        row_floats: Value,
        count: Value,
        width: Value,
    ) -> None:
        """Lanes l < ``count`` of all rows side by side, ``width`` of them, to row l of y."""
        turned = emit_load_transposed(asm, asm.lanes, lambda n, _: rows[n])

        def store(mask: Mask) -> None:
            for lane, value in enumerate(turned):
                with asm.when(count > lane):
                    target = y + lane * row_floats
                    total = value + asm.load(target, mask=mask) if self.accumulate else value
                    asm.store(total, target, mask=mask)

        whole = width >= asm.lanes
        with asm.when(whole):
            store(None)
        with asm.when(whole.equals(0)):
            store(asm.lanes_below(width))
