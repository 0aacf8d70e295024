"""Plans of weight gradients in a transform domain, whatever the transform.

Tiles of all images are cut into blocks. Of each, x and the gradients are transformed and multiplied
into the sums of a chunk; when all blocks are, chunks are added and transformed back. Where the sums
of all pairs of channels are too many, the pairs are cut into *parts*, each computed by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from nnpack.algorithms.base import FLOAT_BYTES, ceil_div, round_up
from nnpack.algorithms.cost import cache_bandwidth
from nnpack.algorithms.gemm_tiles import relative_rate
from nnpack.algorithms.gradient_chunks import Chunks, choose_chunks, sum_stages
from nnpack.algorithms.weight_gradient_base import masked_load_words
from nnpack.codegen.target import Target
from nnpack.frozen import dataclass
from nnpack.geometry import Pair
from nnpack.gradient_problem import WeightGradientProblem
from nnpack.kernels.gemm import GemmTile
from nnpack.kernels.stage import Kernel
from nnpack.plan import Argument, Slot, Stage
from nnpack.problem import dense_strides

TASKS_PER_THREAD = 4
# Least blocks of a chunk, whose sums go back to memory when the next one begins, and the bytes of
# the sums of all chunks.
CHUNK_BLOCKS = 8
CHUNK_BYTES = 32 << 20
# Sums that stay in the last-level cache until they are transformed back are a part of it.
SUMS_SHARE = 4
# Cycles in which a vector of sums is transformed back and scattered: from the cache, from memory.
INVERSE_CYCLES = (5.0, 16.0)
# Cycles more for a vector of V where columns of phases are loaded: each phase in blocks of its own,
# several in a block, one by one. Fitted to ten layers on Zen 4.
SEPARATED_CYCLES, MIXED_CYCLES, GATHERED_CYCLES = 14.0, 16.0, 50.0
# Each group has stages of its own; those with few channels waste most of their lanes anyway.
MAX_GROUPS = 16


@dataclass(frozen=True)
class Tiling:
    """What an algorithm makes of a problem: tiles of ``m`` gradients, ``planes`` products each.

    ``phases``: down and across, images that each image falls into. ``block_bytes``: of the
    transforms of a block, whose tiles are ``least_tiles`` to ``most_tiles``: enough that reading
    and writing the sums once a block costs little, and so few that the transforms stay in cache.
    ``sums_bytes``: the most of the sums of a part. ``cycles``: what a vector of V or H takes.
    ``stride``: its phases count as channels of x, in blocks of their own if ``separated``;
    ``loaded``: what stands between the columns of a phase is loaded with them.
    """

    planes: int
    m: Pair
    phases: Pair
    block_bytes: int
    least_tiles: int
    most_tiles: int
    sums_bytes: int
    cycles: float
    stride: Pair = (1, 1)
    loaded: bool = True
    separated: bool = False

    @property
    def stride_phases(self) -> int:
        """Phases of the stride."""
        return self.stride[0] * self.stride[1]

    @property
    def phase_cycles(self) -> float:
        """Cycles a vector of V that come from loading phases."""
        if self.stride_phases == 1:
            return 0.0
        if self.separated:
            return SEPARATED_CYCLES
        return MIXED_CYCLES if self.loaded else GATHERED_CYCLES

    def phase_channels(self, channels: int, lanes: int) -> int:
        """Channels from one phase of the stride to the next, of ``channels``."""
        return round_up(channels, lanes) if self.separated else channels

    def input_blocks(self, channels: int, lanes: int) -> int:
        """Blocks of ``channels`` in all their phases."""
        return ceil_div(self.stride_phases * self.phase_channels(channels, lanes), lanes)


@dataclass(frozen=True)
class Kernels:
    """The kernels of an algorithm: of the transforms of x and of gradients, and of the inverse."""

    transform: Callable[[bool], Kernel]
    inverse: Callable[[int], Kernel]


@dataclass(frozen=True)
class _Part:
    """Pairs of input and output channels of one group."""

    group: int
    channel: int
    channels: int
    output: int
    outputs: int


@dataclass(frozen=True)
class Blocking:
    """Tiles of all images, cut into blocks; channels of a part, cut into blocks and panels.

    A part has up to ``part_channels`` input channels, in all their phases ``channel_blocks``.
    Nothing depends on the number of threads.
    """

    tile: GemmTile
    planes: int
    tiles_h: int
    tiles_w: int
    tiles: int
    block_tiles: int
    part_channels: int
    channel_blocks: int
    panels: int
    parts: Pair
    lanes: int

    @property
    def blocks(self) -> int:
        """Blocks of tiles."""
        return ceil_div(self.tiles, self.block_tiles)

    @property
    def chunks(self) -> Chunks:
        """Chunks of blocks."""
        return choose_chunks(self.blocks, CHUNK_BLOCKS, self.sums_bytes, CHUNK_BYTES)

    @property
    def chain(self) -> int:
        """Terms of a running sum: the tiles of a block, then what is added to it."""
        return min(self.tiles, self.block_tiles) + self.chunks.chain

    @property
    def sums_bytes(self) -> int:
        """Bytes of the sums of a chunk."""
        return FLOAT_BYTES * self.planes * self.s_f

    @property
    def width(self) -> int:
        """Output channels of a panel."""
        return self.tile.nv * self.lanes

    @property
    def v_f(self) -> int:
        """Floats of V from one plane to the next; a cache line more than needed."""
        return (self.channel_blocks * self.block_tiles + 1) * self.lanes

    @property
    def h_f(self) -> int:
        """The same for H."""
        return (self.panels * self.tile.nv * self.block_tiles + 1) * self.lanes

    @property
    def s_f(self) -> int:
        """The same for S."""
        return (self.channel_blocks * self.panels * self.width + 1) * self.lanes

    @property
    def places(self) -> tuple[int, int, int, int]:
        """Where V, H and S begin in the workspace, and its end, in floats."""
        v, h, s = (round_up(self.planes * step, 64) for step in (self.v_f, self.h_f, self.s_f))
        return 0, v, v + h, v + h + self.chunks.count * s

    @property
    def chunk_floats(self) -> int:
        """Floats from the sums of one chunk to those of the next."""
        return round_up(self.planes * self.s_f, 64)


def choose_blocking(problem: WeightGradientProblem, tiling: Tiling, target: Target) -> Blocking:
    """The faster of parts with as many sums as allowed, and of parts whose sums stay in cache."""
    choices = (
        _blocking(problem, tiling, target, nbytes)
        for nbytes in (tiling.sums_bytes, min(tiling.sums_bytes, target.caches.l3 // SUMS_SHARE))
    )
    return min(choices, key=lambda blocking: estimate_seconds(problem, tiling, blocking, target))


def _blocking(
    problem: WeightGradientProblem, tiling: Tiling, target: Target, sums_bytes: int
) -> Blocking:
    """Parts of channels within the bytes of the sums, blocks of tiles within their own."""
    forward, lanes = problem.forward, target.lanes
    sizes = forward.out_height, forward.out_width
    tiles_h, tiles_w = (
        ceil_div(ceil_div(sizes[n], tiling.phases[n]), tiling.m[n]) for n in range(2)
    )
    tiles = forward.batch * tiling.phases[0] * tiling.phases[1] * tiles_h * tiles_w
    blocks = ceil_div(forward.group_in_channels, lanes)
    vectors = ceil_div(forward.group_out_channels, lanes)
    square_bytes = FLOAT_BYTES * lanes * lanes * tiling.planes * tiling.stride_phases
    parts = _count_parts(blocks, vectors, sums_bytes // square_bytes)
    channels = min(forward.group_in_channels, ceil_div(blocks, parts[0]) * lanes)
    blocks, vectors = tiling.input_blocks(channels, lanes), ceil_div(vectors, parts[1])
    tile = min(_tiles(target), key=lambda tile: _cost(tile, vectors, target))
    panels = ceil_div(vectors, tile.nv)
    tile_bytes = FLOAT_BYTES * tiling.planes * (blocks + panels * tile.nv) * lanes
    most = min(tiling.most_tiles, max(tiling.least_tiles, tiling.block_bytes // tile_bytes))
    block_tiles = ceil_div(tiles, max(1, ceil_div(tiles, most)))
    return Blocking(
        tile=tile,
        planes=tiling.planes,
        tiles_h=tiles_h,
        tiles_w=tiles_w,
        tiles=tiles,
        block_tiles=block_tiles,
        part_channels=channels,
        channel_blocks=blocks,
        panels=panels,
        parts=parts,
        lanes=lanes,
    )


def _count_parts(blocks: int, vectors: int, most: int) -> Pair:
    """Into how many the channels are cut, the longer side first, for ``most`` squares of lanes."""
    parts = [1, 1]
    while True:
        sides = ceil_div(blocks, parts[0]), ceil_div(vectors, parts[1])
        if sides[0] * sides[1] <= max(1, most):
            return parts[0], parts[1]
        parts[0 if sides[0] > sides[1] else 1] += 1


def _tiles(target: Target) -> list[GemmTile]:
    """Register tiles whose rows divide a block of channels."""
    rows = [mr for mr in (target.lanes, target.lanes // 2) if mr >= 4]
    tiles = [GemmTile(mr, nv) for mr in rows for nv in range(1, 5)]
    fitting = [tile for tile in tiles if tile.registers(target) < target.registers]
    return fitting or [GemmTile(4, 1)]


def _cost(tile: GemmTile, vectors: int, target: Target) -> tuple[float, int]:
    # Fewer than 10 accumulators do not hide the latency of the multiply-adds.
    busy = min(1.0, tile.mr * tile.nv / 10)
    area = round_up(vectors, tile.nv) / (busy * relative_rate(tile, target))
    return round(area, 3), -tile.mr * tile.nv


def estimate_seconds(
    problem: WeightGradientProblem, tiling: Tiling, blocking: Blocking, target: Target
) -> float:
    """Products, transforms of both sides, and the sums read and written for every block."""
    vectors = blocking.panels * blocking.tile.nv
    rows = blocking.channel_blocks * target.lanes
    steps = blocking.planes * blocking.tiles * rows * vectors
    product = steps / relative_rate(blocking.tile, target) / target.multiply_adds
    cycles = (tiling.cycles + tiling.phase_cycles) * blocking.channel_blocks
    cycles += tiling.cycles * vectors
    transforms = blocking.planes * blocking.tiles * cycles / target.clock
    sums_bytes = blocking.sums_bytes
    in_cache = sums_bytes <= target.caches.l3 // 2
    rate = cache_bandwidth(target) if in_cache else target.rates.memory_bandwidth
    traffic = 2 * blocking.blocks * sums_bytes / rate
    seconds = max(product, traffic) + 0.3 * min(product, traffic) + transforms
    # The last stage transforms a vector of kernels at a time and scatters them.
    inverse = INVERSE_CYCLES[0 if in_cache else 1]
    seconds += inverse * blocking.planes * rows * vectors / target.clock
    return seconds * problem.forward.groups * blocking.parts[0] * blocking.parts[1]


def gradient_stages(
    problem: WeightGradientProblem,
    tiling: Tiling,
    blocking: Blocking,
    kernels: Kernels,
    threads: int,
) -> tuple[Stage, ...]:
    """Three stages a block of tiles, the sum of chunks and its inverse transform; for each part."""
    stages: list[Stage] = []
    chunks, (_, _, sums, _) = blocking.chunks, blocking.places
    for part in _parts(problem, blocking):
        words = _words(tiling, blocking, part)
        for n, start in enumerate(range(0, blocking.tiles, blocking.block_tiles)):
            count = min(blocking.block_tiles, blocking.tiles - start)
            place = sums + n // chunks.blocks * blocking.chunk_floats
            block = words | {
                "first_tile": start,
                "tiles": count,
                "sums": Slot("workspace", FLOAT_BYTES * place),
                "done": n % chunks.blocks,
            }
            stages += _transform_stages(problem, tiling, blocking, kernels, part, block, threads)
            stages.append(_product_stage(blocking, block, threads))
        first, floats = Slot("workspace", FLOAT_BYTES * sums), blocking.planes * blocking.s_f
        stages += sum_stages(chunks, first, blocking.chunk_floats, floats)
        stages.append(_inverse_stage(problem, tiling, blocking, kernels, part, words))
    return tuple(stages)


def _parts(problem: WeightGradientProblem, blocking: Blocking) -> Iterator[_Part]:
    forward, lanes = problem.forward, blocking.lanes
    channels, outputs = forward.group_in_channels, forward.group_out_channels
    step_c = blocking.part_channels
    step_k = ceil_div(ceil_div(outputs, lanes), blocking.parts[1]) * lanes
    for group in range(forward.groups):
        for k in range(0, outputs, step_k):
            for c in range(0, channels, step_c):
                yield _Part(group, c, min(step_c, channels - c), k, min(step_k, outputs - k))


def _words(tiling: Tiling, blocking: Blocking, part: _Part) -> dict[str, Argument]:
    """The words that all stages of a part share."""
    v, h, sums, _ = blocking.places
    return {
        "v": Slot("workspace", FLOAT_BYTES * v),
        "h": Slot("workspace", FLOAT_BYTES * h),
        "sums": Slot("workspace", FLOAT_BYTES * sums),
        "v_f": blocking.v_f,
        "h_f": blocking.h_f,
        "s_f": blocking.s_f,
        "block_tiles": blocking.block_tiles,
        "channel_blocks": tiling.input_blocks(part.channels, blocking.lanes),
        "panels": ceil_div(part.outputs, blocking.width),
    }


def _transform_stages(
    problem: WeightGradientProblem,
    tiling: Tiling,
    blocking: Blocking,
    kernels: Kernels,
    part: _Part,
    words: dict[str, Argument],
    threads: int,
) -> Iterator[Stage]:
    """Both transforms of one block of tiles."""
    words = words | {
        "phases_h": tiling.phases[0],
        "phases_w": tiling.phases[1],
        "tiles_h": blocking.tiles_h,
        "tiles_w": blocking.tiles_w,
    }
    to_h = {"v": words["h"], "v_f": blocking.h_f}
    # A unit of work of separated phases is a block of one row phase.
    shared = tiling.stride[1] if tiling.separated else 1
    blocks = tiling.input_blocks(part.channels, blocking.lanes) // shared
    sides = (
        (False, _input_words(problem, tiling, blocking, part), blocks),
        (True, _gradient_words(problem, part) | to_h, ceil_div(part.outputs, blocking.lanes)),
    )
    tiles = words["tiles"]
    assert isinstance(tiles, int)
    for gradient, side, count in sides:
        parts = 1 if threads == 1 else min(tiles, ceil_div(TASKS_PER_THREAD * threads, count))
        task_tiles = ceil_div(tiles, parts)
        tasks = count * ceil_div(tiles, task_tiles)
        yield Stage(kernels.transform(gradient), tasks, words | side | {"task_tiles": task_tiles})


def _product_stage(blocking: Blocking, words: dict[str, Argument], threads: int) -> Stage:
    """The products of one block of tiles, added to the sums."""
    from nnpack.kernels.gradient_tiles import MultiplyTiles

    blocks = words["channel_blocks"]
    assert isinstance(blocks, int)
    task_blocks = blocks if blocking.planes >= 2 * threads else 1
    tasks = blocking.planes * ceil_div(blocks, task_blocks)
    return Stage(MultiplyTiles(blocking.tile), tasks, words | {"task_blocks": task_blocks})


def _inverse_stage(
    problem: WeightGradientProblem,
    tiling: Tiling,
    blocking: Blocking,
    kernels: Kernels,
    part: _Part,
    words: dict[str, Argument],
) -> Stage:
    """The sums of one part transformed back into its part of the gradient."""
    forward = problem.forward
    output = part.group * forward.group_out_channels + part.output
    taps = forward.kernel[0] * forward.kernel[1]
    pitch = tiling.phase_channels(part.channels, blocking.lanes)
    words = words | {
        "y": Slot("y", FLOAT_BYTES * (output * problem.rows + part.channel * taps)),
        "y_channels": forward.group_in_channels,
        "channels": tiling.stride_phases * pitch,
        "phase_channels": pitch,
        "part_channels": part.channels,
        "group_out_channels": part.outputs,
        "kernel_h": forward.kernel[0],
        "kernel_w": forward.kernel[1],
        "step_h": tiling.stride[0],
        "step_w": tiling.stride[1],
    }
    blocks = tiling.input_blocks(part.channels, blocking.lanes)
    tasks = blocks * ceil_div(part.outputs, blocking.width)
    return Stage(kernels.inverse(blocking.tile.nv), tasks, words)


def _input_words(
    problem: WeightGradientProblem, tiling: Tiling, blocking: Blocking, part: _Part
) -> dict[str, Argument]:
    forward = problem.forward
    x_n, x_c, x_h = problem.x_strides
    channel = part.group * forward.group_in_channels + part.channel
    return {
        "x": Slot("x", FLOAT_BYTES * channel * x_c),
        "x_n": x_n,
        "x_c": x_c,
        "x_h": x_h,
        "channels": part.channels,
        "depth": tiling.stride_phases * part.channels,
        "phase_blocks": ceil_div(part.channels, blocking.lanes),
        "step_h": tiling.phases[0] * tiling.stride[0],
        "step_w": tiling.phases[1] * tiling.stride[1],
        "height": forward.height,
        "width": forward.width,
        "pad_top": forward.padding[0],
        "pad_left": forward.padding[2],
    }


def _gradient_words(problem: WeightGradientProblem, part: _Part) -> dict[str, Argument]:
    forward, (grad_n, grad_c) = problem.forward, problem.grad_strides
    phases_h, phases_w = forward.dilation
    channel = part.group * forward.group_out_channels + part.output
    return {
        "x": Slot("grad", FLOAT_BYTES * channel * grad_c),
        **masked_load_words(problem, channel),
        "x_n": grad_n,
        "x_c": grad_c,
        "x_h": dense_strides(forward.y_shape)[2],
        "channels": part.outputs,
        "step_h": phases_h,
        "step_w": phases_w,
        "height": forward.out_height,
        "width": forward.out_width,
        "pad_top": 0,
        "pad_left": 0,
    }
