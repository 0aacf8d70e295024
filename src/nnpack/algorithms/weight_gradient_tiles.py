"""Plans of weight gradients in a transform domain, whatever the transform.

Tiles of all images are cut into blocks. Of each, x and the gradients are transformed and multiplied
into the sums; when all blocks are, the sums are transformed back. Where the sums of all pairs of
channels are too many, the pairs are cut into *parts*, each computed by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from nnpack.algorithms.base import FLOAT_BYTES, ceil_div, round_up
from nnpack.algorithms.cost import cache_bandwidth
from nnpack.algorithms.gemm_tiles import relative_rate
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
# Each group has stages of its own; those with few channels waste most of their lanes anyway.
MAX_GROUPS = 16


@dataclass(frozen=True)
class Tiling:
    """What an algorithm makes of a problem: tiles of ``m`` gradients, ``planes`` products each.

    ``phases``: down and across, images that each image falls into. ``block_bytes``: of the
    transforms of a block, whose tiles are ``least_tiles`` to ``most_tiles``: enough that reading
    and writing the sums once a block costs little, and so few that the transforms stay in cache.
    ``sums_bytes``: the most of the sums of a part. ``cycles``: what a vector of V or H takes.
    """

    planes: int
    m: Pair
    phases: Pair
    block_bytes: int
    least_tiles: int
    most_tiles: int
    sums_bytes: int
    cycles: float


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

    Nothing depends on the number of threads.
    """

    tile: GemmTile
    planes: int
    tiles_h: int
    tiles_w: int
    tiles: int
    block_tiles: int
    channel_blocks: int
    panels: int
    parts: Pair
    lanes: int

    @property
    def blocks(self) -> int:
        """Blocks of tiles."""
        return ceil_div(self.tiles, self.block_tiles)

    @property
    def chain(self) -> int:
        """Terms of a running sum: the tiles of a block, then the blocks."""
        return min(self.tiles, self.block_tiles) + self.blocks

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
        return 0, v, v + h, v + h + s


