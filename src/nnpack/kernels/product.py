"""Matrix products: ``Y = epilogue(A B^T)``, blocks of A packed into cache, B packed or as it is.

A task is a block of rows and a range of panels of columns (Goto & van de Geijn, 2008, with the
columns in the lanes). The depth is cut twice. A *slab* is what of A is packed at a time: all of it
when the rows are one tile, so that each panel of B is read from beginning to end, at the rate of
memory; else what leaves A and a piece of a panel in the second-level cache. A *chain* is how many
products are summed in a register; longer sums are sums of chains, kept in scratch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from nnpack.frozen import dataclass
from nnpack.kernels.epilogue import Epilogue, epilogue_fields
from nnpack.kernels.gemm import (
    Accumulators,
    GemmTile,
    Panel,
    emit_blocked_product,
    emit_product,
)
from nnpack.kernels.operands import (
    Consecutive,
    emit_pack_panel_function,
    emit_pack_tiles_function,
)
from nnpack.kernels.stage import Arguments, PhaseTimer, emit_stage, profile_fields
from nnpack.kernels.weights import POINTER_KINDS
from nnpack.problem import EpilogueKind, WeightStorage

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Value

# Accumulators that hide the latency of a multiply-add, 4 cycles at up to 2 a cycle.
_BUSY = 8

_FIELDS = {
    **dict.fromkeys(("a", "b", "y", "scratch"), "pointer"),
    **dict.fromkeys(
        (
            "a_row",
            "a_step",
            "a_stride",
            "b_column",
            "b_step",
            "b_stride",
            "y_row",
            "rows",
            "columns",
            "depth",
            "block_rows",
            "slab",
            "chain",
            "panels",
            "chunk_panels",
            "scratch_stride",
            "panel_place",
            "sums_place",
        ),
        "index",
    ),
}


@dataclass(frozen=True)
class MatrixProduct:
    """The stage ``y[m, n] = epilogue(sum_k a[m, k] * b[n, k])``.

    ``a`` and ``b`` say how the operands stand in memory, "packed" that b is in panels as
    `operands.PackPanels` makes them, floats or halves as ``storage`` says. a_row and a_step (and
    those of b) are strides, a_stride the one of them that is not 1. ``block_rows`` is a multiple of
    the tile's, ``slab`` of ``chain`` and that of the lanes.

    The scratch of a worker holds a slab of a, from ``panel_place`` on a panel of b unless that is
    packed, and from ``sums_place`` on the sums of a task when the depth exceeds the chain.
    """

    tile: GemmTile
    a: Consecutive
    b: Consecutive | Literal["packed"]
    epilogue: EpilogueKind
    storage: WeightStorage = "float32"
    profile: bool = False

    @property
    def fields(self) -> dict[str, str]:
        """The argument words."""
        return {
            **_FIELDS,
            "b": POINTER_KINDS[self.storage],
            **epilogue_fields(self.epilogue),
            **profile_fields(self.profile),
        }

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        _Emitter(asm, self).emit()


@dataclass(frozen=True)
class _Task:
    """What one task computes: its first row, its rows, its panels, its scratch."""

    row: Value
    rows: Value
    first_panel: Value
    last_panel: Value
    scratch: Value


class _Emitter:
    def __init__(self, asm: Assembler, kernel: MatrixProduct) -> None:
        self.asm = asm
        self.kernel = kernel
        self.mr = kernel.tile.mr
        self.width = kernel.tile.nv * asm.lanes
        # Tiles by number of vectors: the last panel may need fewer.
        self.tiles = [GemmTile(self.mr, nv) for nv in range(1, kernel.tile.nv + 1)]

    def emit(self) -> None:
        kernel = self.kernel
        for tile in self.tiles:
            self._emit_tile_function(tile)
        emit_pack_tiles_function(self.asm, self.mr, kernel.a)
        if kernel.b != "packed":
            emit_pack_panel_function(self.asm, self.width, kernel.b)
        self._emit_panel_function()
        self._emit_stage()

    def _emit_stage(self) -> None:
        asm = self.asm
        with emit_stage(asm, self.kernel.fields) as (args, first, last, worker):
            scratch = args["scratch"] + worker * args["scratch_stride"]
            chunks = asm.ceil_div(args["panels"], args["chunk_panels"])
            with asm.loop(last, start=first) as number:
                row, panel = number // chunks * args["block_rows"], number % chunks
                panel = panel * args["chunk_panels"]
                rows = asm.minimum(args["rows"] - row, args["block_rows"])
                end = asm.minimum(panel + args["chunk_panels"], args["panels"])
                self._emit_task(args, _Task(row, rows, panel, end, scratch))

    def _emit_task(self, args: Arguments, task: _Task) -> None:
        """Slab by slab of the depth: pack A, then all panels."""
        asm = self.asm
        timer = PhaseTimer(args, self.kernel.profile)
        with asm.loop(args["depth"], step=args["slab"]) as k:
            steps = asm.minimum(args["depth"] - k, args["slab"])
            a = args["a"] + task.row * args["a_row"] + k * args["a_step"]
            with timer.phase("packing"):
                asm.call("pack_tiles", a, args["a_stride"], task.scratch, task.rows, steps)
            with asm.loop(task.last_panel, start=task.first_panel) as panel:
                b = self._emit_panel(args, timer, task.scratch, panel, k, steps)
                size = args["block_rows"] * self.width
                place = args["sums_place"] + (panel - task.first_panel) * size
                words = task.row, task.rows, panel, k, steps
                with timer.phase("multiplication"):
                    asm.call("panel", args.block, task.scratch, b, task.scratch + place, *words)

    def _emit_panel(
        self,
        args: Arguments,
        timer: PhaseTimer,
        scratch: Value,
        panel: Value,
        k: Value,
        steps: Value,
    ) -> Value:
        """Where the panel of this slab stands; packed first if it is not."""
        asm = self.asm
        if self.kernel.b == "packed":
            depth = asm.ceil_div(args["depth"], asm.lanes) * asm.lanes
            return args["b"] + (panel * depth + k) * self.width
        column = panel * self.width
        b = args["b"] + column * args["b_column"] + k * args["b_step"]
        columns = asm.minimum(args["columns"] - column, self.width)
        to = scratch + args["panel_place"]
        with timer.phase("packing"):
            asm.call("pack_panel", b, args["b_stride"], to, columns, steps)
        return to

    def _emit_panel_function(self) -> None:
        """Define ``panel``: all rows of a task times one panel, over one slab."""
        asm = self.asm
        halves = POINTER_KINDS[self.kernel.storage]
        with asm.function(
            "panel",
            block="pointer",
            a="pointer",
            b=halves,
            sums="pointer",
            row="index",
            rows="index",
            panel="index",
            start="index",
            steps="index",
        ) as (block, a, b, sums, row, rows, panel, start, steps):
            args = Arguments(asm, block, self.kernel.fields)
            padded = steps
            if self.kernel.a == "depth":
                padded = asm.ceil_div(steps, asm.lanes) * asm.lanes
            column = panel * self.width
            columns = args["columns"] - column
            y = args["y"] + row * args["y_row"] + column
            with asm.loop(rows, step=self.mr) as i:
                with asm.loop(steps, step=args["chain"]) as k:
                    length = asm.minimum(steps - k, args["chain"])
                    last = asm.compare(">=", start + k + length, args["depth"])
                    operands = a + i * padded + k * self.mr, b + k * self.width
                    places = sums + i * self.width, y + i * args["y_row"], column, columns
                    flags = asm.minimum(start + k, 1), asm.select(last, 1, 0)
                    self._call_tile((block, *operands, *places, rows - i, length, *flags), columns)

    def _call_tile(self, words: tuple[Value, ...], columns: Value) -> None:
        """Call the narrowest tile that covers the panel."""
        asm = self.asm
        for tile in self.tiles:
            within = asm.compare(">", columns, (tile.nv - 1) * asm.lanes)
            if tile is not self.tiles[-1]:
                within = within & asm.compare("<=", columns, tile.nv * asm.lanes)
            with asm.when(within):
                asm.call(f"tile{tile.nv}", *words)

    def _emit_tile_function(self, tile: GemmTile) -> None:
        """Define a register tile: ``steps`` steps, added to the sums so far unless it is the first.

        ``later`` says that there are such, ``last`` that the result is complete.
        """
        asm = self.asm
        with asm.function(
            f"tile{tile.nv}",
            block="pointer",
            a="pointer",
            b=POINTER_KINDS[self.kernel.storage],
            sums="pointer",
            y="pointer",
            column="index",
            columns="index",
            rows="index",
            steps="index",
            later="index",
            last="index",
        ) as (block, a, b, sums, y, column, columns, rows, steps, later, last):
            args = Arguments(asm, block, self.kernel.fields)
            acc = self._emit_product(tile, a, b, steps)
            places = {(i, j): i * self.width + j * asm.lanes for i, j in acc}
            # No pass or one.
            with asm.loop(later, carry=acc):
                for key, place in places.items():
                    acc[key] = asm.load(sums, place) + acc[key]
            with asm.when(last.equals(0)):
                for key, place in places.items():
                    asm.store(acc[key], sums, place)
            with asm.when(last.equals(1)):
                self._emit_store(args, tile, acc, y, column, columns, rows)

    def _emit_product(self, tile: GemmTile, a: Value, b: Value, steps: Value) -> Accumulators:
        asm = self.asm
        if self.kernel.a == "rows":
            return emit_product(asm, tile, steps, Panel(a, self.mr), Panel(b, self.width))
        chains = 1
        while chains < min(4, asm.lanes) and 2 * chains * tile.mr * tile.nv <= _BUSY:
            chains *= 2
        return emit_blocked_product(
            asm,
            tile,
            asm.ceil_div(steps, asm.lanes) * asm.lanes,
            a,
            self.mr * asm.lanes,
            b,
            width=self.width,
            chains=chains,
        )

    def _emit_store(
        self,
        args: Arguments,
        tile: GemmTile,
        acc: Accumulators,
        y: Value,
        column: Value,
        columns: Value,
        rows: Value,
    ) -> None:
        asm, lanes = self.asm, self.asm.lanes
        epilogue = Epilogue(asm, self.kernel.epilogue, args)
        for j in range(tile.nv):
            mask = asm.lanes_below(columns - j * lanes)
            terms = epilogue.of_lanes(column + j * lanes, mask)
            for i in range(tile.mr):
                with asm.when(asm.compare(">", rows, i)):
                    value = epilogue.prepare(acc[i, j], terms)
                    place = y + i * args["y_row"]
                    epilogue.store(value, place, j * lanes, mask=mask, terms=terms)
