"""Convolution as a matrix product: packed patches, or the image itself, times packed weights.

A task is one block of output pixels of one image and group, and a range of weight panels. Either
the pixels stand in the lanes and the weights are broadcast, or the output channels stand in the
lanes and the pixels are broadcast: what is packed is the same, strips ``[depth][strip]`` of pixels
and panels ``[depth][panel]`` of weights; only the roles in the microkernel change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from nnpack.frozen import dataclass
from nnpack.kernels.epilogue import Epilogue, epilogue_fields
from nnpack.kernels.gemm import Accumulators, GemmTile, Panel, emit_product
from nnpack.kernels.packing import (
    PATCH_FIELDS,
    Strip,
    TapRows,
    emit_pack_patches,
    emit_tap_rows,
)
from nnpack.kernels.pixels import (
    StoreRows,
    TilePlace,
    emit_collect_pairs,
    emit_scatter_functions,
    emit_store_channels,
)
from nnpack.kernels.stage import Arguments, PhaseTimer, emit_stage, profile_fields
from nnpack.kernels.storage import emit_widen_function
from nnpack.kernels.weights import POINTER_KINDS
from nnpack.problem import EpilogueKind, WeightStorage

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Index, Value

Lanes = Literal["pixels", "channels"]

_FIELDS = {
    "x": "pointer",
    "weight": "pointer",
    "y": "pointer",
    "scratch": "pointer",
    "scratch_stride": "index",
    **PATCH_FIELDS,
    **dict.fromkeys(
        (
            "groups",
            "group_out_channels",
            "pixels",
            "block_pixels",
            "panels",
            "chunk_panels",
            "x_n",
            "y_n",
            "y_c",
            "y_h",
            "y_w",
            "y_is_cold",
        ),
        "index",
    ),
}


@dataclass(frozen=True)
class GemmConvolution:
    """The stage ``y[n, k, p] = epilogue(sum_d weight[k, d] * X[n, d, p])``.

    ``packed``: patches are packed into scratch first; otherwise the image is its own patch matrix
    (1x1 kernels, rows of channels ``x_c`` apart). ``dense``: the pixels of an output plane are
    consecutive; otherwise each row is stored by itself, pixels ``y_w`` apart. ``y_is_cold``: 1 when
    y is expected to be in no cache, 0 otherwise.
    ``stride_w``: the horizontal stride, or None when it is only known at run time.
    Where the epilogue pools, which is only where patches are packed, pixels p are the columns of
    pairs of output rows, both even in number, and ``stride_h`` is that of the pairs. A strip, of
    an even number of vectors or a multiple of four pixels, is half of the upper, half of the lower.
    ``storage``: what the packed weights are. Halves that are broadcast are widened, a panel at a
    time, into the worker's scratch from ``widened`` on.
    """

    tile: GemmTile
    lanes: Lanes
    packed: bool
    dense: bool
    stride_w: int | None
    epilogue: EpilogueKind
    storage: WeightStorage = "float32"
    profile: bool = False

    @property
    def fields(self) -> dict[str, str]:
        """The argument words."""
        return {
            **_FIELDS,
            "weight": POINTER_KINDS[self.storage],
            **Strip(0, self.rows).fields,
            **({"widened": "index"} if self.widens else {}),
            **epilogue_fields(self.epilogue),
            **profile_fields(self.profile),
        }

    @property
    def widens(self) -> bool:
        """Whether weights are made floats before they are used, rather than when loaded."""
        return self.storage == "float16" and self.lanes == "pixels"

    @property
    def rows(self) -> int:
        """Rows of outputs in a strip."""
        return 2 if self.epilogue.pool else 1

    @property
    def moves_back(self) -> bool:
        """Whether the last strip of a block moves back so as to end with it."""
        return not self.packed and self.lanes == "channels"

    def strip(self, lanes: int) -> int:
        """Pixels in a strip, of all its rows."""
        return self.tile.mr if self.lanes == "channels" else self.tile.nv * lanes

    def panel(self, lanes: int) -> int:
        """Output channels in a panel."""
        return self.tile.nv * lanes if self.lanes == "channels" else self.tile.mr

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        GemmEmitter(asm, self).emit()


@dataclass(frozen=True)
class PixelBlock:
    """A block of pixels of one image and group: its planes, its first pixel and how many."""

    image: Value
    x: Value
    y: Value
    group: Value
    start: Value
    count: Value


class GemmEmitter:
    """Emits a `GemmConvolution`: functions for tiles and for packing, and the loops round them."""

    def __init__(self, asm: Assembler, kernel: GemmConvolution) -> None:
        self.asm = asm
        self.kernel = kernel
        self.rows = kernel.rows
        self.strip = Strip(kernel.strip(asm.lanes) // self.rows, self.rows)
        self.panel = kernel.panel(asm.lanes)
        # From the upper to the lower row of pixels that stand in the lanes.
        in_lanes = kernel.lanes == "pixels" and self.rows > 1
        self.lower_row = self.strip.pixels if in_lanes else None
        # Tiles by number of vectors: the last strip or panel may need fewer.
        step = self.rows if kernel.lanes == "pixels" else 1
        self.tiles = [GemmTile(kernel.tile.mr, nv) for nv in range(step, kernel.tile.nv + 1, step)]

    def emit(self) -> None:
        """Emit the stage."""
        if not self.kernel.dense:
            emit_scatter_functions(self.asm, self.kernel.fields, self.kernel.epilogue)
        if self.kernel.epilogue.pool and self.kernel.epilogue.residual:
            emit_collect_pairs(self.asm, self.kernel.fields)
        for tile in self.tiles:
            self._emit_tile_function(tile)
        if self.kernel.epilogue.statistics:
            from nnpack.kernels.stored_sums import emit_sum_pixels

            emit_sum_pixels(self.asm, self.kernel.fields)
        if self.kernel.widens:
            emit_widen_function(self.asm)
        if self.kernel.packed:
            self._emit_pack_function()
        self._emit_stage()

    def _emit_pack_function(self) -> None:
        asm, kernel = self.asm, self.kernel
        with asm.function(
            "pack", block="pointer", x="pointer", to="pointer", first="index", count="index"
        ) as (block, x, to, first, count):
            args = Arguments(asm, block, kernel.fields)
            emit_pack_patches(asm, args, self.strip, kernel.stride_w, x, to, first, count)

    def emit_sums(self, args: Arguments, block: PixelBlock, panel: Value) -> None:
        """Sum what the block has of the channels of a panel, which have been stored."""
        asm = self.asm
        size, pitch, out_channels = args.load("sums_size", "sums_channels", "group_out_channels")
        first = block.image * asm.ceil_div(args["pixels"], size) + block.start // size
        channel = panel * self.panel
        place = first * pitch + block.group * out_channels + channel
        channels = asm.minimum(out_channels - channel, self.panel)
        y = block.y + channel * args["y_c"] + block.start
        asm.call("sum_pixels", args.block, y, place, channels, block.count)

    def _emit_stage(self) -> None:
        asm = self.asm
        with emit_stage(asm, self.kernel.fields) as (args, first, last, worker):
            scratch = args["scratch"] + worker * args["scratch_stride"]
            chunks = asm.ceil_div(args["panels"], args["chunk_panels"])
            state = {"packed": asm.index(-1)}
            with asm.loop(last, start=first, carry=state) as task:
                block = task // chunks
                self._emit_block(args, block, task % chunks, scratch, state["packed"])
                state["packed"] = block

    def _emit_block(
        self, args: Arguments, block: Value, chunk: Value, scratch: Value, packed: Value
    ) -> None:
        """One task; packs unless the task before was of the same block."""
        asm = self.asm
        timer = PhaseTimer(args, self.kernel.profile)
        place = self.place_of(args, block)
        patches = scratch if self.kernel.packed else place.x + place.start
        if self.kernel.packed:
            with asm.when(block.equals(packed).equals(0)), timer.phase("packing"):
                asm.call("pack", args.block, place.x, scratch, place.start, place.count)
        with timer.phase("multiplication"):
            after = self.place_of(args, block + 1)
            self._emit_panels(args, patches, scratch, place, chunk, after)

    def place_of(self, args: Arguments, block: Value) -> PixelBlock:
        """Where block ``block``, counted over groups and images, begins and ends."""
        asm = self.asm
        pixels, block_pixels, groups = args.load("pixels", "block_pixels", "groups")
        blocks = asm.ceil_div(pixels, block_pixels)
        image = block // blocks
        n, group = image // groups, image % groups
        start = block % blocks * block_pixels
        return PixelBlock(
            n,
            args["x"] + n * args["x_n"] + group * args["channels"] * args["x_c"],
            args["y"] + n * args["y_n"] + group * args["group_out_channels"] * args["y_c"],
            group,
            start,
            asm.minimum(block_pixels, pixels - start),
        )

    def _emit_panels(
        self,
        args: Arguments,
        patches: Value,
        scratch: Value,
        block: PixelBlock,
        chunk: Value,
        after: PixelBlock,
    ) -> None:
        """All strips of the block times the panels of the chunk.

        Meanwhile the block ``after`` it is asked for.
        """
        asm, group, start, count = self.asm, block.group, block.start, block.count
        panels, chunk_panels, out_channels = args.load(
            "panels", "chunk_panels", "group_out_channels"
        )
        depth = args["channels"] * args["kernel_h"] * args["kernel_w"]
        taps = self._tap_rows(args, start, count)
        first_panel = chunk * chunk_panels
        last_panel = asm.minimum(first_panel + chunk_panels, panels)
        with asm.loop(last_panel, start=first_panel) as panel:
            weight = args["weight"] + (group * panels + panel) * depth * self.panel
            if self.kernel.widens:
                halves, weight = weight, scratch + args["widened"]
                asm.call("widen", halves, weight, depth * self.panel)
            channel = panel * self.panel
            channels = asm.minimum(out_channels - channel, self.panel)
            out = block.y + channel * args["y_c"]
            with asm.loop(count, step=self.strip.pixels) as begin:
                offset, size = self._strip_at(begin, count)
                places = offset * (taps.depth * self.rows) if self.kernel.packed else offset
                strip = patches + places
                used = weight + taps.start * self.panel
                number = channel + group * out_channels
                pixel = start + offset
                words = (args.block, used, strip, out, number, channels, pixel, size, taps.depth)
                ahead = after.x + after.start + (offset + self._ahead(panel))
                later = (block.image, ahead, begin - offset)
                self.call_tile((*words, *later), channels, size)
            if self.kernel.epilogue.statistics:
                self.emit_sums(args, block, panel)

    def _tap_rows(self, args: Arguments, start: Value, count: Value) -> TapRows:
        """The rows of taps that are packed for the pixels ``start .. start + count``."""
        if self.kernel.packed:
            out_width = args["out_width"]
            last = (start + count - 1) // out_width
            return emit_tap_rows(self.asm, args, start // out_width, last, self.strip.reach(args))
        one, none = self.asm.index(1), self.asm.index(0)
        return TapRows(none, one, none, args["channels"])

    def _strip_at(self, offset: Value, count: Value) -> tuple[Value, Value]:
        """Offset and size of a strip in its block.

        The broadcast operand has no mask: where the image itself is read, the last strip moves
        back so as to end with the block. A last block shorter than a strip so reaches into the
        one before it, whose pixels it stores again with the same values, or leaves alone if they
        must be stored once (the planner turns no tile higher than the image has pixels).
        """
        if not self.kernel.moves_back:
            return offset, self.asm.minimum(count - offset, self.strip.pixels)
        pixels = self.strip.pixels
        return self.asm.minimum(offset, count - pixels), self.asm.index(pixels)

    def _ahead(self, panel: Value) -> Value:
        """Which line of a strip of the next block is asked for: each panel takes another."""
        if self.kernel.lanes == "channels":
            return self.asm.index(0)
        return panel % self.kernel.tile.nv * self.asm.lanes

    def call_tile(self, words: tuple[Value, ...], channels: Value, size: Value) -> None:
        """Call the narrowest tile that covers the ``size`` pixels of a strip (or the channels)."""
        asm = self.asm
        pixels = self.kernel.lanes == "pixels"
        extent, rows = (size, self.rows) if pixels else (channels, 1)
        for tile in self.tiles:
            width = tile.nv // rows * asm.lanes
            above = asm.compare(">", extent, width - asm.lanes)
            within = above & asm.compare("<=", extent, width)
            with asm.when(within):
                asm.call(f"tile{tile.nv}", *words)

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
            ahead="pointer",
            done="index",
        ) as (block, weight, strip, y, channel, channels, pixel, pixels, depth, image, next_, done):
            args = Arguments(asm, block, kernel.fields)
            ahead = () if kernel.packed else (Panel(next_, args["x_c"]),)
            pixel_step: Index = self.strip.width if kernel.packed else args["x_c"]
            patches = Panel(strip, pixel_step, self.lower_row)
            weights = Panel(weight, self.panel)
            skipped = done if kernel.moves_back and kernel.epilogue.stores_once else None
            place = TilePlace(args, image, y, channel, channels, pixel, pixels, self.rows, skipped)
            if kernel.dense and kernel.epilogue.residual and not kernel.epilogue.pool:
                self.emit_ask_for_residual(tile, place)
            if kernel.lanes == "channels":
                acc = emit_product(asm, tile, depth, patches, weights, ahead=ahead)
                self.emit_store_channels(tile, acc, place)
                return
            if kernel.dense:
                with asm.when(asm.compare(">", args["y_is_cold"], 0)):
                    self._emit_ask_for_output(tile, place)
            masks = None
            if not kernel.packed:
                masks = tuple(asm.lanes_below(pixels - j * asm.lanes) for j in range(tile.nv))
            acc = emit_product(asm, tile, depth, weights, patches, masks, ahead)
            self.emit_store_pixels(tile, acc, place)

    def _emit_ask_for_output(self, tile: GemmTile, place: TilePlace) -> None:
        """Ask for the lines that the tile will be stored to, while it is computed."""
        for i in range(tile.mr):
            plane = place.y + place.stored[0] + i * place.args["y_c"]
            for j in range(-(-tile.nv // self.rows**2)):
                self.asm.prefetch(plane, j * self.asm.lanes, write=True)

    def emit_ask_for_residual(self, tile: GemmTile, place: TilePlace) -> None:
        """Ask for the lines of the residual that the tile adds, while it is computed.

        They come from as many planes as there are channels, which no processor foresees.
        """
        asm = self.asm
        epilogue = Epilogue(asm, self.kernel.epilogue, place.args)
        residual = epilogue.residual(place.y) + place.pixel
        if self.kernel.lanes == "channels":
            planes, lines = tile.nv * asm.lanes, 1
        else:
            planes, lines = tile.mr, tile.nv
        for i in range(planes):
            for j in range(lines):
                asm.prefetch(residual + i * place.args["y_c"], j * asm.lanes)

    def emit_store_pixels(self, tile: GemmTile, acc: Accumulators, place: TilePlace) -> None:
        """Row i of the tile is channel i, its lanes are pixels."""
        asm = self.asm
        epilogue = Epilogue(asm, self.kernel.epilogue, place.args)
        rows = StoreRows(epilogue, self.kernel.dense, place.args, *place.stored)
        y_c = place.args["y_c"]
        for i in range(tile.mr):
            with asm.when(asm.compare(">", place.channels, i)):
                terms = epilogue.of_channel(place.channel + i)
                vectors = [acc[i, j] for j in range(tile.nv)]
                if self.rows > 1:
                    half = tile.nv // 2
                    added = place.residuals(epilogue, place.channel + i, self.strip.pixels)
                    values = epilogue.prepare_pixels(vectors[:half], vectors[half:], terms, added)
                else:
                    values = [epilogue.prepare(value, terms) for value in vectors]
                for j, value in enumerate(values):
                    rows.store(value, place.channel + i, place.y + i * y_c, j * asm.lanes)

    def emit_store_channels(self, tile: GemmTile, acc: Accumulators, place: TilePlace) -> None:
        """Row i of the tile is pixel i, its lanes are channels."""
        kernel = self.kernel
        emit_store_channels(self.asm, kernel.epilogue, kernel.dense, tile, acc, place)
