"""Direct convolution with output channels in the lanes: input pixels are broadcast as they stand.

A tile is `rows` by `columns` neighbouring output pixels times `nv` vectors of channels:

    acc[i, j][k] += x[c, i * sh + r * dh, j * sw + s * dw] * weight[r, s, c][k]

All sums stay in registers. Pixels are scalars, so that a stride costs nothing and no patch is ever
packed: x is read where it is or, where it is padded, from planes copied once with their padding.
Made for small images and for groups, whose products are too small to pack for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnpack.frozen import dataclass
from nnpack.kernels.epilogue import epilogue_fields
from nnpack.kernels.gemm import Accumulators, GemmTile
from nnpack.kernels.packing import emit_tap_rows
from nnpack.kernels.pixels import TilePlace, emit_scatter_functions, emit_store_channels
from nnpack.kernels.stage import Arguments, PhaseTimer, emit_stage, profile_fields
from nnpack.kernels.stored_sums import emit_write_pixels
from nnpack.kernels.weights import POINTER_KINDS
from nnpack.problem import EpilogueKind, WeightStorage

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Mask, Value

_FIELDS = {
    **dict.fromkeys(("x", "weight", "y", "scratch"), "pointer"),
    **dict.fromkeys(
        (
            "scratch_stride",
            "copies",
            "pitch",
            "plane",
            "groups",
            "channels",
            "group_out_channels",
            "height",
            "width",
            "out_height",
            "out_width",
            "kernel_h",
            "kernel_w",
            "stride_h",
            "dilation_h",
            "dilation_w",
            "pad_top",
            "pad_left",
            "block_tiles",
            "panels",
            "chunk_vectors",
            "x_n",
            "x_c",
            "x_h",
            "y_n",
            "y_c",
            "y_h",
            "y_w",
        ),
        "index",
    ),
}


@dataclass(frozen=True)
class ChannelConvolution:
    """The stage ``y[n, k, i, j] = epilogue(sum weight[k, c, r, s] * x[n, c, i', j'])``.

    The sum is over c, r and s; ``i' = i * sh + r * dh - top``, ``j' = j * sw + s * dw - left``. A
    task is ``block_tiles`` rows of tiles of one image and group, and ``chunk_vectors`` vectors of
    channels, which may begin and end within a panel.

    ``rows`` by ``columns``: output pixels of a tile, no more than there are; several rows only
    where these are whole. ``nv``: vectors of ``lanes`` channels in a panel; ``lanes`` may be fewer
    than the target has. Where x is padded, ``copies`` is 1: planes of ``plane`` floats with rows of
    ``pitch``, from the first row that a task needs and from column ``-left`` on, are copied to the
    worker's scratch. Otherwise it is 0, ``plane`` and ``pitch`` are those of x.
    ``dense``: the pixels of an output plane are consecutive; otherwise they are ``y_w`` apart.
    Each tile is a piece of the statistics, if there are any; nothing is added to y then.
    """

    rows: int
    columns: int
    nv: int
    lanes: int
    stride_w: int
    dense: bool
    epilogue: EpilogueKind
    storage: WeightStorage = "float32"
    profile: bool = False

    @property
    def fields(self) -> dict[str, str]:
        """The argument words."""
        return {
            **_FIELDS,
            "weight": POINTER_KINDS[self.storage],
            **epilogue_fields(self.epilogue),
            **profile_fields(self.profile),
        }

    @property
    def panel(self) -> int:
        """Output channels in a panel."""
        return self.nv * self.lanes

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        asm.lanes = self.lanes
        _Emitter(asm, self).emit()


@dataclass(frozen=True)
class _Block:
    """Rows of tiles ``first .. last`` of an image and group; ``source``: what row ``row`` reads."""

    source: Value
    y: Value
    image: Value
    group: Value
    row: Value
    first: Value
    last: Value


class _Emitter:
    def __init__(self, asm: Assembler, kernel: ChannelConvolution) -> None:
        self.asm = asm
        self.kernel = kernel
        # Tiles by number of vectors: the last panel may need fewer.
        pixels = kernel.rows * kernel.columns
        self.tiles = [GemmTile(pixels, nv) for nv in range(1, kernel.nv + 1)]

    def emit(self) -> None:
        asm, kernel = self.asm, self.kernel
        if not kernel.dense:
            emit_scatter_functions(asm, kernel.fields, kernel.epilogue)
        for tile in self.tiles:
            self._emit_tile_function(tile)
        _emit_copy_function(asm, kernel)
        with emit_stage(asm, kernel.fields) as (args, first, last, worker):
            scratch = args["scratch"] + worker * args["scratch_stride"]
            vectors = asm.ceil_div(args["group_out_channels"], self.kernel.lanes)
            chunks = asm.ceil_div(vectors, args["chunk_vectors"])
            state = {"copied": asm.index(-1)}
            with asm.loop(last, start=first, carry=state) as task:
                number = task // chunks
                is_new = number.equals(state["copied"]).equals(0)
                self._emit_task(args, number, is_new, task % chunks, scratch)
                state["copied"] = number

    def _emit_task(
        self, args: Arguments, number: Value, is_new: Value, chunk: Value, scratch: Value
    ) -> None:
        """One task; copies unless the task before was of the same block."""
        asm, rows = self.asm, self.kernel.rows
        timer = PhaseTimer(args, self.kernel.profile)
        out_height, block_tiles = args.load("out_height", "block_tiles")
        tiles = asm.ceil_div(out_height, rows)
        blocks = asm.ceil_div(tiles, block_tiles)
        image, first = number // blocks, number % blocks * block_tiles
        n, group = image // args["groups"], image % args["groups"]
        last = asm.minimum(first + block_tiles, tiles)
        row = asm.minimum(first * rows, out_height - rows)
        in_row = row * args["stride_h"] - args["pad_top"]
        x = args["x"] + n * args["x_n"] + group * args["channels"] * args["x_c"]
        copies = asm.compare(">", args["copies"], 0)
        with asm.when(copies & is_new), timer.phase("packing"):
            reach = (args["kernel_h"] - 1) * args["dilation_h"] + 1
            out_rows = asm.minimum(last * rows, out_height) - row
            count = (out_rows - 1) * args["stride_h"] + reach
            asm.call("copy", args.block, x, scratch, in_row, count)
        inside = x + in_row * args["x_h"] - args["pad_left"]
        y = args["y"] + n * args["y_n"] + group * args["group_out_channels"] * args["y_c"]
        source = asm.select(copies, scratch, inside)
        with timer.phase("multiplication"):
            self._emit_panels(args, _Block(source, y, n, group, row, first, last), chunk)

    def _emit_panels(self, args: Arguments, block: _Block, chunk: Value) -> None:
        """All tiles of the block times what the chunk has of each panel."""
        asm, width, nv, lanes = self.asm, self.kernel.panel, self.kernel.nv, self.kernel.lanes
        panels, out_channels = args.load("panels", "group_out_channels")
        depth = args["channels"] * args["kernel_h"] * args["kernel_w"]
        first = chunk * args["chunk_vectors"]
        last = first + args["chunk_vectors"]
        end = asm.minimum(asm.ceil_div(last, nv), panels)
        with asm.loop(end, start=first // nv) as panel:
            before = asm.maximum(first - panel * nv, 0) * lanes
            weight = args["weight"] + (block.group * panels + panel) * depth * width + before
            channel = panel * width + before
            channels = asm.minimum(out_channels, asm.minimum((panel + 1) * nv, last) * lanes)
            number = channel + block.group * out_channels
            words = (block.y + channel * args["y_c"], number, channels - channel)
            with asm.loop(block.last, start=block.first) as tile:
                self._emit_row_of_tiles(args, block, tile, weight, words)

    def _emit_row_of_tiles(
        self, args: Arguments, block: _Block, tile: Value, weight: Value, words: tuple[Value, ...]
    ) -> None:
        """Row ``tile`` of tiles. The last row, and the last of each, move back to end there."""
        asm, rows, columns = self.asm, self.kernel.rows, self.kernel.columns
        out_height, out_width = args.load("out_height", "out_width")
        row = asm.minimum(tile * rows, out_height - rows)
        done = (tile * rows - row) * out_width
        taps = emit_tap_rows(asm, args, row, row + (rows - 1))
        down = (row - block.row) * args["stride_h"] + taps.first * args["dilation_h"]
        source = block.source + down * args["pitch"]
        weight = weight + taps.start * self.kernel.panel
        across = asm.ceil_div(out_width, columns)
        number = block.image * asm.ceil_div(out_height, rows) + tile
        with asm.loop(out_width, step=columns) as begin:
            column = asm.minimum(begin, out_width - columns)
            place = row * out_width + column, done + (begin - column)
            piece = number * across + begin // columns
            at = source + column * self.kernel.stride_w
            taps_met = taps.last - taps.first
            self._call_tile((args.block, weight, at, taps_met, *words, *place, piece))

    def _call_tile(self, words: tuple[Value, ...]) -> None:
        """Call the narrowest tile that covers the panel."""
        asm, channels = self.asm, words[6]
        for tile in self.tiles:
            above = asm.compare(">", channels, (tile.nv - 1) * asm.lanes)
            with asm.when(above & asm.compare("<=", channels, tile.nv * asm.lanes)):
                asm.call(f"tile{tile.nv}", *words)

    def _emit_tile_function(self, tile: GemmTile) -> None:
        asm, kernel = self.asm, self.kernel
        with asm.function(
            f"tile{tile.nv}",
            block="pointer",
            weight=POINTER_KINDS[kernel.storage],
            source="pointer",
            tap_rows="index",
            y="pointer",
            channel="index",
            channels="index",
            pixel="index",
            done="index",
            piece="index",
        ) as (block, weight, source, tap_rows, y, channel, channels, pixel, done, piece):
            args = Arguments(asm, block, kernel.fields)
            acc = self._emit_product(args, tile, weight, source, tap_rows)
            skipped = done if kernel.epilogue.stores_once else None
            # Nothing is pooled, so that the image does not matter.
            pixels, image = asm.index(tile.mr), asm.index(0)
            place = TilePlace(args, image, y, channel, channels, pixel, pixels, 1, skipped)

            def add(first: int, values: list[Value], mask: Mask) -> None:
                number = piece * args["sums_channels"] + channel + first
                emit_write_pixels(args, number, mask, values, done)

            summed = add if kernel.epilogue.statistics else None
            emit_store_channels(asm, kernel.epilogue, kernel.dense, tile, acc, place, summed)

    def _emit_product(
        self, args: Arguments, tile: GemmTile, weight: Value, source: Value, tap_rows: Value
    ) -> Accumulators:
        """The sums over rows of taps, taps and channels."""
        asm, zero = self.asm, self.asm.zeros()
        tile.check(asm.target)
        sums = [(i, j) for i in range(tile.mr) for j in range(tile.nv)]
        state: dict[object, Value] = dict.fromkeys(sums, zero)
        state |= {"weight": weight, "row": source}
        names = ("channels", "kernel_w", "plane", "dilation_w")
        channels, kernel_w, plane, dilation_w = args.load(*names)
        below, tap_row = args["stride_h"] * args["pitch"], args["dilation_h"] * args["pitch"]
        with asm.loop(tap_rows, carry=state):
            row = state["row"]
            with asm.loop(kernel_w, carry=state) as s:
                state["x"] = row + s * dilation_w
                with asm.loop(channels, carry=state):
                    self._emit_step(tile, state, below)
                    state["x"] = state["x"] + plane
                    state["weight"] = state["weight"] + self.kernel.panel
                del state["x"]
            state["row"] = row + tap_row
        return {place: state[place] for place in sums}

    def _emit_step(self, tile: GemmTile, state: dict[object, Value], below: Value) -> None:
        """One tap of one channel: a scalar for every pixel times the weights."""
        asm, kernel = self.asm, self.kernel
        vectors = [asm.load(state["weight"], j * asm.lanes) for j in range(tile.nv)]
        for i in range(tile.mr):
            row, column = divmod(i, kernel.columns)
            pixel = asm.broadcast(state["x"] + row * below, column * kernel.stride_w)
            for j, vector in enumerate(vectors):
                state[i, j] = asm.fma(pixel, vector, state[i, j])


def _emit_copy_function(asm: Assembler, kernel: ChannelConvolution) -> None:
    """Define ``copy``: ``count`` rows of all channels from input row ``first`` on, with padding.

    Whole vectors are written; ``pitch`` is a multiple of all lanes.
    """
    with asm.function(
        "copy", block="pointer", x="pointer", to="pointer", first="index", count="index"
    ) as (block, x, to, first, count):
        args, lanes = Arguments(asm, block, kernel.fields), asm.lanes
        width, left, x_h, pitch = args.load("width", "pad_left", "x_h", "pitch")
        low = asm.minimum(asm.maximum(0 - first, 0), count)
        high = asm.maximum(asm.minimum(args["height"] - first, count), low)
        reach = (args["kernel_w"] - 1) * args["dilation_w"] + 1
        used = (args["out_width"] - 1) * kernel.stride_w + reach
        planes = {"from": x + (first + low) * x_h - left, "to": to}
        with asm.loop(args["channels"], carry=planes):
            with asm.loop(used, step=lanes) as v:
                inside = asm.lanes_between(left - v, left + width - v)
                source, target = planes["from"] + v, planes["to"] + v
                _emit_zeros(asm, target, pitch, low)
                rows = {"from": source, "to": target + low * pitch}
                with asm.loop(high - low, carry=rows):
                    asm.store(asm.load(rows["from"], mask=inside), rows["to"])
                    rows["from"], rows["to"] = rows["from"] + x_h, rows["to"] + pitch
                _emit_zeros(asm, target + high * pitch, pitch, count - high)
            planes["from"] = planes["from"] + args["x_c"]
            planes["to"] = planes["to"] + args["plane"]


def _emit_zeros(asm: Assembler, to: Value, pitch: Value, count: Value) -> None:
    """A vector of zeros in each of ``count`` rows."""
    state = {"to": to}
    with asm.loop(count, carry=state):
        asm.store(asm.zeros(), state["to"])
        state["to"] = state["to"] + pitch
