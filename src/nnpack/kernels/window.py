"""Direct convolution: pixels of output rows in the lanes, weights broadcast, no patch matrix.

A task is a block of output pixels of one image and group, and a range of weight panels. It copies
the input rows it needs once (`kernels.rows`), after which every tap of a strip of output pixels is
one contiguous vector load: the microkernel finds them through a table of offsets. Strips run along
*runs* of pixels that stand side by side both in the copied rows and in the output: single rows,
or, when the copied rows are as long as those of the output, the whole block.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nnpack.frozen import dataclass
from nnpack.kernels.epilogue import ChannelTerms, Epilogue, Residuals, epilogue_fields
from nnpack.kernels.gemm import Accumulators, GemmTile, Indirect, Panel, emit_product
from nnpack.kernels.packing import emit_tap_rows
from nnpack.kernels.pixels import StoreRows, emit_scatter_functions
from nnpack.kernels.rows import ROW_FIELDS, Region, emit_copy_rows, emit_tap_table
from nnpack.kernels.stage import Arguments, PhaseTimer, emit_stage, profile_fields
from nnpack.kernels.storage import emit_widen_function
from nnpack.kernels.stored_sums import emit_sum_pixels
from nnpack.kernels.weights import POINTER_KINDS
from nnpack.problem import EpilogueKind, WeightStorage

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Value

_FIELDS = {
    **dict.fromkeys(("x", "weight", "y", "scratch"), "pointer"),
    **ROW_FIELDS,
    **dict.fromkeys(
        (
            "scratch_stride",
            "table_size",
            "groups",
            "group_out_channels",
            "out_height",
            "out_width",
            "block_rows",
            "block_columns",
            "flat",
            "panels",
            "chunk_panels",
            "x_n",
            "y_n",
            "y_c",
            "y_h",
            "y_w",
        ),
        "index",
    ),
}


@dataclass(frozen=True)
class WindowConvolution:
    """The stage ``y[n, k, i, j] = epilogue(sum weight[k, c, r, s] * x[n, c, i', j'])``.

    The sum is over c, r and s; ``i' = i * sh + r * dh - top``, ``j' = j * sw + s * dw - left``.

    Where the epilogue pools, a strip has two rows of outputs and the extents of outputs are even.
    ``scattered``: pixels of an output row are ``y_w`` apart, else side by side.
    ``stride_w``: the horizontal stride, or None when it is only known at run time.
    ``storage``: what the packed weights are. Halves are widened, a panel at a time, into the
    worker's scratch from ``widened`` on.
    """

    tile: GemmTile
    scattered: bool
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
            **({"widened": "index"} if self.widens else {}),
            **epilogue_fields(self.epilogue),
            **profile_fields(self.profile),
        }

    @property
    def widens(self) -> bool:
        """Whether the weights are made floats before they are used."""
        return self.storage == "float16"

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        _Emitter(asm, self).emit()


@dataclass(frozen=True)
class _Strip:
    """Where a strip goes: its first channel's plane, how many channels, which pixels.

    ``residual``: where that of its first pixel is, if what is pooled has one.
    """

    y: Value
    channel: Value
    channels: Value
    pixel: Value
    pixels: Value
    residual: Value

    @property
    def words(self) -> tuple[Value, ...]:
        return self.y, self.channel, self.channels, self.pixel, self.pixels, self.residual


@dataclass(frozen=True)
class _Product:
    """The part of a panel and of the table of offsets that is multiplied."""

    weight: Value
    table: Value
    depth: Value

    @property
    def words(self) -> tuple[Value, ...]:
        return self.weight, self.table, self.depth


class _Emitter:
    def __init__(self, asm: Assembler, kernel: WindowConvolution) -> None:
        self.asm = asm
        self.kernel = kernel
        # Rows of outputs in a strip: two if they are pooled, each half of the vectors.
        self.step = 2 if kernel.epilogue.pool else 1
        self.width = kernel.tile.nv // self.step * asm.lanes
        # Whether a residual is added before the pool.
        self.adds = kernel.epilogue.pool is not None and kernel.epilogue.residual is not None
        # Tiles by number of vectors: the last strip of a run may need fewer.
        widths = range(self.step, kernel.tile.nv + 1, self.step)
        self.tiles = [GemmTile(kernel.tile.mr, nv) for nv in widths]

    def emit(self) -> None:
        if self.kernel.scattered:
            emit_scatter_functions(self.asm, self.kernel.fields, self.kernel.epilogue)
        for tile in self.tiles:
            self._emit_tile_function(tile)
        if self.kernel.widens:
            emit_widen_function(self.asm)
        if self.kernel.epilogue.statistics:
            emit_sum_pixels(self.asm, self.kernel.fields)
        self._emit_copy_function()
        self._emit_stage()

    def _emit_copy_function(self) -> None:
        asm, kernel = self.asm, self.kernel
        with asm.function(
            "copy",
            block="pointer",
            x="pointer",
            table="pointer",
            to="pointer",
            row="index",
            rows="index",
            column="index",
            columns="index",
        ) as (block, x, table, to, *words):
            args = Arguments(asm, block, kernel.fields)
            emit_tap_table(asm, args, table)
            emit_copy_rows(asm, args, kernel.stride_w, x, to, Region(*words))

    def _emit_stage(self) -> None:
        asm = self.asm
        with emit_stage(asm, self.kernel.fields) as (args, first, last, worker):
            scratch = args["scratch"] + worker * args["scratch_stride"]
            chunks = asm.ceil_div(args["panels"], args["chunk_panels"])
            state = {"copied": asm.index(-1)}
            with asm.loop(last, start=first, carry=state) as task:
                block = task // chunks
                self._emit_block(args, block, task % chunks, scratch, state["copied"])
                state["copied"] = block

    def _emit_block(
        self, args: Arguments, block: Value, chunk: Value, scratch: Value, copied: Value
    ) -> None:
        """One task; copies rows unless the task before was of the same block."""
        asm = self.asm
        timer = PhaseTimer(args, self.kernel.profile)
        image, region = _place_of(asm, args, block)
        n, group = image // args["groups"], image % args["groups"]
        x = args["x"] + n * args["x_n"] + group * args["channels"] * args["x_c"]
        y = args["y"] + n * args["y_n"] + group * args["group_out_channels"] * args["y_c"]
        rows = scratch + args["table_size"]
        with asm.when(block.equals(copied).equals(0)), timer.phase("packing"):
            asm.call("copy", args.block, x, scratch, rows, *region.words)
        with timer.phase("multiplication"):
            self._emit_panels(args, scratch, rows, y, (n, group), chunk, region)

    def _emit_panels(
        self,
        args: Arguments,
        table: Value,
        rows: Value,
        y: Value,
        image_and_group: tuple[Value, Value],
        chunk: Value,
        region: Region,
    ) -> None:
        """All runs of the block times the panels of the chunk."""
        n, group = image_and_group
        asm, mr = self.asm, self.kernel.tile.mr
        panels, out_channels, flat = args.load("panels", "group_out_channels", "flat")
        depth = args["channels"] * args["kernel_h"] * args["kernel_w"]
        taps = emit_tap_rows(asm, args, region.row, region.row + region.rows - 1)
        first_panel = chunk * args["chunk_panels"]
        last_panel = asm.minimum(first_panel + args["chunk_panels"], panels)
        is_flat = asm.compare(">", flat, 0)
        runs = asm.select(is_flat, asm.index(1), region.rows // self.step)
        length = asm.select(is_flat, region.rows * region.columns, region.columns)
        pixel = region.row // self.step * self._row_step(args) + region.column // self.step
        with asm.loop(last_panel, start=first_panel) as panel:
            weight = args["weight"] + (group * panels + panel) * depth * mr
            if self.kernel.widens:
                # The scratch begins with the table.
                halves, weight = weight, table + args["widened"]
                asm.call("widen", halves, weight, depth * mr)
            channel = panel * mr
            channels = asm.minimum(out_channels - channel, mr)
            out, number = y + channel * args["y_c"], channel + group * out_channels
            residual = out
            if self.adds:
                source = Epilogue(asm, self.kernel.epilogue, args)
                residual = source.residual_row(n, number, region.row) + region.column
            strip = _Strip(out, number, channels, pixel, length, residual)
            product = _Product(
                weight + taps.start * mr, asm.index_pointer(table, taps.start), taps.depth
            )
            with asm.loop(runs) as run:
                self._emit_run(args, product, rows, strip, run)
            if self.kernel.epilogue.statistics:
                self._emit_sums(args, strip, n, region)

    def _emit_sums(self, args: Arguments, all_: _Strip, n: Value, region: Region) -> None:
        """Sum what was stored of the channels of a panel, in pieces of whole rows."""
        size, pitch, height, width = args.load(
            "sums_size", "sums_channels", "out_height", "out_width"
        )
        start, pieces = region.row * width, self.asm.ceil_div(height * width, size)
        place = (n * pieces + start // size) * pitch + all_.channel
        count = region.rows * width
        words = all_.y + start, place, all_.channels, count
        self.asm.call("sum_pixels", args.block, *words)

    def _row_step(self, args: Arguments) -> Value:
        """Pixels from one output row to the next: counted, if they are scattered when stored."""
        return args["out_width"] // self.step if self.kernel.scattered else args["y_h"]

    def _emit_run(
        self, args: Arguments, product: _Product, rows: Value, all_: _Strip, run: Value
    ) -> None:
        """The strips of one run."""
        asm = self.asm
        source = rows + run * self.step * args["pitch"]
        pixel = all_.pixel + run * self._row_step(args)
        with asm.loop(all_.pixels, step=self.width) as offset:
            size = asm.minimum(all_.pixels - offset, self.width)
            place = pixel + offset // self.step
            residual = all_.residual
            if self.adds:
                residual = residual + (run * self.step * args["residual_h"] + offset)
            strip = _Strip(all_.y, all_.channel, all_.channels, place, size, residual)
            for tile in self.tiles:
                width = tile.nv // self.step * asm.lanes
                above = asm.compare(">", size, width - asm.lanes)
                with asm.when(above & asm.compare("<=", size, width)):
                    words = (args.block, *product.words, source + offset, *strip.words)
                    asm.call(f"tile{tile.nv}", *words)

    def _emit_tile_function(self, tile: GemmTile) -> None:
        asm, kernel = self.asm, self.kernel
        with asm.function(
            f"tile{tile.nv}",
            block="pointer",
            weight="pointer",
            table="pointer",
            depth="index",
            rows="pointer",
            y="pointer",
            channel="index",
            channels="index",
            pixel="index",
            pixels="index",
            residual="pointer",
        ) as (block, weight, table, depth, rows, *words):
            args = Arguments(asm, block, kernel.fields)
            second = args["pitch"] if self.step > 1 else None
            patches = Indirect(rows, table, second)
            acc = emit_product(asm, tile, depth, Panel(weight, tile.mr), patches)
            self._emit_store(args, tile, acc, _Strip(*words))

    def _emit_store(
        self, args: Arguments, tile: GemmTile, acc: Accumulators, strip: _Strip
    ) -> None:
        """Store a whole tile without masks, any other with them."""
        asm = self.asm
        if self.kernel.scattered:
            self._emit_store_part(args, tile, acc, strip)
            return
        width = tile.nv // self.step * asm.lanes
        whole = strip.channels.equals(tile.mr) & strip.pixels.equals(width)
        with asm.when(whole):
            epilogue, y_c = Epilogue(asm, self.kernel.epilogue, args), args["y_c"]
            for i in range(tile.mr):
                terms = epilogue.of_channel(strip.channel + i)
                row = strip.y + strip.pixel + i * y_c
                vectors = [acc[i, j] for j in range(tile.nv)]
                values = self._prepared(args, epilogue, vectors, strip, i, terms)
                for j, value in enumerate(values):
                    epilogue.store(value, row, j * asm.lanes, terms=terms)
        with asm.when(whole.equals(0)):
            self._emit_store_part(args, tile, acc, strip)

    def _emit_store_part(
        self, args: Arguments, tile: GemmTile, acc: Accumulators, strip: _Strip
    ) -> None:
        asm = self.asm
        epilogue, y_c = Epilogue(asm, self.kernel.epilogue, args), args["y_c"]
        pixels = strip.pixels // self.step
        store = StoreRows(epilogue, not self.kernel.scattered, args, strip.pixel, pixels)
        for i in range(tile.mr):
            with asm.when(asm.compare(">", strip.channels, i)):
                terms = epilogue.of_channel(strip.channel + i)
                vectors = [acc[i, j] for j in range(tile.nv)]
                values = self._prepared(args, epilogue, vectors, strip, i, terms)
                channel, plane = strip.channel + i, strip.y + i * y_c
                for j, value in enumerate(values):
                    store.store(value, channel, plane, j * asm.lanes)

    def _prepared(
        self,
        args: Arguments,
        epilogue: Epilogue,
        values: Sequence[Value],
        strip: _Strip,
        i: int,
        terms: ChannelTerms,
    ) -> list[Value]:
        """The vectors of channel i of the strip as they are stored."""
        if self.step == 1:
            return [epilogue.prepare(value, terms) for value in values]
        half = len(values) // 2
        residuals = self._residuals(args, strip, i) if self.adds else None
        return epilogue.prepare_pixels(values[:half], values[half:], terms, residuals)

    def _residuals(self, args: Arguments, strip: _Strip, i: int) -> Residuals:
        """Those of channel i of the strip."""
        asm, (channel, row) = self.asm, args.load("residual_c", "residual_h")

        def load(half: int, j: int) -> Value:
            mask = asm.lanes_below(strip.pixels - j * asm.lanes)
            return asm.load(strip.residual + (i * channel + half * row), j * asm.lanes, mask=mask)

        return load


def _place_of(asm: Assembler, args: Arguments, block: Value) -> tuple[Value, Region]:
    """The image (group by group) and the output pixels of a block."""
    block_rows, block_columns = args.load("block_rows", "block_columns")
    out_height, out_width = args.load("out_height", "out_width")
    across = asm.ceil_div(out_width, block_columns)
    blocks = asm.ceil_div(out_height, block_rows) * across
    place = block % blocks
    row, column = place // across * block_rows, place % across * block_columns
    region = Region(
        row,
        asm.minimum(block_rows, out_height - row),
        column,
        asm.minimum(block_columns, out_width - column),
    )
    return block // blocks, region
