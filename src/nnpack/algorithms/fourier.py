"""Fourier convolution: stride 1, dilation 1, kernels up to the tile, 5x5 and larger above all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from nnpack.algorithms.base import (
    FLOAT_BYTES,
    Algorithm,
    Estimate,
    ceil_div,
    weight_arguments,
)
from nnpack.algorithms.channel_sums import with_merged_statistics
from nnpack.algorithms.cost import traffic_seconds
from nnpack.algorithms.storage import (
    rounded_estimate,
    transformed_format,
    transformed_storage,
    transformed_weight,
)
from nnpack.algorithms.tile_plan import (
    BLOCK_SCALES,
    Blocking,
    Grid,
    Transforms,
    choose_blocking,
    last_channels,
    tile_stages,
    tiles_seconds,
)
from nnpack.codegen.target import Target
from nnpack.frozen import replace
from nnpack.kernels.fourier_shape import FourierShape
from nnpack.kernels.tiles import CHAIN_CHANNELS
from nnpack.maths.expectation import expected_fourier_error, fourier_rounding
from nnpack.maths.form import Form
from nnpack.plan import Plan, Stage, WeightFormat
from nnpack.problem import Problem, WeightStorage

# The share of peak that the products reach, and the cycles a vector of V or M takes from x or to
# y, transposed and transformed both ways, by the tile. Fitted to 13 layers on Zen 4, so that
# predictions stand in the same proportion to measured times as Winograd's do.
PRODUCT_EFFICIENCY = 0.88
# What of the shorter of products and traffic of weights is not hidden: 100 MB beside 7 ms of
# products took 13 ms (256 channels @14, batch 16).
UNHIDDEN_SHARE = 0.5
POOLED_SHARE = 0.6  # of the output transform where it pools
TRANSFORM_CYCLES: Mapping[int, float] = {8: 10.0, 16: 15.0}


class FourierAlgorithm:
    """Overlap-save tiles of n x n inputs; complex products take one of ``multiplications``.

    ``blocks`` is one of `BLOCK_SCALES`, or empty for blocks of the size that should be best.
    """

    def __init__(
        self,
        n: Literal[8, 16],
        multiplications: tuple[Literal[3, 4], ...] = (3, 4),
        blocks: str = "",
    ) -> None:
        self.n = n
        self.multiplications = multiplications
        single = f"{multiplications[0]}" if len(multiplications) == 1 else ""
        self.name = "@".join(filter(None, (f"fourier_{n}", single, blocks)))
        self._scale = BLOCK_SCALES.get(blocks, 1.0)

    def variants(self, problem: Problem, target: Target) -> tuple[Algorithm, ...]:
        """Either form of the products, and other sizes of blocks."""
        forms = (FourierAlgorithm(self.n, (count,)) for count in self.multiplications)
        sizes = (FourierAlgorithm(self.n, blocks=blocks) for blocks in BLOCK_SCALES)
        return (*forms, *sizes)

    def refusal(self, problem: Problem, target: Target) -> str | None:
        """Strides, dilation, kernels of one tap or larger than the tile, scattered outputs."""
        kh, kw = problem.kernel
        if problem.stride != (1, 1) or problem.dilation != (1, 1):
            return f"needs stride 1 and dilation 1, got {problem.stride} and {problem.dilation}"
        if not 2 <= max(kh, kw) <= self.n:
            return f"needs a kernel of 2 to {self.n} taps, got {kh}x{kw}"
        if problem.y_strides[3] != 1:
            return "needs the columns of the output one behind the other"
        return None

    def merges_pool(self, problem: Problem, target: Target) -> bool:
        """Tiles of two outputs and more."""
        return self.n > max(problem.kernel)

    def merges_statistics(self, problem: Problem, target: Target) -> bool:
        """Always: rows of outputs are side by side."""
        return True

    def estimate(self, problem: Problem, target: Target) -> Estimate:
        """Products, transforms, and traffic of the weights."""
        shape, seconds = self._choose(problem, target)
        fold = shape.form.fold
        depth = fold * problem.group_in_channels
        chain = min(depth, CHAIN_CHANNELS) + depth // CHAIN_CHANNELS
        return rounded_estimate(
            max(seconds, traffic_seconds(problem, target)),
            expected_fourier_error(self.n, ceil_div(chain, fold)),
            fourier_rounding(shape.form.multiplications),
            _storage(shape, problem, target),
        )

    def build(self, problem: Problem, target: Target, threads: int) -> Plan:
        """One fused stage over blocks of tiles, or two when there are too few blocks."""
        from nnpack.kernels.fourier import FourierInput, FourierOutput

        shape, _ = self._choose(problem, target)
        blocking = _blocking(shape, problem, target, threads, self._scale)
        tile, kind = blocking.tile, problem.epilogue.kind
        output = FourierOutput(shape, kind, blocking.storage)
        transforms = Transforms(FourierInput(shape), output, {"plane_columns": 0})
        stages, floats = tile_stages(problem, blocking, threads, transforms)
        plan = Plan(
            algorithm=self.name,
            stages=stages,
            weight_format=_weight_format(problem, shape, blocking),
            workspace_bytes=FLOAT_BYTES * floats,
            threads=threads,
            detail=(
                f"{shape.n}x{shape.n} for {shape.m[0]}x{shape.m[1]} outputs, "
                f"{shape.form.multiplications} multiplications a frequency, "
                f"{tile.mr}x{tile.nv * target.lanes} tile, {blocking.block_tiles} tiles a block"
            ),
        )
        if not problem.epilogue.statistics:
            return plan
        pieces, size = blocking.pieces
        return with_merged_statistics(plan, problem.out_channels, pieces, size, target)

    def _choose(self, problem: Problem, target: Target) -> tuple[FourierShape, float]:
        """The faster form of the products and its seconds on one thread, whatever the threads."""
        shapes = [
            FourierShape(Form(self.n, count), problem.kernel, problem.epilogue.pool is not None)
            for count in self.multiplications
        ]
        timed = [(shape, _seconds(shape, problem, target, self._scale)) for shape in shapes]
        return min(timed, key=lambda pair: pair[1])


def _seconds(shape: FourierShape, problem: Problem, target: Target, scale: float) -> float:
    """One run on one thread."""
    blocking = _blocking(shape, problem, target, 1, scale)
    share = POOLED_SHARE if problem.epilogue.pool else 1.0
    out_blocks = ceil_div(problem.group_out_channels, target.lanes)
    cycles = 1.5 * shape.n**2 * TRANSFORM_CYCLES[shape.n]
    both = blocking.grid.input_blocks * cycles, share * out_blocks * cycles
    return tiles_seconds(
        blocking, problem, target, PRODUCT_EFFICIENCY, both, unhidden=UNHIDDEN_SHARE
    )


def _blocking(
    shape: FourierShape, problem: Problem, target: Target, threads: int, scale: float
) -> Blocking:
    grid = Grid(
        planes=shape.form.planes,
        fold=shape.form.fold,
        tiles_h=ceil_div(problem.out_height, shape.m[0]),
        tiles_w=ceil_div(problem.out_width, shape.m[1]),
        images=problem.batch,
        input_blocks=ceil_div(problem.group_in_channels, target.lanes),
        last_channels=last_channels(problem.group_in_channels, target.lanes),
        storage=_storage(shape, problem, target),
    )
    return choose_blocking(grid, problem, target, threads, scale)


def _storage(shape: FourierShape, problem: Problem, target: Target) -> WeightStorage:
    """How the transformed weights are kept."""
    return transformed_storage(problem, target, fourier_rounding(shape.form.multiplications)[0])


def _weight_format(problem: Problem, shape: FourierShape, blocking: Blocking) -> WeightFormat:
    from nnpack.kernels.fourier_weights import PackFourierWeights

    words = weight_arguments(problem)
    words |= {"panels": blocking.panels, "input_blocks": blocking.grid.input_blocks}
    words |= transformed_weight(blocking.storage, "packed")
    # How far tiles step does not matter to the weights.
    shape = replace(shape, even=False)
    kernel = PackFourierWeights(shape, blocking.tile.nv, blocking.storage)
    stage = Stage(kernel, problem.groups * blocking.panels, words)
    # Real and imaginary parts are at most the sum of all weights, and their sums twice that.
    gain = 4 * shape.r[0] * shape.r[1] / shape.n**2
    return transformed_format(("fourier", kernel), stage, problem, blocking, lambda: gain)
