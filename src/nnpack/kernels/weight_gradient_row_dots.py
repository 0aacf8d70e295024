"""The weight gradient as dot products of gradients with rows of x that are copied once.

    gw[k, (p, q, c)] = sum_d X[(p, q, c), d] * G[k, d],   d = (n * OH + i) * OW + j

As `weight_gradient_direct`, pixels in the lanes, gradients as they stand; but rows of X are the
copies of `row_blocks`, read from wherever they start, and nothing is copied for each tap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnpack.frozen import dataclass
from nnpack.kernels.gradient_share import Share
from nnpack.kernels.masked_load import MaskedLoad, masked_load_fields
from nnpack.kernels.row_blocks import ROW_BLOCK_FIELDS, Block, RowBlocks
from nnpack.kernels.stage import Arguments
from nnpack.kernels.turned_gradient import emit_add_tile
from nnpack.kernels.weight_gradient_direct import DotTile
from nnpack.problem import ActivationKind

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Mask, Value


@dataclass(frozen=True)
class WeightGradientRowDots:
    """The stage that fills ``sums[chunk][group][row panel][out panel][mr][nk][lanes]``.

    A task is a group, a chunk of blocks and ``task_panels`` row panels. ``stride_w``: the
    horizontal stride, or None when it is only known at run time. ``activation``: which the
    gradients are behind.
    """

    tile: DotTile
    stride_w: int | None
    activation: ActivationKind | None = None

    @property
    def fields(self) -> dict[str, str]:
        """The argument words."""
        return {**ROW_BLOCK_FIELDS, **masked_load_fields(self.activation)}

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        _Emitter(asm, self).emit()


class _Emitter:
    def __init__(self, asm: Assembler, kernel: WeightGradientRowDots) -> None:
        self.asm = asm
        self.kernel = kernel
        self.tile = kernel.tile
        self.tile_floats = kernel.tile.mr * kernel.tile.nk * asm.lanes
        self.blocks = RowBlocks(asm, kernel.fields, self.tile.mr, self.tile_floats, kernel.stride_w)

    def emit(self) -> None:
        self._emit_dots()
        with self.blocks.stage() as (args, share, block):
            self._emit_block(args, share, block)

    def _emit_block(self, args: Arguments, share: Share, block: Block) -> None:
        """All dot products of one block."""
        asm = self.asm
        grad = share.grad + block.image * args["grad_n"] + block.first
        with asm.loop(share.last_panel, start=share.first_panel) as panel:
            table = self.blocks.table(args, block, panel)
            sums = share.sums + panel * args["out_panels"] * self.tile_floats
            # The first panel reads gradients from memory, and asks for those of the next block.
            asks = panel.equals(share.first_panel)
            ahead = asm.select(asks, self._ahead(args, block), asm.index(0))
            with asm.loop(args["out_panels"]) as j:
                target, output = sums + j * self.tile_floats, j * self.tile.nk
                words = output, block.images, block.pixels, block.done, ahead
                asm.call("dots", args.block, block.scratch, table, grad, target, *words)

    def _ahead(self, args: Arguments, block: Block) -> Value:
        """How far on the gradients of the next block stand: in the next band, or the next image."""
        ends = (block.first + block.pixels).equals(args["out_height"] * args["out_width"])
        image = block.images * args["grad_n"] - block.first
        return self.asm.select(ends, image, block.pixels)

    def _emit_dots(self) -> None:
        """Define ``dots``: a tile of sums over a block; stored, or added if some were ``done``."""
        asm, lanes, (mr, nk) = self.asm, self.asm.lanes, (self.tile.mr, self.tile.nk)
        with asm.function(
            "dots",
            block="pointer",
            rows="pointer",
            table="pointer",
            grad="pointer",
            sums="pointer",
            output="index",
            images="index",
            pixels="index",
            done="index",
            ahead="index",
        ) as (block, rows, table, grad, sums, output, images, pixels, done, ahead):
            args = Arguments(asm, block, self.kernel.fields)
            load = MaskedLoad(asm, self.kernel.activation, args, "grad")
            # Beyond the last channel the last one stands again, for sums that nobody reads.
            last = args["group_out_channels"] - 1
            planes = [asm.minimum(output + j, last) * args["grad_c"] for j in range(nk)]
            grad_n, image_floats = args.load("grad_n", "image_floats")
            offsets = [asm.load_index(table, i) for i in range(mr)]
            places = {(i, j): (i * nk + j) * lanes for i in range(mr) for j in range(nk)}
            state: dict[object, Value] = dict.fromkeys(places, asm.zeros())
            state |= {"rows": rows, "grad": grad}
            with asm.loop(images, carry=state):
                image, gradients = state["rows"], state["grad"]

                def add(place: Value, mask: Mask) -> None:
                    vectors = []
                    for plane in planes:
                        pointer = gradients + plane + place
                        asm.prefetch(pointer + ahead, level=2)
                        vectors.append(load(pointer, mask=mask))
                    for i, offset in enumerate(offsets):
                        x = asm.load(image + offset + place, mask=mask)
                        for j, vector in enumerate(vectors):
                            state[i, j] = asm.fma(x, vector, state[i, j])

                whole = pixels // lanes * lanes
                with asm.loop(whole, step=lanes, carry=state) as place:
                    add(place, None)
                with asm.loop(pixels, start=whole, step=lanes, carry=state) as place:
                    add(place, asm.lanes_below(pixels - place))
                state["rows"], state["grad"] = image + image_floats, gradients + grad_n
            emit_add_tile(asm, state, places, sums, done)
