"""The weight gradient with pixels broadcast from rows of x that are copied once.

    gw[k, (p, q, c)] = sum_d X[(p, q, c), d] * G[k, d],   d = (n * OH + i) * OW + j

As `weight_gradient`, output channels in the lanes of turned gradients. But of x a block copies
nothing for each tap: rows of X are the copies of `row_blocks`, and a broadcast does not mind where
it starts. With few channels, or narrow outputs, whose rows are no whole vectors, packing patches
takes as long as multiplying them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnpack.frozen import dataclass
from nnpack.kernels.gemm import GemmTile, emit_gathered_rank_one
from nnpack.kernels.gradient_share import Share
from nnpack.kernels.masked_load import masked_load_fields
from nnpack.kernels.row_blocks import ROW_BLOCK_FIELDS, Block, RowBlocks
from nnpack.kernels.stage import Arguments
from nnpack.kernels.turned_gradient import TurnedGradient, emit_add_tile, following_gradients
from nnpack.problem import ActivationKind

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Value


@dataclass(frozen=True)
class WeightGradientRows:
    """The stage that fills ``sums[chunk][group][row panel][out panel][mr][width]``.

    A task is a group, a chunk of blocks and ``task_panels`` row panels. ``step_w``: from the pixel
    of x that an output sees to that of the next one. ``activation``: which the gradients are
    behind. Behind the rows of x a worker's scratch has panels of G, ``panel_floats`` each, as many
    steps longer than a block as there are lanes.
    """

    tile: GemmTile
    activation: ActivationKind | None = None

    @property
    def fields(self) -> dict[str, str]:
        """The argument words."""
        return {
            **ROW_BLOCK_FIELDS,
            "panel_floats": "index",
            "step_w": "index",
            **masked_load_fields(self.activation),
        }

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        _Emitter(asm, self).emit()


class _Emitter:
    def __init__(self, asm: Assembler, kernel: WeightGradientRows) -> None:
        self.asm = asm
        self.kernel = kernel
        self.tile = kernel.tile
        self.width = kernel.tile.nv * asm.lanes
        self.tile_floats = kernel.tile.mr * self.width
        self.blocks = RowBlocks(asm, kernel.fields, self.tile.mr, self.tile_floats, 1)

    def emit(self) -> None:
        asm, kernel = self.asm, self.kernel
        self._emit_product()
        TurnedGradient(asm, kernel.fields, self.tile, kernel.activation).emit("panel_floats")
        with self.blocks.stage() as (args, share, block):
            self._emit_block(args, share, block)

    def _emit_block(self, args: Arguments, share: Share, block: Block) -> None:
        """All products of one block."""
        asm = self.asm
        gradients = block.scratch + args["block_images"] * args["image_floats"]
        d = block.image * (args["out_height"] * args["out_width"]) + block.first
        count = block.images * block.pixels
        asm.call("turn_gradient", args.block, share.grad, gradients, d, count)
        following = following_gradients(args, share.grad, d + count)
        with asm.loop(share.last_panel, start=share.first_panel) as panel:
            table = self.blocks.table(args, block, panel)
            sums = share.sums + panel * args["out_panels"] * self.tile_floats
            asks = panel.equals(share.first_panel)
            with asm.loop(args["out_panels"]) as j:
                k = j * self.width
                last = asm.select(asks, args["group_out_channels"] - 1 - k, 0)
                asked = following + k * args["grad_c"], last * args["grad_c"]
                operands = block.scratch, table, gradients + j * args["panel_floats"]
                words = block.images, block.rows, block.done, *asked
                target = sums + j * self.tile_floats
                asm.call("product", args.block, *operands, target, *words)

    def _emit_product(self) -> None:
        """Define ``product``: a tile of sums, stored if nothing was ``done``, else added.

        Meanwhile gradients of the next block are asked for, channels up to ``last``.
        """
        asm, tile, lanes = self.asm, self.tile, self.asm.lanes
        with asm.function(
            "product",
            block="pointer",
            x="pointer",
            table="pointer",
            g="pointer",
            sums="pointer",
            images="index",
            rows="index",
            done="index",
            following="pointer",
            last="index",
        ) as (block, x, table, g, sums, images, rows, done, following, last):
            args = Arguments(asm, block, self.kernel.fields)
            tile.check(asm.target)
            places = {
                (i, j): i * self.width + j * lanes for i in range(tile.mr) for j in range(tile.nv)
            }
            for offset in places.values():
                asm.prefetch(sums, offset, write=True)
            state: dict[object, Value] = dict.fromkeys(places, asm.zeros())
            state |= {"g": g, "following": following, "channel": asm.index(0)}
            pitch, image_floats = args.load("pitch", "image_floats")
            with asm.loop(images, carry=state) as n, asm.loop(rows, carry=state) as i:
                self._emit_row(args, state, x + n * image_floats + i * pitch, table, last)
            emit_add_tile(asm, state, places, sums, done)

    def _emit_row(
        self, args: Arguments, state: dict[object, Value], x: Value, table: Value, last: Value
    ) -> None:
        """The outputs of one row, each a step of the depth."""
        asm = self.asm
        step_w, grad_c, out_width = args.load("step_w", "grad_c", "out_width")
        state["x"] = x
        with asm.loop(out_width, carry=state):
            for _ in range(self.tile.nv):
                self._emit_ask(state, grad_c, last)
            emit_gathered_rank_one(asm, self.tile, state, state["x"], table, state["g"])
            state["x"], state["g"] = state["x"] + step_w, state["g"] + self.width
        del state["x"]

    def _emit_ask(self, state: dict[object, Value], grad_c: Value, last: Value) -> None:
        """Ask for a vector of the next block: those of all channels before the next ones."""
        asm = self.asm
        asm.prefetch(state["following"] + state["channel"], level=2)
        channel = state["channel"] + grad_c
        ends = asm.compare(">", channel, last)
        state["channel"] = asm.select(ends, 0, channel)
        state["following"] = state["following"] + asm.select(ends, asm.lanes, 0)
