"""Winograd convolution (Winograd, 1980; Lavin & Gray, 2016): the stages of F(m, r) for any m and r.

    y = A^T [ (G g G^T) * (B^T d B) ] A

for tiles d of t x t inputs, t = m + r - 1, giving m x m outputs, summed over channels between the
brackets: t * t matrix products, one for each *frequency* f = i * t_w + j,

    M[f][tile, k] = sum_c V[f][tile, c] * U[f][c, k].

Channels stand in the lanes throughout, in blocks of ``lanes``; tiles of all images are numbered in
one row. V and M are ``[f][channel block][tile][lanes]``, a block of tiles at a time, so that what a
transform stores is what the microkernel broadcasts from. The two directions may differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nnpack.codegen.assembler import Assembler, Mask, Value
from nnpack.kernels.epilogue import ChannelTerms, Epilogue, epilogue_fields
from nnpack.kernels.gemm import GemmTile, emit_blocked_product
from nnpack.kernels.stage import Arguments, PhaseTimer, emit_stage, profile_fields
from nnpack.kernels.transform import emit_program
from nnpack.kernels.transpose import emit_load_transposed, emit_rows, padded_columns
from nnpack.kernels.weights import WEIGHT_FIELDS
from nnpack.maths.cook_toom import CookToom, cook_toom
from nnpack.maths.program import linear_program
from nnpack.problem import EpilogueKind

Part = Literal["all", "input", "output"]

_INDEX_FIELDS = (
    "scratch_stride",
    "groups",
    "channels",
    "channel_blocks",
    "group_out_channels",
    "panels",
    "chunk_panels",
    "height",
    "width",
    "out_height",
    "out_width",
    "tiles_h",
    "tiles_w",
    "tiles",
    "block_tiles",
    "pad_top",
    "pad_left",
    "v_f",
    "m_f",
    "v_block",
    "x_n",
    "x_c",
    "x_h",
    "y_n",
    "y_c",
    "y_h",
    "y_w",
)


@dataclass(frozen=True)
class TileShape:
    """F(mh x mw, rh x rw): outputs and taps of a tile in each direction."""

    m: tuple[int, int]
    r: tuple[int, int]

    @property
    def rows(self) -> CookToom:
        """The transforms along h."""
        return cook_toom(self.m[0], self.r[0])

    @property
    def columns(self) -> CookToom:
        """The transforms along w."""
        return cook_toom(self.m[1], self.r[1])

    @property
    def t(self) -> tuple[int, int]:
        """Inputs of a tile in each direction."""
        return self.m[0] + self.r[0] - 1, self.m[1] + self.r[1] - 1

    @property
    def frequencies(self) -> int:
        """Products a tile, channel and output channel."""
        return self.t[0] * self.t[1]


@dataclass(frozen=True)
class Winograd:
    """The stage of one block of tiles: all of it, or only the input or the output side.

    "all": a task is a block of tiles; V and M live in the worker's scratch. "input": a task is a
    block of tiles and a block of channels, V is shared. "output": a task is a block of tiles and a
    chunk of panels; V is read, M lives in the worker's scratch.
    """

    shape: TileShape
    tile: GemmTile
    part: Part
    epilogue: EpilogueKind
    profile: bool = False

    @property
    def fields(self) -> dict[str, str]:
        """The argument words."""
        pointers = dict.fromkeys(("x", "weight", "y", "v", "scratch"), "pointer")
        return {
            **pointers,
            **dict.fromkeys(_INDEX_FIELDS, "index"),
            **epilogue_fields(self.epilogue),
            **profile_fields(self.profile),
        }

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        if self.part in ("all", "input"):
            InputTransform(asm, self).emit()
        if self.part in ("all", "output"):
            emit_multiply_function(asm, self)
            OutputTransform(asm, self).emit()
        _emit_stage(asm, self)


def _emit_stage(asm: Assembler, kernel: Winograd) -> None:
    with emit_stage(asm, kernel.fields) as (args, first, last, worker):
        scratch = args["scratch"] + worker * args["scratch_stride"]
        blocks = asm.ceil_div(args["tiles"], args["block_tiles"])
        chunks = asm.ceil_div(args["panels"], args["chunk_panels"])
        timer = PhaseTimer(args, kernel.profile)
        with asm.loop(last, start=first) as task:
            if kernel.part == "all":
                with timer.phase("input transform"):
                    _emit_input(asm, args, blocks, task, 0, args["channel_blocks"], scratch)
                m = scratch + args["v_block"]
                with asm.loop(chunks) as chunk:
                    _emit_output(asm, args, timer, blocks, task, chunk, scratch, m)
            elif kernel.part == "input":
                # Consecutive tasks share the block of channels only by chance; each is whole.
                block, c = task // args["channel_blocks"], task % args["channel_blocks"]
                v = args["v"] + block * args["v_block"]
                with timer.phase("input transform"):
                    _emit_input(asm, args, blocks, block, c, c + 1, v)
            else:
                block, chunk = task // chunks, task % chunks
                v = args["v"] + block * args["v_block"]
                _emit_output(asm, args, timer, blocks, block, chunk, v, scratch)


def _emit_input(
    asm: Assembler,
    args: Arguments,
    blocks: Value,
    block: Value,
    first: Value | int,
    last: Value,
    v: Value,
) -> None:
    """Transform channel blocks first .. last of one block of tiles into ``v``."""
    group, start = block // blocks, block % blocks * args["block_tiles"]
    count = asm.minimum(args["block_tiles"], args["tiles"] - start)
    x = args["x"] + group * args["channels"] * args["x_c"]
    asm.call("transform_input", args.block, x, v, start, count, first, last)


def _emit_output(
    asm: Assembler,
    args: Arguments,
    timer: PhaseTimer,
    blocks: Value,
    block: Value,
    chunk: Value,
    v: Value,
    m: Value,
) -> None:
    """Multiply one block of tiles by a chunk of panels and transform the products into y."""
    group, start = block // blocks, block % blocks * args["block_tiles"]
    count = asm.minimum(args["block_tiles"], args["tiles"] - start)
    first = chunk * args["chunk_panels"]
    last = asm.minimum(first + args["chunk_panels"], args["panels"])
    y = args["y"] + group * args["group_out_channels"] * args["y_c"]
    with timer.phase("multiplication"):
        asm.call("multiply", args.block, v, m, group, count, first, last)
    with timer.phase("output transform"):
        asm.call("transform_output", args.block, m, y, group, start, count, first, last)


def emit_multiply_function(asm: Assembler, kernel: Winograd) -> None:
    """``M[f][tile, k] = sum_c V[f][tile, c] U[f][c, k]`` for panels first .. last, tiles < count.

    U is ``[group][f][panel][c][panel width]``. Rows up to the next multiple of mr are computed.
    """
    tile, lanes, frequencies = kernel.tile, asm.lanes, kernel.shape.frequencies
    width = tile.nv * lanes
    with asm.function(
        "multiply",
        block="pointer",
        v="pointer",
        m="pointer",
        group="index",
        count="index",
        first="index",
        last="index",
    ) as (block, v, m, group, count, first, last):
        args = Arguments(asm, block, kernel.fields)
        channel_blocks, panels, block_tiles = args.load("channel_blocks", "panels", "block_tiles")
        row = block_tiles * lanes
        panel_floats = channel_blocks * (lanes * width)
        u = args["weight"] + group * panels * panel_floats * frequencies
        with asm.loop(frequencies) as f:
            v_f, m_f = v + f * args["v_f"], m + f * args["m_f"]
            with asm.loop(last, start=first) as panel:
                u_p = u + (f * panels + panel) * panel_floats
                m_p = m_f + (panel - first) * tile.nv * row
                with asm.loop(count, step=tile.mr) as start:
                    a, c = v_f + start * lanes, m_p + start * lanes
                    acc = emit_blocked_product(asm, tile, channel_blocks, a, row, u_p)
                    for j in range(tile.nv):
                        for i in range(tile.mr):
                            asm.store(acc[i, j], c + j * row, i * lanes)


class _TileWalk:
    """Walks tiles in order, keeping (image, tile row, tile column) without divisions."""

    def __init__(self, asm: Assembler, args: Arguments, start: Value) -> None:
        tiles_h, tiles_w = args.load("tiles_h", "tiles_w")
        self.asm = asm
        self.args = args
        self.state = {
            "n": start // (tiles_h * tiles_w),
            "row": start // tiles_w % tiles_h,
            "column": start % tiles_w,
        }

    def advance(self) -> None:
        """Go to the next tile."""
        asm, state = self.asm, self.state
        column = state["column"] + 1
        wraps = column.equals(self.args["tiles_w"])
        row = asm.select(wraps, state["row"] + 1, state["row"])
        ends = row.equals(self.args["tiles_h"])
        state["column"] = asm.select(wraps, 0, column)
        state["row"] = asm.select(ends, 0, row)
        state["n"] = asm.select(ends, state["n"] + 1, state["n"])


class InputTransform:
    """Emits ``transform_input``: V = B^T d B for a block of tiles, channels in the lanes."""

    def __init__(self, asm: Assembler, kernel: Winograd) -> None:
        self.asm = asm
        self.kernel = kernel
        self.t_h, self.t_w = kernel.shape.t
        lanes = asm.lanes
        starts = range(0, self.t_w, lanes)
        self.chunks = [(q, padded_columns(min(lanes, self.t_w - q), lanes)) for q in starts]
        self.reach = max(q + width for q, width in self.chunks)

    def emit(self) -> None:
        """Define the function."""
        asm, lanes = self.asm, self.asm.lanes
        with asm.function(
            "transform_input",
            block="pointer",
            x="pointer",
            v="pointer",
            start="index",
            count="index",
            first="index",
            last="index",
        ) as (block, x, v, start, count, first, last):
            args = Arguments(asm, block, self.kernel.fields)
            offsets, buffer = asm.local_words(lanes), asm.local_floats(self.t_h * self.t_w * lanes)
            with asm.loop(last, start=first) as c:
                self._emit_offsets(args, c, offsets)
                walk = _TileWalk(asm, args, start)
                with asm.loop(count, carry=walk.state) as tile:
                    image = x + walk.state["n"] * args["x_n"] + c * lanes * args["x_c"]
                    self._emit_tile(args, walk, image, offsets, buffer)
                    place = v + (c * args["block_tiles"] + tile) * lanes
                    self._emit_columns(args, buffer, place)
                    walk.advance()

    def _emit_offsets(self, args: Arguments, c: Value, offsets: Value) -> None:
        """Offsets of the channels of block c; beyond the last channel, of the last one again.

        What is read twice meets weights of zero.
        """
        asm, lanes = self.asm, self.asm.lanes
        limit = args["channels"] - 1 - c * lanes
        for lane in range(lanes):
            asm.store_index(asm.minimum(limit, lane) * args["x_c"], offsets, lane)

    def _emit_tile(
        self, args: Arguments, walk: _TileWalk, image: Value, offsets: Value, buffer: Value
    ) -> None:
        """``buffer[i][j] = (d B)[i][j]`` for one tile, with zeros for what is in the padding."""
        asm = self.asm
        m_h, m_w = self.kernel.shape.m
        top = walk.state["row"] * m_h - args["pad_top"]
        left = walk.state["column"] * m_w - args["pad_left"]
        inside = (
            asm.compare(">=", top, 0)
            & asm.compare("<=", top + self.t_h, args["height"])
            & asm.compare(">=", left, 0)
            & asm.compare("<=", left + self.reach, args["width"])
        )
        corner = image + top * args["x_h"] + left
        with asm.when(inside), asm.loop(self.t_h) as i:
            row = corner + i * args["x_h"]
            self._emit_row(row, offsets, buffer + i * (self.t_w * asm.lanes), None)
        with asm.when(inside.equals(0)), asm.loop(self.t_h) as i:
            y = top + i
            exists = asm.compare(">=", y, 0) & asm.compare("<", y, args["height"])
            width = asm.select(exists, args["width"], 0)
            row = image + asm.select(exists, y, 0) * args["x_h"] + left
            bounds = 0 - left, width - left
            self._emit_row(row, offsets, buffer + i * (self.t_w * asm.lanes), bounds)

    def _emit_row(
        self, row: Value, offsets: Value, target: Value, bounds: tuple[Value, Value] | None
    ) -> None:
        """Load one row of a tile, channels turned into the lanes, and transform it along w."""
        asm = self.asm
        columns: list[Value] = []
        for q, width in self.chunks:
            mask: Mask = None
            if bounds is not None:
                mask = asm.lanes_between(bounds[0] - q, bounds[1] - q, width)

            def load_row(lane: int, width: int, q: int = q, mask: Mask = mask) -> Value:
                pointer = row + asm.load_index(offsets, lane)
                return asm.load(pointer, q, mask=mask, lanes=width)

            columns += emit_load_transposed(asm, width, load_row)
        program = linear_program(self.kernel.shape.columns.input)
        for j, value in enumerate(emit_program(asm, program, columns[: self.t_w])):
            asm.store(value, target, j * asm.lanes)

    def _emit_columns(self, args: Arguments, buffer: Value, place: Value) -> None:
        """``V[i * t_w + j] = (B^T buffer)[i][j]``."""
        asm, lanes = self.asm, self.asm.lanes
        program = linear_program(self.kernel.shape.rows.input)
        stride = args["v_f"]
        with asm.loop(self.t_w) as j:
            source = buffer + j * lanes
            column = [asm.load(source, i * self.t_w * lanes) for i in range(self.t_h)]
            target = place + j * stride
            for i, value in enumerate(emit_program(asm, program, column)):
                asm.store(value, target + (i * self.t_w) * stride)


class OutputTransform:
    """Emits ``transform_output``: y = epilogue(A^T M A), turned back into rows of pixels."""

    def __init__(self, asm: Assembler, kernel: Winograd) -> None:
        self.asm = asm
        self.kernel = kernel
        self.t_h, self.t_w = kernel.shape.t
        self.m_h, self.m_w = kernel.shape.m

    def emit(self) -> None:
        """Define the function."""
        asm, lanes, nv = self.asm, self.asm.lanes, self.kernel.tile.nv
        with asm.function(
            "transform_output",
            block="pointer",
            m="pointer",
            y="pointer",
            group="index",
            start="index",
            count="index",
            first="index",
            last="index",
        ) as (block, m, y, group, start, count, first, last):
            args = Arguments(asm, block, self.kernel.fields)
            epilogue = Epilogue(asm, self.kernel.epilogue, args)
            offsets, buffer = asm.local_words(lanes), asm.local_floats(self.m_h * self.t_w * lanes)
            for lane in range(lanes):
                asm.store_index(args["y_c"] * lane, offsets, lane)
            vectors = asm.ceil_div(args["group_out_channels"], lanes)
            with asm.loop(asm.minimum(last * nv, vectors), start=first * nv) as k:
                channel = k * lanes
                channels = asm.minimum(args["group_out_channels"] - channel, lanes)
                shift = group * args["group_out_channels"]
                terms = epilogue.of_lanes(shift + channel, asm.lanes_below(channels))
                walk = _TileWalk(asm, args, start)
                source = m + (k - first * nv) * args["block_tiles"] * lanes
                with asm.loop(count, carry=walk.state) as tile:
                    self._emit_columns(args, source + tile * lanes, buffer)
                    image = y + walk.state["n"] * args["y_n"] + channel * args["y_c"]
                    self._emit_tile(args, walk, image, channels, offsets, buffer, epilogue, terms)
                    walk.advance()

    def _emit_columns(self, args: Arguments, source: Value, buffer: Value) -> None:
        """``buffer[i][j] = (A^T M)[i][j]``."""
        asm, lanes = self.asm, self.asm.lanes
        program = linear_program(self.kernel.shape.rows.output)
        stride = args["m_f"]
        with asm.loop(self.t_w) as j:
            place = source + j * stride
            column = [asm.load(place + (i * self.t_w) * stride) for i in range(self.t_h)]
            for i, value in enumerate(emit_program(asm, program, column)):
                asm.store(value, buffer + j * lanes, i * self.t_w * lanes)

    def _emit_tile(
        self,
        args: Arguments,
        walk: _TileWalk,
        image: Value,
        channels: Value,
        offsets: Value,
        buffer: Value,
        epilogue: Epilogue,
        terms: ChannelTerms,
    ) -> None:
        """Store the rows of one tile, as far as there are rows, columns and channels."""
        asm, lanes = self.asm, self.asm.lanes
        top, left = walk.state["row"] * self.m_h, walk.state["column"] * self.m_w
        rows = asm.minimum(args["out_height"] - top, self.m_h)
        columns = args["out_width"] - left
        full = asm.compare(">=", columns, self.m_w) & channels.equals(lanes)
        corner = image + top * args["y_h"] + left
        with asm.when(full), asm.loop(rows) as i:
            source = buffer + i * (self.t_w * lanes)
            for lane, q, value in self._emit_row(source, epilogue, terms):
                target = corner + i * args["y_h"] + asm.load_index(offsets, lane)
                asm.store_first(value, min(lanes, self.m_w - q), target, q)
        with asm.when(full.equals(0)), asm.loop(rows) as i:
            source = buffer + i * (self.t_w * lanes)
            for lane, q, value in self._emit_row(source, epilogue, terms):
                with asm.when(asm.compare(">", channels, lane)):
                    target = corner + i * args["y_h"] + asm.load_index(offsets, lane)
                    count = asm.minimum(columns, self.m_w) - q
                    mask = asm.lanes_below(count, value.ir.type.count)
                    asm.store(value, target, q, mask=mask)

    def _emit_row(
        self, source: Value, epilogue: Epilogue, terms: ChannelTerms
    ) -> list[tuple[int, int, Value]]:
        """One row of outputs: (lane, first column, values) for every channel."""
        asm, lanes = self.asm, self.asm.lanes
        program = linear_program(self.kernel.shape.columns.output)
        row = [asm.load(source, j * lanes) for j in range(self.t_w)]
        columns = [epilogue(value, terms) for value in emit_program(asm, program, row)]
        result = []
        for q in range(0, self.m_w, lanes):
            turned = emit_rows(asm, columns[q : q + lanes])
            result += [(lane, q, value) for lane, value in turned]
        return result


@dataclass(frozen=True)
class PackWinogradWeights:
    """The stage ``U = G g G^T`` into ``[group][f][panel][c][width]``; a task is one panel.

    ``width`` is ``nv`` vectors of output channels; channels beyond the last are zeros.
    """

    shape: TileShape
    nv: int

    @property
    def fields(self) -> dict[str, str]:
        """The argument words."""
        words = dict.fromkeys(("panels", "channel_blocks"), "index")
        return {**WEIGHT_FIELDS, **words, "packed": "pointer"}

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        width = self.nv * asm.lanes
        with emit_stage(asm, self.fields) as (args, first, last, _):
            panels = args["panels"]
            panel_floats = args["channel_blocks"] * (asm.lanes * width)
            with asm.loop(last, start=first) as task:
                group, panel = task // panels, task % panels
                whole = group * panels * self.shape.frequencies + panel
                packed = args["packed"] + whole * panel_floats
                raw = args["weight"] + group * args["weight_group"]
                for j in range(self.nv):
                    k = panel * width + j * asm.lanes
                    self._emit_vector(asm, args, raw + k * args["weight_out"], packed, k, j)

    def _emit_vector(
        self, asm: Assembler, args: Arguments, raw: Value, packed: Value, k: Value, j: int
    ) -> None:
        """All channels of one vector of output channels."""
        lanes, width = asm.lanes, self.nv * asm.lanes
        frequency = args["panels"] * args["channel_blocks"] * (lanes * width)
        mask = asm.lanes_below(args["group_out_channels"] - k)
        target = packed + j * lanes
        with asm.loop(args["channels"]) as c:
            tap = raw + c * args["weight_channel"]
            place = target + c * width
            for f, value in enumerate(self._emit_transformed(asm, args, tap, mask)):
                asm.store(value, place + f * frequency)
        with asm.loop(args["channel_blocks"] * lanes, start=args["channels"]) as c:
            place = target + c * width
            with asm.loop(self.shape.frequencies) as f_zero:
                asm.store(asm.zeros(), place + f_zero * frequency)

    def _emit_transformed(
        self, asm: Assembler, args: Arguments, tap: Value, mask: Value
    ) -> list[Value]:
        """``G g G^T`` of one channel, output channels in the lanes."""
        r_h, r_w = self.shape.r
        along_w = linear_program(self.shape.columns.kernel)
        along_h = linear_program(self.shape.rows.kernel)
        rows = []
        for p in range(r_h):
            row = tap + args["weight_row"] * p
            taps = [
                asm.gather(row + args["weight_column"] * q, args["weight_out"], mask)
                for q in range(r_w)
            ]
            rows.append(emit_program(asm, along_w, taps))
        columns = [
            emit_program(asm, along_h, [row[j] for row in rows]) for j in range(self.shape.t[1])
        ]
        return [columns[j][i] for i in range(self.shape.t[0]) for j in range(self.shape.t[1])]
