"""Where the tiles of a matrix product go: consecutive pixels of planes, and their residuals."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from nnpack.frozen import dataclass
from nnpack.kernels.epilogue import Epilogue, Residuals
from nnpack.kernels.gemm import Accumulators, GemmTile
from nnpack.kernels.stage import Arguments
from nnpack.kernels.transpose import emit_rows
from nnpack.problem import EpilogueKind

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Index, Mask, Value


@dataclass(frozen=True)
class TilePlace:
    """Where a tile goes: its first channel's plane, how many channels, which pixels.

    These are of each of ``rows`` rows. The first ``done`` of them, if that is not None, are left
    alone.
    """

    args: Arguments
    image: Value
    y: Value
    channel: Value
    channels: Value
    pixel: Value
    pixels: Value
    rows: int
    done: Value | None

    @property
    def stored(self) -> tuple[Value, Value]:
        """The first pixel of y, and how many."""
        return self.pixel // self.rows, self.pixels // self.rows

    def residuals(self, epilogue: Epilogue, channel: Value, pixels: int) -> Residuals | None:
        """Those of one channel, pixels in the lanes, of ``pixels`` at most; None without."""
        if not epilogue.kind.residual:
            return None
        args, asm = self.args, self.args.asm
        buffer = asm.local_floats(2 * pixels)
        for half in range(2):
            source = epilogue.residual_row(self.image, channel, half)
            words = args.block, buffer + half * pixels, source, self.pixel, self.pixels
            asm.call("collect", *words)
        return lambda half, j: asm.load(buffer, half * pixels + j * asm.lanes)

    def channel_residuals(self, epilogue: Epilogue, first: int) -> Residuals | None:
        """Those of pixel j, channels from ``first`` on in the lanes; None without."""
        if not (epilogue.kind.residual and epilogue.kind.pool):
            return None
        asm = self.args.asm
        out_width, row_stride = self.args.load("out_width", "residual_h")

        def load(half: int, j: int) -> Value:
            pixel = self.pixel + j
            place = (pixel // out_width * 2 + half) * row_stride + pixel % out_width
            inside = asm.compare("<", asm.index(j), self.pixels)
            count = asm.select(inside, self.channels - first, 0)
            return epilogue.residual_pixels(self.image, self.channel + first, place, count)

        return load


class StoreRows:
    """Stores vectors of consecutive pixels of one plane, ``pixel + done .. pixel + pixels``.

    What is stored are prepared values of ``epilogue``.
    """

    def __init__(
        self,
        epilogue: Epilogue,
        dense: bool,
        args: Arguments,
        pixel: Value,
        pixels: Value,
        done: Value | None = None,
    ) -> None:
        self.asm = epilogue.asm
        self.epilogue = epilogue
        self.dense = dense
        self.args = args
        self.pixel = pixel
        self.pixels = pixels
        self.done = done

    def store(self, value: Value, channel: Value, plane: Value, offset: int) -> None:
        """Store ``value`` at pixel ``pixel + offset`` of ``plane``, as far as there are pixels."""
        if not self.dense:
            self._store_scattered(value, channel, plane, offset)
            return
        low: Index = 0 if self.done is None else self.done - offset
        mask = self.asm.lanes_between(low, self.pixels - offset, value.ir.type.count)
        self.epilogue.store(value, plane + self.pixel, offset, mask=mask, channel=channel)

    def _store_scattered(self, value: Value, channel: Value, plane: Value, offset: int) -> None:
        """Hand the lanes to the loops of `emit_scatter_functions`."""
        asm, width = self.asm, value.ir.type.count
        low: Index = 0 if self.done is None else asm.maximum(self.done - offset, 0)
        count = asm.minimum(self.pixels - offset, width) - low
        buffer, pixel = asm.local_floats(width, "row"), self.pixel + offset + low
        if self.epilogue.adds:
            residual = self.epilogue.residual(plane)
            asm.call("collect", self.args.block, buffer + low, residual, pixel, count)
            value = self.epilogue.finish(value, asm.load(buffer, lanes=width), channel=channel)
        asm.store(value, buffer)
        asm.call("scatter", self.args.block, buffer + low, plane, pixel, count)


def emit_store_channels(
    asm: Assembler,
    kind: EpilogueKind,
    dense: bool,
    tile: GemmTile,
    acc: Accumulators,
    place: TilePlace,
    add: Callable[[int, list[Value], Mask], None] | None = None,
) -> None:
    """Store a tile whose row i is pixel i, its lanes channels: turned before it is stored.

    ``add(first, pixels, mask)`` gets the outputs of the channels from ``first`` on, as they are
    before they are turned, where nothing is added to them later.
    """
    lanes, y_c = asm.lanes, place.args["y_c"]
    epilogue = Epilogue(asm, kind, place.args)
    store = StoreRows(epilogue, dense, place.args, *place.stored, place.done)
    for j in range(tile.nv):
        inside = asm.lanes_below(place.channels - j * lanes)
        terms = epilogue.of_lanes(place.channel + j * lanes, inside)
        width = tile.mr // place.rows
        rows = [[acc[n * width + i, j] for i in range(width)] for n in range(place.rows)]
        added = place.channel_residuals(epilogue, j * lanes)
        columns = epilogue.prepare_rows(rows, terms, added)
        if add is not None:
            add(j * lanes, columns, inside)
        for start in range(0, len(columns), lanes):
            for row, value in emit_rows(asm, columns[start : start + lanes]):
                k = j * lanes + row
                with asm.when(asm.compare(">", place.channels, k)):
                    store.store(value, place.channel + k, place.y + k * y_c, start)


def emit_scatter_functions(asm: Assembler, fields: dict[str, str], kind: EpilogueKind) -> None:
    """Define ``scatter``: store consecutive pixels where rows and columns have strides.

    For a residual that lies as y does also ``collect``, which loads them.
    """

    def scatter(buffer: Value, lane: Value, place: Value) -> None:
        asm.store(asm.load_float(buffer, lane), place)

    def collect(buffer: Value, lane: Value, place: Value) -> None:
        asm.store(asm.load_float(place), buffer + lane)

    _emit_pixel_loop(asm, fields, "scatter", _output_strides(kind), scatter)
    if kind.residual and not kind.pool:
        _emit_pixel_loop(asm, fields, "collect", _output_strides(kind), collect)


def emit_collect_pairs(asm: Assembler, fields: dict[str, str]) -> None:
    """Define ``collect``: load consecutive pixels of every other row of a residual."""

    def collect(buffer: Value, lane: Value, place: Value) -> None:
        asm.store(asm.load_float(place), buffer + lane)

    def strides(args: Arguments) -> tuple[Value, Value, Index]:
        out_width, row = args.load("out_width", "residual_h")
        return out_width, row * 2, 1

    _emit_pixel_loop(asm, fields, "collect", strides, collect)


def _output_strides(kind: EpilogueKind) -> Callable[[Arguments], tuple[Value, Value, Index]]:
    """The pixels in a row of y, and the strides of y."""

    def strides(args: Arguments) -> tuple[Value, Value, Index]:
        out_width, y_h, y_w = args.load("out_width", "y_h", "y_w")
        return out_width // (2 if kind.pool else 1), y_h, y_w

    return strides


def _emit_pixel_loop(
    asm: Assembler,
    fields: dict[str, str],
    name: str,
    strides: Callable[[Arguments], tuple[Value, Value, Index]],
    move: Callable[[Value, Value, Value], None],
) -> None:
    with asm.function(
        name, block="pointer", buffer="pointer", plane="pointer", pixel="index", count="index"
    ) as (block, buffer, plane, pixel, count):
        out_width, y_h, y_w = strides(Arguments(asm, block, fields))
        state = {"row": plane + pixel // out_width * y_h, "column": pixel % out_width}
        with asm.loop(count, carry=state) as lane:
            move(buffer, lane, state["row"] + state["column"] * y_w)
            after = state["column"] + 1
            wraps = after.equals(out_width)
            state["row"] = asm.select(wraps, state["row"] + y_h, state["row"])
            state["column"] = asm.select(wraps, 0, after)
