"""How weight gradients copy rows of x once for all taps: blocks, their words and their cost."""

from __future__ import annotations

from nnpack.algorithms.base import FLOAT_BYTES, ceil_div, round_up
from nnpack.algorithms.gradient_chunks import Chunks, choose_chunks, sum_stages
from nnpack.algorithms.row_layout import Axis, RowLayout, choose_phases, separate_phases
from nnpack.algorithms.weight_gradient_base import (
    NO_WEIGHTS,
    gradient_arguments,
    masked_load_words,
    share_rows,
)
from nnpack.codegen.target import Target
from nnpack.frozen import dataclass
from nnpack.gradient_problem import WeightGradientProblem
from nnpack.kernels.packing import MAX_SHUFFLED_STRIDE
from nnpack.kernels.stage import Kernel
from nnpack.plan import Argument, Plan, Slot, Stage

# Steps of depth a block, where memory allows: a tile of sums is read and written as often.
BLOCK_STEPS = 768
# What a block copies and turns stays in this share of the second-level cache.
CACHE_SHARE = 2
# Least blocks of a chunk, and bytes of all chunks' sums, as in implicit GEMM.
CHUNK_BLOCKS = 2
CHUNK_BYTES = 4 << 20
_WORD_FLOATS = 2


@dataclass(frozen=True)
class RowBlocking:
    """How rows are copied, ``images`` of them a block, and ``blocks`` of all images.

    ``phased``: columns by the taps that see them, else as they are. ``image_floats``: of the
    copies for one image.
    """

    phased: bool
    layout: RowLayout
    images: int
    bands: int
    blocks: int
    image_floats: int

    def steps(self, out_width: int) -> int:
        """Steps of depth a block, with rows of ``out_width`` outputs."""
        return self.images * self.layout.block_rows * out_width

    def copy_cycles(self, problem: WeightGradientProblem, lanes: int) -> float:
        """Cycles in which the rows of one channel are copied, column of vectors by column."""
        layout, forward = self.layout, problem.forward
        phases = layout.vertical.phases * layout.horizontal.phases
        bands = forward.batch * self.bands
        columns = ceil_div(layout.pitch, lanes)
        rows = forward.out_height * forward.batch + bands * layout.vertical.halo
        vectors = phases * columns * rows
        strided = forward.stride[1] if self.phased else 1
        return 2.0 * strided * vectors + 20.0 * bands * phases * (columns + 1)


@dataclass(frozen=True)
class TiledSums:
    """Panels of ``mr`` rows and panels of channels, tiles of ``tile_floats``."""

    mr: int
    row_panels: int
    out_panels: int
    tile_floats: int

    @property
    def group_floats(self) -> int:
        """Floats of the sums of a chunk of one group."""
        return self.row_panels * self.out_panels * self.tile_floats

    def chunks(self, problem: WeightGradientProblem, blocks: int) -> Chunks:
        """The chunks of ``blocks`` blocks."""
        sums_bytes = FLOAT_BYTES * self.group_floats * problem.forward.groups
        return choose_chunks(blocks, CHUNK_BLOCKS, sums_bytes, CHUNK_BYTES)


def rows_refusal(problem: WeightGradientProblem, target: Target, phased: bool) -> str | None:
    """When what one row of outputs sees outgrows the second-level cache."""
    floats = _block_floats(_layout(problem, 1, phased), problem, target)
    most = target.caches.l2 // FLOAT_BYTES
    if floats > most:
        return f"needs copies of at most {most} floats for a row of outputs, got {floats}"
    return None