def choose_blocking(problem: WeightGradientProblem, tiling: Tiling, target: Target) -> Blocking:
    """Parts of channels within the bytes of the sums, blocks of tiles within their own."""
    forward, lanes = problem.forward, target.lanes
    sizes = forward.out_height, forward.out_width
    tiles_h, tiles_w = (
        ceil_div(ceil_div(sizes[n], tiling.phases[n]), tiling.m[n]) for n in range(2)
    )
    tiles = forward.batch * tiling.phases[0] * tiling.phases[1] * tiles_h * tiles_w
    blocks = ceil_div(forward.group_in_channels, lanes)
    vectors = ceil_div(forward.group_out_channels, lanes)
    parts = _count_parts(
        blocks, vectors, tiling.sums_bytes // (FLOAT_BYTES * lanes * lanes * tiling.planes)
    )
    blocks, vectors = ceil_div(blocks, parts[0]), ceil_div(vectors, parts[1])
    tile = min(_tiles(target), key=lambda tile: _cost(tile, vectors, target))
    panels = ceil_div(vectors, tile.nv)
    tile_bytes = FLOAT_BYTES * tiling.planes * (blocks + panels * tile.nv) * lanes
    most = min(tiling.most_tiles, max(tiling.least_tiles, tiling.block_bytes // tile_bytes))
    block_tiles = ceil_div(tiles, max(1, ceil_div(tiles, most)))
    return Blocking(
        tile, tiling.planes, tiles_h, tiles_w, tiles, block_tiles, blocks, panels, parts, lanes
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
    passes = blocking.planes * blocking.tiles * (blocking.channel_blocks + vectors)
    transforms = tiling.cycles * passes / target.clock
    sums_bytes = FLOAT_BYTES * blocking.planes * blocking.s_f
    in_cache = sums_bytes <= target.caches.l3 // 2
    rate = cache_bandwidth(target) if in_cache else target.rates.memory_bandwidth
    traffic = 2 * blocking.blocks * sums_bytes / rate
    seconds = max(product, traffic) + 0.3 * min(product, traffic) + transforms
    # The last stage transforms a vector of kernels at a time and scatters them.
    seconds += 4.0 * blocking.planes * rows * vectors / target.clock
    return seconds * problem.forward.groups * blocking.parts[0] * blocking.parts[1]


def gradient_stages(
    problem: WeightGradientProblem,
    tiling: Tiling,
    blocking: Blocking,
    kernels: Kernels,
    threads: int,
) -> tuple[Stage, ...]:
    """Three stages a block of tiles, and one that transforms the sums back; for each part."""
    stages: list[Stage] = []
    for part in _parts(problem, blocking):
        words = _words(blocking, part)
        for start in range(0, blocking.tiles, blocking.block_tiles):
            count = min(blocking.block_tiles, blocking.tiles - start)
            block = words | {"first_tile": start, "tiles": count, "done": start}
            stages += _transform_stages(problem, tiling, blocking, kernels, part, block, threads)
            stages.append(_product_stage(blocking, part, block, threads))
        stages.append(_inverse_stage(problem, blocking, kernels, part, words))
    return tuple(stages)


def _parts(problem: WeightGradientProblem, blocking: Blocking) -> Iterator[_Part]:
    forward, lanes = problem.forward, blocking.lanes
    channels, outputs = forward.group_in_channels, forward.group_out_channels
    step_c = blocking.channel_blocks * lanes
    step_k = ceil_div(ceil_div(outputs, lanes), blocking.parts[1]) * lanes
    for group in range(forward.groups):
        for k in range(0, outputs, step_k):
            for c in range(0, channels, step_c):
                yield _Part(group, c, min(step_c, channels - c), k, min(step_k, outputs - k))


def _words(blocking: Blocking, part: _Part) -> dict[str, Argument]:
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
        "channel_blocks": ceil_div(part.channels, blocking.lanes),
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
        "step_h": tiling.phases[0],
        "step_w": tiling.phases[1],
        "phases_h": tiling.phases[0],
        "phases_w": tiling.phases[1],
        "tiles_h": blocking.tiles_h,
        "tiles_w": blocking.tiles_w,
    }
    to_h = {"v": words["h"], "v_f": blocking.h_f}
    sides = (
        (False, _input_words(problem, part), part.channels),
        (True, _gradient_words(problem, part) | to_h, part.outputs),
    )
    tiles = words["tiles"]
    assert isinstance(tiles, int)
    for gradient, side, channels in sides:
        count = ceil_div(channels, blocking.lanes)
        parts = 1 if threads == 1 else min(tiles, ceil_div(TASKS_PER_THREAD * threads, count))
        task_tiles = ceil_div(tiles, parts)
        arguments = words | side | {"channels": channels, "task_tiles": task_tiles}
        tasks = count * ceil_div(tiles, task_tiles)
        yield Stage(kernels.transform(gradient), tasks, arguments)


def _product_stage(
    blocking: Blocking, part: _Part, words: dict[str, Argument], threads: int
) -> Stage:
    """The products of one block of tiles, added to the sums."""
    from nnpack.kernels.gradient_tiles import MultiplyTiles

    blocks = ceil_div(part.channels, blocking.lanes)
    task_blocks = blocks if blocking.planes >= 2 * threads else 1
    tasks = blocking.planes * ceil_div(blocks, task_blocks)
    return Stage(MultiplyTiles(blocking.tile), tasks, words | {"task_blocks": task_blocks})


def _inverse_stage(
    problem: WeightGradientProblem,
    blocking: Blocking,
    kernels: Kernels,
    part: _Part,
    words: dict[str, Argument],
) -> Stage:
    """The sums of one part transformed back into its part of the gradient."""
    forward = problem.forward
    output = part.group * forward.group_out_channels + part.output
    taps = forward.kernel[0] * forward.kernel[1]
    words = words | {
        "y": Slot("y", FLOAT_BYTES * (output * problem.rows + part.channel * taps)),
        "y_channels": forward.group_in_channels,
        "channels": part.channels,
        "group_out_channels": part.outputs,
    }
    tasks = ceil_div(part.channels, blocking.lanes) * ceil_div(part.outputs, blocking.width)
    return Stage(kernels.inverse(blocking.tile.nv), tasks, words)


def _input_words(problem: WeightGradientProblem, part: _Part) -> dict[str, Argument]:
    forward = problem.forward
    x_n, x_c, x_h = problem.x_strides
    channel = part.group * forward.group_in_channels + part.channel
    return {
        "x": Slot("x", FLOAT_BYTES * channel * x_c),
        "x_n": x_n,
        "x_c": x_c,
        "x_h": x_h,
        "height": forward.height,
        "width": forward.width,
        "pad_top": forward.padding[0],
        "pad_left": forward.padding[2],
    }


def _gradient_words(problem: WeightGradientProblem, part: _Part) -> dict[str, Argument]:
    forward, (grad_n, grad_c) = problem.forward, problem.grad_strides
    channel = part.group * forward.group_out_channels + part.output
    return {
        "x": Slot("grad", FLOAT_BYTES * channel * grad_c),
        **masked_load_words(problem, channel),
        "x_n": grad_n,
        "x_c": grad_c,
        "x_h": dense_strides(forward.y_shape)[2],
        "height": forward.out_height,
        "width": forward.out_width,
        "pad_top": 0,
        "pad_left": 0,
    }
