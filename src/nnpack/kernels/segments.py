"""Convolution as a matrix product whose depth is taken in segments: a tap and some channels each.

For many channels, a strip of patches over the whole depth outgrows the second-level cache. Here a
task packs one segment of its pixels at a time, multiplies it with all its panels, and adds the
products to sums in its scratch; the last segment stores. Taps that the task sees nothing but
padding through are left out, rows and columns of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnpack.frozen import dataclass
from nnpack.kernels.convolve import GemmConvolution, GemmEmitter, PixelBlock
from nnpack.kernels.gemm import Accumulators, GemmTile, Panel, emit_product
from nnpack.kernels.packing import emit_pack_tap, emit_tap_columns, emit_tap_rows
from nnpack.kernels.pixels import TilePlace
from nnpack.kernels.stage import Arguments, PhaseTimer
from nnpack.kernels.weights import POINTER_KINDS

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Value


@dataclass(frozen=True)
class SegmentedConvolution(GemmConvolution):
    """`GemmConvolution` of packed patches, ``segment_channels`` channels of one tap at a time.

    The sums of a task stand in its scratch from ``sums`` on.
    """

    @property
    def fields(self) -> dict[str, str]:
        """The argument words."""
        return {**super().fields, "segment_channels": "index", "sums": "index"}

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        _Emitter(asm, self).emit()


@dataclass(frozen=True)
class _Segment:
    """Steps ``start .. start + depth`` of the whole depth; whether they begin or end a sum."""

    start: Value
    depth: Value
    begins: Value
    ends: Value


class _Emitter(GemmEmitter):
    def _emit_pack_function(self) -> None:
        asm, kernel = self.asm, self.kernel
        with asm.function(
            "pack",
            block="pointer",
            x="pointer",
            to="pointer",
            first="index",
            count="index",
            r="index",
            s="index",
            channels="index",
        ) as (block, x, to, first, count, *tap):
            args = Arguments(asm, block, kernel.fields)
            emit_pack_tap(asm, args, self.strip, kernel.stride_w, x, to, first, count, *tap)

    def _emit_block(
        self, args: Arguments, block: Value, chunk: Value, scratch: Value, packed: Value
    ) -> None:
        """One task: all its segments."""
        asm, timer = self.asm, PhaseTimer(args, self.kernel.profile)
        place = self.place_of(args, block)
        out_width, kernel_w, channels = args.load("out_width", "kernel_w", "channels")
        last_row, reach = (place.start + place.count - 1) // out_width, self.strip.reach(args)
        rows = emit_tap_rows(asm, args, place.start // out_width, last_row, reach)
        left, right = emit_tap_columns(asm, args)
        with asm.loop(rows.last, start=rows.first) as r, asm.loop(right, start=left) as s:
            with asm.loop(channels, step=args["segment_channels"]) as c:
                depth = asm.minimum(channels - c, args["segment_channels"])
                with timer.phase("packing"):
                    x = place.x + c * args["x_c"]
                    words = place.start, place.count, r, s, depth
                    asm.call("pack", args.block, x, scratch, *words)
                segment = _Segment(
                    (r * kernel_w + s) * channels + c,
                    depth,
                    r.equals(rows.first) & s.equals(left) & c.equals(0),
                    r.equals(rows.last - 1) & s.equals(right - 1) & (c + depth).equals(channels),
                )
                with timer.phase("multiplication"):
                    self._emit_segment(args, scratch, place, chunk, segment)

    def _emit_segment(
        self,
        args: Arguments,
        scratch: Value,
        block: PixelBlock,
        chunk: Value,
        segment: _Segment,
    ) -> None:
        """All strips of the block times the panels of the chunk, over one segment."""
        asm, none = self.asm, self.asm.index(0)
        panels, out_channels = args.load("panels", "group_out_channels")
        depth = args["channels"] * args["kernel_h"] * args["kernel_w"]
        first_panel = chunk * args["chunk_panels"]
        last_panel = asm.minimum(first_panel + args["chunk_panels"], panels)
        flags = segment.begins, segment.ends
        begins, ends = (asm.select(flag, asm.index(1), none) for flag in flags)
        state = {"sums": scratch + args["sums"]}
        with asm.loop(last_panel, start=first_panel, carry=state) as panel:
            weight = args["weight"] + ((block.group * panels + panel) * depth + segment.start) * (
                self.panel
            )
            if self.kernel.widens:
                halves, weight = weight, scratch + args["widened"]
                asm.call("widen", halves, weight, segment.depth * self.panel)
            channel = panel * self.panel
            channels = asm.minimum(out_channels - channel, self.panel)
            out, number = block.y + channel * args["y_c"], channel + block.group * out_channels
            with asm.loop(block.count, step=self.strip.pixels, carry=state) as begin:
                size = asm.minimum(block.count - begin, self.strip.pixels)
                strip = scratch + begin * (segment.depth * self.rows)
                place = (out, number, channels, block.start + begin, size)
                words = (args.block, weight, strip, *place, segment.depth)
                later = (block.image, state["sums"], begins, ends)
                self.call_tile((*words, *later), channels, size)
                state["sums"] = state["sums"] + self.strip.width * self.panel
        if self.kernel.epilogue.statistics:
            with asm.when(segment.ends), asm.loop(last_panel, start=first_panel) as panel:
                self.emit_sums(args, block, panel)

    def _emit_tile_function(self, tile: GemmTile) -> None:
        asm, kernel = self.asm, self.kernel
        with asm.function(
            f"tile{tile.nv}",
            block="pointer",
            weight="pointer" if kernel.widens else POINTER_KINDS[kernel.storage],
            strip="pointer",
            y="pointer",
            channel="index",
            channels="index",
            pixel="index",
            pixels="index",
            depth="index",
            image="index",
            sums="pointer",
            begins="index",
            ends="index",
        ) as (block, weight, strip, y, channel, channels, pixel, count, depth, image, *rest):
            sums, begins, ends = rest
            patches = Panel(strip, self.strip.width, self.lower_row)
            weights = Panel(weight, self.panel)
            pixels = kernel.lanes == "pixels"
            a, b = (weights, patches) if pixels else (patches, weights)
            acc = emit_product(asm, tile, depth, a, b)
            self._emit_add(tile, acc, sums, begins)
            with asm.when(ends.equals(0)):
                for (i, j), value in acc.items():
                    asm.store(value, sums, (i * tile.nv + j) * asm.lanes)
            with asm.when(ends.equals(1)):
                args = Arguments(asm, block, kernel.fields)
                where = TilePlace(args, image, y, channel, channels, pixel, count, self.rows, None)
                store = self.emit_store_pixels if pixels else self.emit_store_channels
                store(tile, acc, where)

    def _emit_add(self, tile: GemmTile, acc: Accumulators, sums: Value, begins: Value) -> None:
        """Add the sums of the segments before, if there are any."""
        asm, is_first = self.asm, begins.equals(1)
        for (i, j), value in acc.items():
            before = asm.load(sums, (i * tile.nv + j) * asm.lanes)
            acc[i, j] = value + asm.select(is_first, asm.zeros(), before)
