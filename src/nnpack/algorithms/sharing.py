"""How a product of strips of pixels and panels of channels is parted into tasks for threads."""

from __future__ import annotations

from nnpack.algorithms.base import ceil_div
from nnpack.frozen import dataclass

# Tasks a thread should have to choose from, so that threads finish together.
TASKS_PER_THREAD = 4

# What a task costs besides its products, in products of one strip and one panel: bringing in a
# strip of pixels or a panel of weights, and beginning.
_STRIP, _PANEL, _START = 0.05, 0.1, 0.2
_PACKED_STRIP = 0.15
# A part of a panel at each end of a task.
_PARTED = 0.1
# Threads begin at different times: a share of a task is lost.
_UNEVEN = 0.1


@dataclass(frozen=True)
class Share:
    """A task: so many strips of one image, times so many panels."""

    strips: int
    panels: int


# Pixels that are summed together, about: more take longer in few tasks, of fewer all are counted.
PIECE_PIXELS = 512


def share_pieces(
    strips: int, most: int, panels: int, images: int, threads: int, packed: bool, pixels: int
) -> tuple[Share, int]:
    """`share_out` where outputs are summed in pieces, and the strips of a piece.

    A strip has ``pixels``. Pieces are the same for any number of threads, and tasks whole pieces.
    """
    largest = share_out(strips, most, panels, images, 1, packed).strips
    piece = ceil_div(largest, ceil_div(largest * pixels, PIECE_PIXELS))
    pieces = ceil_div(strips, piece), ceil_div(largest, piece)
    share = share_out(*pieces, panels, images, threads, packed)
    return Share(share.strips * piece, share.panels), piece


def share_out(
    strips: int, most: int, panels: int, images: int, threads: int, packed: bool
) -> Share:
    """The task with which all threads finish soonest.

    An image is ``strips`` x ``panels`` products; a task has at most ``most`` strips, which are
    ``packed`` in each task anew, or read where they are. For one thread the largest task.
    """
    share = share_vectors(strips, most, panels, 1, images, threads, packed)
    return Share(share.strips, share.vectors)


@dataclass(frozen=True)
class VectorShare:
    """A task: so many strips of one image, times so many vectors of channels."""

    strips: int
    vectors: int


def share_vectors(
    strips: int, most: int, vectors: int, nv: int, images: int, threads: int, packed: bool
) -> VectorShare:
    """`share_out` where a task may take parts of panels, of ``nv`` of the ``vectors`` each.

    Eleven panels keep one of two threads waiting for a twelfth of the time, 32 vectors none.
    """
    largest = ceil_div(strips, ceil_div(strips, max(1, min(most, strips))))
    wanted = 2 * TASKS_PER_THREAD * threads
    least = ceil_div(strips, largest)
    if threads == 1 or images * least >= wanted:
        return VectorShare(largest, vectors)
    strip_cost = _PACKED_STRIP if packed else _STRIP

    def seconds(share: VectorShare) -> float:
        tasks = images * ceil_div(strips, share.strips) * ceil_div(vectors, share.vectors)
        panels = share.vectors / nv + (_PARTED if share.vectors % nv else 0)
        task = (share.strips + _PANEL) * (panels + strip_cost) + _START
        return (ceil_div(tasks, threads) + _UNEVEN) * task

    parts = range(least, min(strips, max(least, wanted)) + 1)
    panels = ceil_div(vectors, nv)
    counts = range(1, min(vectors, wanted) + 1)
    blocks = sorted({ceil_div(strips, count) for count in parts}, reverse=True)
    whole = {min(vectors, nv * ceil_div(panels, count)) for count in counts}
    widths = sorted(whole | {ceil_div(vectors, count) for count in counts}, reverse=True)
    return min((VectorShare(block, width) for block in blocks for width in widths), key=seconds)
