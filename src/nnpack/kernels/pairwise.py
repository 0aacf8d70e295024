"""Sums of chunks, pairwise: a fixed tree, so that n chunks cost log2(n) roundings and not n.

    sums[i] += sums[i + d],   i = 0, 2 d, 4 d, ...,   for d = 1, 2, 4, ...

In this order whoever computed the chunks, and however many did (Higham, 2002, section 4.2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnpack.frozen import dataclass
from nnpack.kernels.stage import Arguments, Fields, emit_stage

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Index, Value

# Floats that a task adds up, a few cache lines of all chunks at a time: these stay in cache from
# one level of the tree to the next.
TASK_FLOATS = 1024
_PIECE_FLOATS = 128


PAIRWISE_FIELDS: Fields = dict.fromkeys(("chunks", "levels"), "index")
"""The chunks, and the levels of their tree: the least l with 2^l chunks or more."""


def emit_pairwise_sum(args: Arguments, sums: Value, step: Index, floats: Index) -> None:
    """``sums[0 .. floats]`` = the sum over all chunks i of ``sums[i * step ..]``, overwritten.

    ``args`` has the `PAIRWISE_FIELDS`; ``floats`` is a multiple of the lanes.
    """
    asm, (chunks, levels) = args.asm, args.load(*PAIRWISE_FIELDS)
    state = {"distance": asm.index(1)}
    with asm.loop(levels, carry=state):
        distance = state["distance"]
        with asm.loop(chunks - distance, step=distance * 2) as i:
            left = sums + i * step
            right = left + distance * step
            with asm.loop(floats, step=asm.lanes) as place:
                asm.store(asm.load(left, place) + asm.load(right, place), left, place)
        state["distance"] = distance * 2


@dataclass(frozen=True)
class SumChunks:
    """The stage `emit_pairwise_sum`: chunks of ``floats`` floats stand ``chunk_floats`` apart.

    A task is `TASK_FLOATS` of them.
    """

    @property
    def fields(self) -> Fields:
        """The argument words."""
        return {"sums": "pointer", **PAIRWISE_FIELDS, "chunk_floats": "index", "floats": "index"}

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        with emit_stage(asm, self.fields) as (args, first, last, _):
            sums, step, floats = args.load("sums", "chunk_floats", "floats")
            end = asm.minimum(last * TASK_FLOATS, floats)
            with asm.loop(end, start=first * TASK_FLOATS, step=_PIECE_FLOATS) as start:
                count = asm.minimum(end - start, _PIECE_FLOATS)
                emit_pairwise_sum(args, sums + start, step, count)
