"""The weight gradient with pixels in the lanes: dot products of patches and gradients.

    gw[k, (p, q, c)] = sum_d X[(p, q, c), d] * G[k, d],   d = (n * OH + i) * OW + j

The rows of X are those of `weight_gradient`, copied into one panel after the other. Of G nothing is
copied or turned: its pixels are consecutive already. A register tile is mr rows of X by nk output
channels, and each sum is a vector, whose lanes are added when all is summed. So no lane is lost
with few output channels, or few in a group, and nothing is spent on turning gradients of which few
rows of X would make use; what it costs is a vector of sums for each number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnpack.frozen import dataclass
from nnpack.kernels.gradient_share import PRODUCT_FIELDS, emit_share, row_floats
from nnpack.kernels.masked_load import MaskedLoad, masked_load_fields
from nnpack.kernels.patch_rows import PatchRows
from nnpack.kernels.stage import Arguments, emit_stage
from nnpack.kernels.turned_gradient import following_gradients
from nnpack.kernels.vectors import emit_lane_sum
from nnpack.problem import ActivationKind

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Mask, Value


@dataclass(frozen=True)
class DotTile:
    """``mr`` rows of patches times ``nk`` output channels, each a vector of sums over pixels."""

    mr: int
    nk: int

    def registers(self) -> int:
        """Vector registers in use: sums, a vector of each channel, and one of a row."""
        return self.mr * self.nk + self.nk + 1


@dataclass(frozen=True)
class WeightGradientDots:
    """The stage that fills ``sums[chunk][group][row panel][out panel][mr][nk][lanes]``.

    A task is a group, a chunk of depth and ``task_panels`` row panels. ``block``: steps of depth a
    block, a multiple of the lanes. ``stride_w``: the horizontal stride, or None when it is only
    known at run time. ``activation``: which the gradients are behind. A worker's scratch has
    `scratch_floats`.
    """

    tile: DotTile
    block: int
    stride_w: int | None
    activation: ActivationKind | None = None

    @property
    def fields(self) -> dict[str, str]:
        """The argument words."""
        return {**PRODUCT_FIELDS, **masked_load_fields(self.activation)}

    def scratch_floats(self, lanes: int) -> int:
        """Floats of scratch a worker."""
        return self.tile.mr * row_floats(self.block, lanes)

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        _Emitter(asm, self).emit()


class _Emitter:
    def __init__(self, asm: Assembler, kernel: WeightGradientDots) -> None:
        self.asm = asm
        self.kernel = kernel
        self.tile = kernel.tile
        self.tile_floats = kernel.tile.mr * kernel.tile.nk * asm.lanes
        self.row = row_floats(kernel.block, asm.lanes)

    def emit(self) -> None:
        asm, kernel = self.asm, self.kernel
        PatchRows(asm, kernel.fields, self.tile.mr, self.row, kernel.stride_w).emit()
        self._emit_dots()
        with emit_stage(asm, kernel.fields) as (args, first, last, worker):
            scratch = args["scratch"] + worker * args["scratch_stride"]
            with asm.loop(last, start=first) as task:
                self._emit_task(args, task, scratch)

    def _emit_task(self, args: Arguments, task: Value, scratch: Value) -> None:
        """All blocks of one chunk of depth, in order."""
        asm, block = self.asm, self.kernel.block
        share, out_panels = emit_share(asm, args, task, self.tile_floats), args["out_panels"]
        start, stop = share.depth(asm, args, block)
        with asm.loop(stop, start=start, step=block) as d:
            count = asm.minimum(block, stop - d)
            pixels = args["out_height"] * args["out_width"]
            images = d // pixels, (d + count - 1) // pixels + 1
            here = following_gradients(args, share.grad, d)
            following = asm.distance(following_gradients(args, share.grad, d + block), here)
            with asm.loop(share.last_panel, start=share.first_panel) as panel:
                asm.call("pack_rows", args.block, share.x, scratch, panel, d, count)
                target = share.sums + panel * out_panels * self.tile_floats
                # The first panel reads gradients from memory, and asks for those of the next block.
                ahead = asm.select(panel.equals(share.first_panel), following, asm.index(0))
                with asm.loop(out_panels) as j:
                    place = target + j * self.tile_floats
                    words = place, j * self.tile.nk, d, count, *images, d - start, ahead
                    asm.call("dots", args.block, scratch, share.grad, *words)

    def _emit_dots(self) -> None:
        """Define ``dots``: a tile of sums over a block, stored if ``done`` is 0, else added."""
        asm, lanes, (mr, nk) = self.asm, self.asm.lanes, (self.tile.mr, self.tile.nk)
        with asm.function(
            "dots",
            block="pointer",
            rows="pointer",
            grad="pointer",
            sums="pointer",
            output="index",
            start="index",
            count="index",
            first_image="index",
            last_image="index",
            done="index",
            ahead="index",
        ) as (block, rows, grad, sums, output, start, count, first, last, done, ahead):
            args = Arguments(asm, block, self.kernel.fields)
            acc: dict[object, Value] = {(i, j): asm.zeros() for i in range(mr) for j in range(nk)}
            self._emit_images(args, acc, (rows, grad), output, (start, count, first, last), ahead)
            places = {(i, j): (i * nk + j) * lanes for i in range(mr) for j in range(nk)}
            with asm.when(done.equals(0)):
                for key, offset in places.items():
                    asm.store(acc[key], sums, offset)
            with asm.when(asm.compare(">", done, 0)):
                for key, offset in places.items():
                    asm.store(asm.load(sums, offset) + acc[key], sums, offset)

    def _emit_images(
        self,
        args: Arguments,
        acc: dict[object, Value],
        operands: tuple[Value, Value],
        output: Value,
        steps: tuple[Value, Value, Value, Value],
        ahead: Value,
    ) -> None:
        """What the block has of each image: whole vectors of pixels, and at last a masked one.

        ``steps``: where the block starts, how many it has, and of which images, first and stop.
        """
        asm, lanes, (rows, grad) = self.asm, self.asm.lanes, operands
        start, count, first, stop = steps
        load = MaskedLoad(asm, self.kernel.activation, args, "grad")
        pixels = args["out_height"] * args["out_width"]
        # Beyond the last channel the last one stands again, for sums that nobody reads.
        last = args["group_out_channels"] - 1
        planes = [asm.minimum(output + j, last) * args["grad_c"] for j in range(self.tile.nk)]
        with asm.loop(stop, start=first, carry=acc) as n:
            low = asm.maximum(start, n * pixels)
            length = asm.minimum(start + count, (n + 1) * pixels) - low
            image = grad + n * args["grad_n"] + (low - n * pixels)
            panel, whole = rows + (low - start), length // lanes * lanes

            def add(place: Value, mask: Mask, image: Value = image, panel: Value = panel) -> None:
                gradients = [image + plane + place for plane in planes]
                for pointer in gradients:
                    asm.prefetch(pointer + ahead, level=2)
                vectors = [load(pointer, mask=mask) for pointer in gradients]
                for i in range(self.tile.mr):
                    x = asm.load(panel + place, i * self.row, mask=mask)
                    for j, vector in enumerate(vectors):
                        acc[i, j] = asm.fma(x, vector, acc[i, j])

            with asm.loop(whole, step=lanes, carry=acc) as place:
                add(place, None)
            with asm.loop(length, start=whole, step=lanes, carry=acc) as place:
                add(place, asm.lanes_below(length - place))


@dataclass(frozen=True)
class StoreDots:
    """The stage ``gw[k, c, p, q] (+)= the lanes' sum``; a task is an output channel k.

    ``accumulate``: added to gw.
    """

    tile: DotTile
    accumulate: bool

    @property
    def fields(self) -> dict[str, str]:
        """The argument words."""
        names = ("row_panels", "out_panels", "channels", "taps", "group_out_channels")
        return {"sums": "pointer", "y": "pointer", **dict.fromkeys(names, "index")}

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        lanes, (mr, nk) = asm.lanes, (self.tile.mr, self.tile.nk)
        tile_floats = mr * nk * lanes
        with emit_stage(asm, self.fields) as (args, first, last, _):
            channels, taps, out_panels = args.load("channels", "taps", "out_panels")
            outputs, step = args["group_out_channels"], out_panels * tile_floats
            with asm.loop(last, start=first) as k:
                group, output = k // outputs, k % outputs
                column = output // nk * tile_floats + output % nk * lanes
                sums = args["sums"] + group * args["row_panels"] * step + column
                y = args["y"] + k * channels * taps
                with asm.loop(taps) as tap, asm.loop(channels) as c:
                    row, place = tap * channels + c, c * taps + tap
                    vector = asm.load(sums + row // mr * step + row % mr * (nk * lanes))
                    total = emit_lane_sum(asm, [vector])
                    if self.accumulate:
                        total = total + asm.load_float(y, place)
                    asm.store(total, y, place)
