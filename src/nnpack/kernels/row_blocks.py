"""Blocks of weight gradients whose rows of x are copied once, for all taps.

    X[(p, q, c), d] = x[n, c, i sh + p dh - top, j sw + q dw - left],   d = (n * OH + i) * OW + j

A block is ``block_rows`` rows of outputs, a band of one image, or all rows of ``block_images``
images; an image has ``bands``. `rows` copies the rows it sees of x, padded, so that row (p, q, c)
of X is the copy from ``table[(p, q, c)]`` on, images ``image_floats`` apart. Either, with a phase
for each column of taps and rows as close as those of outputs, its pixels are side by side; or
columns are copied as they are, ``block_columns`` for a row of outputs and what taps see beyond,
with a ``stride_w`` of 1: then pixels are as far apart as the convolution strides.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nnpack.frozen import dataclass
from nnpack.kernels.gradient_share import PRODUCT_FIELDS, Share, emit_share
from nnpack.kernels.rows import ROW_FIELDS, Region, emit_copy_rows, emit_tap_table
from nnpack.kernels.stage import Arguments, Fields, emit_stage

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Value

ROW_BLOCK_FIELDS: Fields = {
    **PRODUCT_FIELDS,
    **ROW_FIELDS,
    **dict.fromkeys(
        (
            "batch",
            "bands",
            "block_images",
            "block_rows",
            "block_columns",
            "image_floats",
            "table",
        ),
        "index",
    ),
}
"""A worker's scratch has the copies of ``block_images`` images, and at ``table`` words."""


@dataclass(frozen=True)
class Block:
    """``rows`` rows of outputs of ``images`` images from ``image`` on.

    ``first`` is the number of the first output in an image, and ``pixels`` there are; ``done``
    blocks of the chunk came before.
    """

    scratch: Value
    image: Value
    images: Value
    rows: Value
    first: Value
    pixels: Value
    done: Value


class RowBlocks:
    """Emits the stage that goes through all blocks of each task, their rows of x copied.

    ``mr``: rows of a panel of X; ``tile_floats``: of a tile of sums. ``stride_w``: the horizontal
    stride, or None when it is only known at run time.
    """

    def __init__(
        self, asm: Assembler, fields: Fields, mr: int, tile_floats: int, stride_w: int | None
    ) -> None:
        self.asm = asm
        self.fields = fields
        self.mr = mr
        self.tile_floats = tile_floats
        self.stride_w = stride_w

    @contextmanager
    def stage(self) -> Iterator[tuple[Arguments, Share, Block]]:
        """The body is run for each block; blocks of a chunk come in order."""
        asm = self.asm
        self._emit_copy()
        with emit_stage(asm, self.fields) as (args, first, last, worker):
            scratch = args["scratch"] + worker * args["scratch_stride"]
            self._emit_table(args, scratch + args["table"])
            with asm.loop(last, start=first) as task:
                share = emit_share(asm, args, task, self.tile_floats)
                bands = args["bands"]
                blocks = asm.ceil_div(args["batch"], args["block_images"]) * bands
                start = share.chunk * args["chunk_blocks"]
                stop = asm.minimum(start + args["chunk_blocks"], blocks)
                with asm.loop(stop, start=start) as number:
                    block = self._emit_rows(args, share, scratch, number, number - start)
                    yield args, share, block

    def table(self, args: Arguments, block: Block, panel: Value) -> Value:
        """The places of the rows of a panel."""
        words = block.scratch + args["table"]
        return self.asm.index_pointer(words, panel * self.mr)

    def _emit_rows(
        self, args: Arguments, share: Share, scratch: Value, number: Value, done: Value
    ) -> Block:
        """Copy what block ``number`` sees."""
        asm, bands = self.asm, args["bands"]
        image, row = number // bands * args["block_images"], number % bands * args["block_rows"]
        images = asm.minimum(args["block_images"], args["batch"] - image)
        rows = asm.minimum(args["block_rows"], args["out_height"] - row)
        with asm.loop(images) as n:
            source = share.x + (image + n) * args["x_n"]
            asm.call("copy_rows", args.block, source, scratch + n * args["image_floats"], row, rows)
        width = args["out_width"]
        return Block(scratch, image, images, rows, row * width, rows * width, done)

    def _emit_copy(self) -> None:
        """Define ``copy_rows``: what ``rows`` rows of outputs of the image at x see."""
        asm = self.asm
        with asm.function(
            "copy_rows", block="pointer", x="pointer", to="pointer", row="index", rows="index"
        ) as (block, x, to, row, rows):
            args = Arguments(asm, block, self.fields)
            region = Region(row, rows, asm.index(0), args["block_columns"])
            emit_copy_rows(asm, args, self.stride_w, x, to, region)

    def _emit_table(self, args: Arguments, table: Value) -> None:
        """The places of all rows; beyond the last it stands again, for sums that nobody reads."""
        asm = self.asm
        emit_tap_table(asm, args, table)
        count = args["kernel_h"] * args["kernel_w"] * args["channels"]
        last = asm.load_index(table, count - 1)
        with asm.loop(args["row_panels"] * self.mr, start=count) as row:
            asm.store_index(last, table, row)
