"""The chunks of long sums in weight gradients: how many, what they cost, and their pairwise sum.

A sum over the pixels of all images is cut into blocks, of which each is a chain of additions, and
blocks into chunks. The blocks of a chunk are added in order, and chunks pairwise, so that a sum of
any length is as exact as one of a block, a chunk of blocks and the levels of a tree. Only the
problem decides on them: threads may take chunks without a result depending on it.
"""

from __future__ import annotations

from nnpack.algorithms.base import ceil_div
from nnpack.frozen import dataclass
from nnpack.plan import Argument, Slot, Stage


@dataclass(frozen=True)
class Chunks:
    """``count`` chunks of ``blocks`` blocks each, the last perhaps of fewer."""

    count: int
    blocks: int

    @property
    def levels(self) -> int:
        """Levels of the tree of chunks."""
        return (self.count - 1).bit_length()

    @property
    def chain(self) -> int:
        """Additions that a term of a block goes through, after those of its block."""
        return self.blocks + self.levels

    @property
    def words(self) -> dict[str, Argument]:
        """The words of ``kernels.pairwise.PAIRWISE_FIELDS``."""
        return {"chunks": self.count, "levels": self.levels}


def choose_chunks(blocks: int, least_blocks: int, sums_bytes: int, room_bytes: int) -> Chunks:
    """Chunks of at least ``least_blocks`` of ``blocks``, as many as have their sums in the room.

    A chunk has ``sums_bytes`` of sums.
    """
    most = max(1, min(blocks // least_blocks, room_bytes // sums_bytes))
    each = ceil_div(blocks, most)
    return Chunks(ceil_div(blocks, each), each)


def sum_stages(chunks: Chunks, sums: Slot, chunk_floats: int, floats: int) -> tuple[Stage, ...]:
    """The stage that leaves the sum of all chunks in the first one; none for one chunk.

    A chunk has ``floats`` floats from ``sums`` on, the next one is ``chunk_floats`` further on.
    """
    from nnpack.kernels.pairwise import TASK_FLOATS, SumChunks

    if chunks.count == 1:
        return ()
    words: dict[str, Argument] = {
        "sums": sums,
        **chunks.words,
        "chunk_floats": chunk_floats,
        "floats": floats,
    }
    return (Stage(SumChunks(), ceil_div(floats, TASK_FLOATS), words),)
