"""A matrix product with seven products of halves for eight: Strassen's algorithm, tile by tile.

With weights W = [A11 A12; A21 A22], halves of the output channels by halves of the depth, and
patches X = [B11 B12; B21 B22], halves of the depth by halves of the pixels, the quarters of W X
are sums of seven products (Winograd's form of Strassen's algorithm; Higham, 2002, section 23.1):

    S1 = A21 + A22   S2 = S1 - A11   S3 = A11 - A21   S4 = A12 - S2
    T1 = B12 - B11   T2 = B22 - T1   T3 = B22 - B12   T4 = T2 - B21

    P = A11 B11     U = P + S2 T2     V = U + S3 T3     Q = S1 T1
    C11 = P + A12 B21     C12 = U + Q + S4 B22     C21 = V - A22 T4     C22 = V + Q

A *tile* here is two by two register tiles, its depth even and odd channels, so that no quarter is
larger than what registers hold: P, U and V are sums that go on, of which only copies are stored, in
the first-level cache. The sums of weights are packed ahead, those of pixels, four panels a strip of
them, by each task; B11, B21 and B22 are read as they stand. (Huang, Smith, Henry & van de Geijn,
2016, fuse additions with packing and storing around whole blocks.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnpack.frozen import dataclass, replace
from nnpack.kernels.convolve import GemmConvolution, GemmEmitter, Lanes, PixelBlock
from nnpack.kernels.gemm import Accumulators, GemmTile, Panel, emit_product
from nnpack.kernels.packing import emit_pack_patches
from nnpack.kernels.pixels import TilePlace
from nnpack.kernels.stage import Arguments
from nnpack.kernels.strassen_sums import (
    PIXEL_SUMS,
    PRODUCTS,
    Halves,
    QuarterSums,
    emit_pitch,
    emit_second_half,
    pixel_sums,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from nnpack.codegen.assembler import Assembler, Value

# Floats of a cache line.
_LINE = 16


@dataclass(frozen=True)
class _Ahead:
    """What will be read later: the pixels of a strip, and a panel of weights.

    So many products have asked for some of those pixels, so many strips for the weights.
    """

    args: Arguments
    x: Value
    pixel: Value
    turn: Value
    weight: Value
    strips: Value


@dataclass(frozen=True)
class StrassenConvolution(GemmConvolution):
    """The stage of `GemmConvolution` for 1x1 kernels, by seven products for eight.

    Strips and panels are of two register tiles each. ``gathers``: pixels are packed as they are
    before their quarters are added, each strip ``gathered`` behind the one before it; otherwise the
    pixels of an image are consecutive, its channels even in number, and only the last strip of a
    block is packed so, unless it is whole. A worker's scratch begins with that, and holds from
    ``sums`` on the panels of a block. Nothing is pooled, and weights are floats.
    """

    gathers: bool = True

    @property
    def fields(self) -> dict[str, str]:
        """The argument words."""
        return {**super().fields, "sums": "index", "gathered": "index"}

    def strip(self, lanes: int) -> int:
        """Pixels in a strip."""
        return 2 * super().strip(lanes)

    def panel(self, lanes: int) -> int:
        """Output channels in a panel."""
        return 2 * super().panel(lanes)

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        _Emitter(asm, self, self.gathers).emit()


class _Emitter(GemmEmitter):
    def __init__(self, asm: Assembler, kernel: GemmConvolution, gathers: bool) -> None:
        super().__init__(asm, kernel)
        self._gathers = gathers
        self._strip_width = self.strip.pixels // 2
        self._panel_width = self.panel // 2

    def _emit_pack_function(self) -> None:
        asm = self.asm
        with asm.function(
            "pack", block="pointer", x="pointer", to="pointer", first="index", count="index"
        ) as (block, x, to, first, count):
            args = Arguments(asm, block, self.kernel.fields)
            gathered, sums = args.load("gathered", "sums")
            with asm.loop(count, step=self.strip.pixels) as begin:
                size = asm.minimum(count - begin, self.strip.pixels)
                number = begin // self.strip.pixels
                panels = to + sums + number * self._emit_strip_floats(args)
                words = args, x, to + number * gathered, first + begin, size, panels
                self._emit_pack_strip(*words)

    def _emit_strip_floats(self, args: Arguments) -> Value:
        """Floats of the panels of a strip."""
        return emit_pitch(self.asm, args["channels"], self._strip_width) * PIXEL_SUMS

    def _emit_pack_strip(
        self, args: Arguments, x: Value, gathered: Value, first: Value, size: Value, to: Value
    ) -> None:
        """The panels of ``size`` pixels, and the pixels as they are unless they are read from x.

        Columns beyond those are zeros in panels; elsewhere they meet no output that there is.
        """
        asm, depth, width = self.asm, args["channels"], self._strip_width
        pitch = emit_pitch(asm, depth, width)
        sums = QuarterSums(asm, width, pixel_sums, by_depth=False)
        step = asm.index(self.strip.pixels)

        source, source_step = gathered, step
        if self._gathers:
            self._emit_gather(args, x, gathered, first, size)
        else:
            source, source_step = x + first, args["x_c"]
        is_whole = size.equals(self.strip.pixels)
        with asm.when(is_whole):
            rows = Halves(source, source_step, width, is_exact=not self._gathers)
            sums.emit(rows, depth, to, pitch)
        with asm.when(is_whole.equals(0)):
            if not self._gathers:
                self._emit_gather(args, x, gathered, first, size)
            second = emit_second_half(asm, size, width, self.kernel.lanes == "pixels")
            counts = asm.minimum(size, second), size - second
            sums.emit(Halves(gathered, step, second, counts), depth, to, pitch)

    def _emit_gather(
        self, args: Arguments, x: Value, gathered: Value, first: Value, size: Value
    ) -> None:
        """Pixels of an even number of channels as they are, the last of them zeros if need be."""
        asm, width, depth = self.asm, self.strip.pixels, args["channels"]
        stride = self.kernel.stride_w
        emit_pack_patches(asm, args, self.strip, stride, x, gathered, first, size)
        if self._gathers:
            with asm.when((depth % 2).equals(1)):
                for place in range(0, width, asm.lanes):
                    asm.store(asm.zeros(), gathered + depth * width, place)

    def _emit_plain(
        self, args: Arguments, block: PixelBlock, scratch: Value, begin: Value, size: Value
    ) -> tuple[Value, Value]:
        """Where the pixels of a strip stand as they are, and from channel to channel."""
        asm, width = self.asm, self.asm.index(self.strip.pixels)
        gathered = scratch + begin // self.strip.pixels * args["gathered"]
        if self._gathers:
            return gathered, width
        is_whole = size.equals(self.strip.pixels)
        plain = asm.select(is_whole, block.x + (block.start + begin), gathered)
        return plain, asm.select(is_whole, args["x_c"], width)

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

        Meanwhile the block ``after`` it and the next panel of weights are asked for.
        """
        asm = self.asm
        panels, out_channels, depth = args.load("panels", "group_out_channels", "channels")
        weight_floats = emit_pitch(asm, depth, self._panel_width) * PRODUCTS
        strip_floats = self._emit_strip_floats(args)
        first_panel = chunk * args["chunk_panels"]
        last_panel = asm.minimum(first_panel + args["chunk_panels"], panels)
        with asm.loop(last_panel, start=first_panel) as panel:
            weight = args["weight"] + (block.group * panels + panel) * weight_floats
            after_it = asm.select((panel + 1).equals(last_panel), first_panel, panel + 1)
            next_weight = args["weight"] + (block.group * panels + after_it) * weight_floats
            channel = panel * self.panel
            channels = asm.minimum(out_channels - channel, self.panel)
            out, number = block.y + channel * args["y_c"], channel + block.group * out_channels
            state = {"strip": patches + args["sums"]}
            with asm.loop(block.count, step=self.strip.pixels, carry=state) as begin:
                size = asm.minimum(block.count - begin, self.strip.pixels)
                place = (out, number, channels, block.start + begin, size)
                plain = self._emit_plain(args, block, patches, begin, size)
                turn, strips = panel * PRODUCTS, begin // self.strip.pixels
                ahead = after.x, after.start + begin, turn, next_weight, strips
                words = args.block, weight, state["strip"], *place, block.image, *plain, *ahead
                self.call_tile(words, channels, size)
                state["strip"] = state["strip"] + strip_floats
            if self.kernel.epilogue.statistics:
                self.emit_sums(args, block, panel)

    def call_tile(self, words: tuple[Value, ...], channels: Value, size: Value) -> None:
        """Call the narrowest tile whose two halves cover the ``size`` pixels (or the channels)."""
        asm = self.asm
        extent = size if self.kernel.lanes == "pixels" else channels
        for tile in self.tiles:
            width = 2 * tile.nv * asm.lanes
            above = asm.compare(">", extent, width - 2 * asm.lanes)
            with asm.when(above & asm.compare("<=", extent, width)):
                asm.call(f"tile{tile.nv}", *words)

    def _emit_tile_function(self, tile: GemmTile) -> None:
        if self.kernel.lanes == "channels":
            self._emit_store_function(tile)
        asm = self.asm
        with asm.function(
            f"tile{tile.nv}",
            block="pointer",
            weight="pointer",
            strip="pointer",
            y="pointer",
            channel="index",
            channels="index",
            pixel="index",
            pixels="index",
            image="index",
            plain="pointer",
            plain_step="index",
            next_x="pointer",
            next_pixel="index",
            turn="index",
            next_weight="pointer",
            strips="index",
        ) as (block, weight, strip, y, channel, channels, pixel, pixels, image, *rest):
            args = Arguments(asm, block, self.kernel.fields)
            patches = self._patches(args, tile, strip, *rest[:2])
            ahead = _Ahead(args, *rest[2:])
            place = TilePlace(args, image, y, channel, channels, pixel, pixels, 1, None)
            adds = self.kernel.dense and bool(self.kernel.epilogue.residual)

            def store(acc: Accumulators, down: int, across: int) -> None:
                quarter = _quarter(tile, self.kernel.lanes, place, down, across)
                some = asm.compare(">", quarter.channels, 0) & asm.compare(">", quarter.pixels, 0)
                with asm.when(some):
                    self._emit_store_quarter(args, tile, acc, quarter)

            def product(n: int, start: Accumulators | None) -> Accumulators:
                # The residual of the quarter that is stored after the next product: all at once
                # are more lines than a core waits for at a time.
                quarter = {0: (0, 0), 3: (1, 0), 4: (1, 1), 5: (0, 1)}.get(n)
                if adds and quarter:
                    asked = _quarter(tile, self.kernel.lanes, place, *quarter)
                    self.emit_ask_for_residual(tile, asked)
                return self._emit_product(args, tile, weight, patches, ahead, n, start)

            self._emit_chain(tile, product, store)

    def _emit_chain(
        self,
        tile: GemmTile,
        product: Callable[[int, Accumulators | None], Accumulators],
        store: Callable[[Accumulators, int, int], None],
    ) -> None:
        """The seven products, each going on from the sums of the one before where it can."""

        def plus(acc: Accumulators, buffer: Value) -> Accumulators:
            return {key: acc[key] + value for key, value in self._kept(tile, buffer).items()}

        p = product(0, None)
        kept_p = self._keep(tile, p, "p")
        store(product(1, p), 0, 0)
        u = product(2, self._kept(tile, kept_p))
        kept_u = self._keep(tile, u, "u")
        v = product(3, u)
        kept_v = self._keep(tile, v, "v")
        store(product(4, v), 1, 0)
        q = product(5, None)
        store(plus(q, kept_v), 1, 1)
        store(product(6, plus(q, kept_u)), 0, 1)

    def _patches(
        self, args: Arguments, tile: GemmTile, strip: Value, plain: Value, step: Value
    ) -> list[Panel]:
        """The pixels of the seven products."""
        width = self._strip_width
        pitch = emit_pitch(self.asm, args["channels"], width)
        second = tile.mr if self.kernel.lanes == "channels" else tile.nv * self.asm.lanes
        b11, b21, b22 = (
            Panel(place, step * 2) for place in (plain, plain + step, plain + step + second)
        )
        return [b11, b21, *(Panel(strip + pitch * n, width) for n in range(PIXEL_SUMS)), b22]

    def _emit_product(
        self,
        args: Arguments,
        tile: GemmTile,
        weight: Value,
        patches: list[Panel],
        ahead: _Ahead,
        n: int,
        start: Accumulators | None,
    ) -> Accumulators:
        asm, depth = self.asm, args["channels"]
        width = self._panel_width
        weights = Panel(weight + emit_pitch(asm, depth, width) * n, width)
        a, b = (weights, patches[n]) if self.kernel.lanes == "pixels" else (patches[n], weights)
        asked = self._asked_pixels(ahead, n), self._asked_weights(ahead, n)
        return emit_product(asm, tile, asm.ceil_div(depth, 2), a, b, ahead=asked, start=start)

    def _asked_pixels(self, ahead: _Ahead, n: int) -> Panel:
        """The pixels that product n of a tile asks for: a line of the even or the odd channels."""
        args = ahead.args
        pixels = max(1, _LINE // (self.kernel.stride_w or _LINE))
        turn = (ahead.turn + n) % (2 * -(-self.strip.pixels // pixels))
        place = ahead.pixel + turn // 2 * pixels
        if self._gathers:
            out_width, stride_h, stride_w = args.load("out_width", "stride_h", "stride_w")
            row, column = place // out_width, place % out_width
            place = row * stride_h * args["x_h"] + column * stride_w
        return Panel(ahead.x + turn % 2 * args["x_c"] + place, args["x_c"] * 2)

    def _asked_weights(self, ahead: _Ahead, n: int) -> Panel:
        """The weights that it asks for: each strip another line, while there are any."""
        asm, width = self.asm, self._panel_width
        panel = ahead.weight + emit_pitch(asm, ahead.args["channels"], width) * n
        has_more = asm.compare("<", ahead.strips * _LINE, width)
        line = asm.select(has_more, ahead.strips * _LINE, 0)
        return Panel(panel + line, asm.select(has_more, asm.index(width), 0))

    def _keep(self, tile: GemmTile, acc: Accumulators, name: str) -> Value:
        """Store a register tile on the stack."""
        buffer = self.asm.local_floats(tile.mr * tile.nv * self.asm.lanes, name)
        for (i, j), value in acc.items():
            self.asm.store(value, buffer, (i * tile.nv + j) * self.asm.lanes)
        return buffer

    def _kept(self, tile: GemmTile, buffer: Value) -> Accumulators:
        asm = self.asm
        places = [(i, j) for i in range(tile.mr) for j in range(tile.nv)]
        return {(i, j): asm.load(buffer, (i * tile.nv + j) * asm.lanes) for i, j in places}

    def _emit_store_function(self, tile: GemmTile) -> None:
        """Define ``store``: a register tile from the stack, channels in the lanes, to y."""
        asm, kernel = self.asm, self.kernel
        with asm.function(
            f"store{tile.nv}",
            block="pointer",
            values="pointer",
            y="pointer",
            channel="index",
            channels="index",
            pixel="index",
            pixels="index",
            image="index",
        ) as (block, values, y, channel, channels, pixel, pixels, image):
            args = Arguments(asm, block, kernel.fields)
            place = TilePlace(args, image, y, channel, channels, pixel, pixels, 1, None)
            self.emit_store_channels(tile, self._kept(tile, values), place)

    def _emit_store_quarter(
        self, args: Arguments, tile: GemmTile, acc: Accumulators, place: TilePlace
    ) -> None:
        """Store a quarter: as it is, or where it is turned, by a function that all quarters share.

        That goes through the stack, which is nothing beside turning it.
        """
        asm = self.asm
        if self.kernel.lanes == "pixels":
            self.emit_store_pixels(tile, acc, place)
            return
        buffer = self._keep(tile, acc, "quarter")
        words = place.y, place.channel, place.channels, place.pixel, place.pixels, place.image
        asm.call(f"store{tile.nv}", args.block, buffer, *words)


def _quarter(tile: GemmTile, lanes: Lanes, place: TilePlace, down: int, across: int) -> TilePlace:
    """A quarter of ``place``: what it has of channels and pixels, which may be none."""
    asm = place.args.asm
    vectors = tile.nv * asm.lanes
    height, width = (tile.mr, vectors) if lanes == "pixels" else (vectors, tile.mr)
    return replace(
        place,
        y=place.y + place.args["y_c"] * (down * height),
        channel=place.channel + down * height,
        channels=asm.minimum(place.channels - down * height, height),
        pixel=place.pixel + across * width,
        pixels=asm.minimum(place.pixels - across * width, width),
    )
