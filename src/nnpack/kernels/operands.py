"""The operands of matrix products, packed as the microkernel reads them.

The left operand A[row, k] stands in tiles of ``mr`` rows, the right one B[column, k] in panels of
``width`` columns, steps k one behind the other. Either may be given with its depth consecutive in
memory or with its rows (columns) consecutive: a transposed product is packed in another way, and
multiplied in the same. Steps are made whole vectors with zeros, on both sides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from nnpack.frozen import dataclass
from nnpack.kernels.stage import emit_stage
from nnpack.kernels.transpose import emit_load_transposed
from nnpack.kernels.weights import POINTER_KINDS
from nnpack.problem import WeightStorage

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Value

Consecutive = Literal["depth", "rows"]
"""What of an operand is consecutive in memory; "rows" of B are columns of the product."""


def emit_pack_tiles_function(asm: Assembler, mr: int, consecutive: Consecutive) -> None:
    """Define ``pack_tiles``: ``rows`` rows of ``steps`` steps, at ``source``, into tiles at ``to``.

    ``stride`` is what parts rows, or steps where the rows are consecutive. A tile of consecutive
    depth is ``[block][mr][lanes]``, steps in the lanes, zeros beyond the last; otherwise it is
    ``[step][mr]``. Rows beyond the last are left as they are.
    """
    with asm.function(
        "pack_tiles", source="pointer", stride="index", to="pointer", rows="index", steps="index"
    ) as words:
        if consecutive == "depth":
            _emit_tiles_of_vectors(asm, mr, *words)
        else:
            _emit_tiles_of_steps(asm, mr, *words)


def _emit_tiles_of_vectors(
    asm: Assembler, mr: int, source: Value, stride: Value, to: Value, rows: Value, steps: Value
) -> None:
    lanes = asm.lanes
    blocks, whole = asm.ceil_div(steps, lanes), steps // lanes
    with asm.loop(rows) as row:
        start = source + row * stride
        target = to + (row // mr * blocks * mr + row % mr) * lanes
        with asm.loop(whole) as n:
            asm.store(asm.load(start, n * lanes), target, n * (mr * lanes))
        with asm.loop(blocks, start=whole) as n:
            rest = asm.load(start, n * lanes, mask=asm.lanes_below(steps - n * lanes))
            asm.store(rest, target, n * (mr * lanes))


def _emit_tiles_of_steps(
    asm: Assembler, mr: int, source: Value, stride: Value, to: Value, rows: Value, steps: Value
) -> None:
    whole = rows - rows % mr
    with asm.loop(steps) as step:
        start = source + step * stride
        with asm.loop(whole, step=mr) as row:
            _emit_copy(asm, start + row, to + row * steps + step * mr, mr)
        with asm.loop(rows, start=whole, step=mr) as row:
            target = to + row * steps + step * mr
            for n in range(0, mr, asm.lanes):
                rest = asm.load(start + row, n, mask=asm.lanes_below(rows - row - n))
                asm.store_first(rest, min(asm.lanes, mr - n), target, n)


def _emit_copy(asm: Assembler, source: Value, to: Value, count: int) -> None:
    """Copy ``count`` floats, in pieces of powers of two."""
    start = 0
    while start < count:
        size = min(asm.lanes, 1 << ((count - start).bit_length() - 1))
        asm.store(asm.load(source, start, lanes=size), to, start)
        start += size


def emit_pack_panel_function(
    asm: Assembler, width: int, consecutive: Consecutive, storage: WeightStorage = "float32"
) -> None:
    """Define ``pack_panel``: ``steps`` steps of ``columns`` columns, at ``source``, to a panel.

    ``stride`` is what parts columns, or steps where the columns are consecutive. A panel is
    ``[step][width]``, its steps a multiple of the lanes, those beyond the last zeros; lanes beyond
    the last column hold anything finite or not.
    """
    with asm.function(
        "pack_panel",
        source="pointer",
        stride="index",
        to=POINTER_KINDS[storage],
        columns="index",
        steps="index",
    ) as words:
        if consecutive == "depth":
            _emit_turned_panel(asm, width, *words)
        else:
            _emit_copied_panel(asm, width, *words)


def _emit_turned_panel(
    asm: Assembler,
    width: int,
    source: Value,
    stride: Value,
    to: Value,
    columns: Value,
    steps: Value,
) -> None:
    """Squares of as many columns and steps as lanes, transposed in registers."""
    lanes = asm.lanes
    whole = steps - steps % lanes
    with asm.loop(width, step=lanes) as first:
        with asm.when(asm.compare("<", first, columns)):
            # Columns beyond the last are read as the last is.
            places = [asm.minimum(first + n, columns - 1) * stride for n in range(lanes)]
            with asm.loop(whole, step=lanes) as step:
                _emit_square(asm, width, source + step, places, None, to + step * width + first)
            with asm.loop(steps, start=whole, step=lanes) as step:
                mask = asm.lanes_below(steps - step)
                _emit_square(asm, width, source + step, places, mask, to + step * width + first)


def _emit_square(
    asm: Assembler,
    width: int,
    source: Value,
    places: list[Value],
    mask: Value | None,
    to: Value,
) -> None:
    vectors = emit_load_transposed(
        asm, asm.lanes, lambda row, _: asm.load(source, places[row], mask=mask)
    )
    for n, vector in enumerate(vectors):
        asm.store(vector, to, n * width)


def _emit_copied_panel(
    asm: Assembler,
    width: int,
    source: Value,
    stride: Value,
    to: Value,
    columns: Value,
    steps: Value,
) -> None:
    lanes = asm.lanes
    end = asm.ceil_div(steps, lanes) * lanes
    state = {"source": source, "to": to}
    with asm.when(asm.compare(">=", columns, width)):
        with asm.loop(steps, carry=state):
            for n in range(0, width, lanes):
                asm.store(asm.load(state["source"], n), state["to"], n)
            state["source"], state["to"] = state["source"] + stride, state["to"] + width
    state = {"source": source, "to": to}
    with asm.when(asm.compare("<", columns, width)):
        masks = [asm.lanes_below(columns - n) for n in range(0, width, lanes)]
        with asm.loop(steps, carry=state):
            for n, mask in enumerate(masks):
                asm.store(asm.load(state["source"], n * lanes, mask=mask), state["to"], n * lanes)
            state["source"], state["to"] = state["source"] + stride, state["to"] + width
    with asm.loop(end, start=steps) as step:
        for n in range(0, width, lanes):
            asm.store(asm.zeros(), to + step * width, n)


@dataclass(frozen=True)
class PackPanels:
    """The stage that packs a whole right operand of consecutive depth; a task is one panel.

    As halves, the numbers must be some already.
    """

    width: int
    storage: WeightStorage = "float32"

    @property
    def fields(self) -> dict[str, str]:
        """The argument words."""
        return {
            "b": "pointer",
            "b_stride": "index",
            "columns": "index",
            "depth": "index",
            "packed": POINTER_KINDS[self.storage],
        }

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        emit_pack_panel_function(asm, self.width, "depth", self.storage)
        with emit_stage(asm, self.fields) as (args, first, last, _):
            b, stride, columns, depth, packed = args.load(*self.fields)
            floats = asm.ceil_div(depth, asm.lanes) * (asm.lanes * self.width)
            with asm.loop(last, start=first) as panel:
                column = panel * self.width
                words = b + column * stride, stride, packed + panel * floats
                count = asm.minimum(columns - column, self.width)
                asm.call("pack_panel", *words, count, depth)