def choose_row_blocks(problem: WeightGradientProblem, target: Target, phased: bool) -> RowBlocking:
    """Bands of an image, or several images; they must not depend on the number of threads."""
    forward = problem.forward
    rows = min(forward.out_height, ceil_div(BLOCK_STEPS, forward.out_width))
    room = target.caches.l2 // FLOAT_BYTES // CACHE_SHARE
    while rows > 1 and _block_floats(_layout(problem, rows, phased), problem, target) > room:
        rows -= 1
    bands = ceil_div(forward.out_height, rows)
    layout = _layout(problem, ceil_div(forward.out_height, bands), phased)
    bands = ceil_div(forward.out_height, layout.block_rows)
    images = 1
    if bands == 1:
        fitting = room // _block_floats(layout, problem, target)
        images = max(1, min(forward.batch, fitting, BLOCK_STEPS // problem.pixels))
    blocks = ceil_div(forward.batch, images) * bands
    floats = layout.scratch(forward.group_in_channels, target)
    return RowBlocking(phased, layout, images, bands, blocks, floats)


def _layout(problem: WeightGradientProblem, rows: int, phased: bool) -> RowLayout:
    """The copies for ``rows`` rows of outputs."""
    forward = problem.forward
    (kh, kw), (sh, sw), (dh, dw) = forward.kernel, forward.stride, forward.dilation
    vertical, width = choose_phases(kh, sh, dh, rows), forward.out_width
    if phased:
        return RowLayout(vertical, separate_phases(kw, dw), True, rows, width)
    whole = Axis(1, 1, (kw - 1) * dw)
    return RowLayout(vertical, whole, False, rows, (width - 1) * sw + 1)


def _block_floats(layout: RowLayout, problem: WeightGradientProblem, target: Target) -> int:
    """Floats that a block of one image copies, and has of gradients."""
    forward = problem.forward
    width = round_up(forward.group_out_channels, target.lanes)
    gradients = layout.block_rows * forward.out_width * width
    return layout.scratch(forward.group_in_channels, target) + gradients


def known_stride(problem: WeightGradientProblem) -> int | None:
    """The horizontal stride where kernels are compiled for it."""
    stride_w = problem.forward.stride[1]
    return stride_w if stride_w <= MAX_SHUFFLED_STRIDE else None


def rows_plan(
    name: str,
    problem: WeightGradientProblem,
    blocking: RowBlocking,
    tiles: TiledSums,
    kernels: tuple[Kernel, Kernel],
    stores: int,
    panel_floats: int,
    threads: int,
) -> Plan:
    """The plan of two kernels: products into sums of chunks, and the store, of ``stores`` tasks.

    A worker's scratch has ``panel_floats`` floats for each panel of channels.
    """
    groups, chunks = problem.forward.groups, tiles.chunks(problem, blocking.blocks)
    floats = groups * tiles.group_floats
    sums = round_up(chunks.count * floats, 64)
    table = blocking.images * blocking.image_floats + tiles.out_panels * panel_floats
    scratch = round_up(table + _WORD_FLOATS * tiles.row_panels * tiles.mr, 64)
    task_panels, row_parts = share_rows(tiles.row_panels, groups * chunks.count, threads)
    words: dict[str, Argument] = {
        **gradient_arguments(problem),
        **masked_load_words(problem, 0),
        **blocking.layout.arguments(),
        "y": Slot("y"),
        "sums": Slot("workspace"),
        "scratch": Slot("workspace", FLOAT_BYTES * sums),
        "scratch_stride": scratch,
        "table": table,
        "depth": problem.depth,
        "batch": problem.forward.batch,
        "bands": blocking.bands,
        "block_images": blocking.images,
        "image_floats": blocking.image_floats,
        **({} if blocking.phased else {"stride_w": 1, "step_w": problem.forward.stride[1]}),
        "panel_floats": panel_floats,
        "chunks": chunks.count,
        "chunk_blocks": chunks.blocks,
        "row_panels": tiles.row_panels,
        "out_panels": tiles.out_panels,
        "task_panels": task_panels,
    }
    rows, images = blocking.layout.block_rows, blocking.images
    return Plan(
        algorithm=name,
        stages=(
            Stage(kernels[0], groups * chunks.count * row_parts, words),
            *sum_stages(chunks, Slot("workspace"), floats, floats),
            Stage(kernels[1], stores, words),
        ),
        weight_format=NO_WEIGHTS,
        workspace_bytes=FLOAT_BYTES * (sums + threads * scratch),
        threads=threads,
        detail=(
            f"{tiles.mr} rows a tile, {chunks.count} chunks of {chunks.blocks} blocks of "
            f"{rows} rows of outputs" + (f" of {images} images" if images > 1 else "")
        ),
    )
