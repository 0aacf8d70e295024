"""What the plans of Winograd's algorithms share: costs, errors, and the format of the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping

from nnpack.algorithms.base import FLOAT_BYTES, Estimate, ceil_div, weight_arguments
from nnpack.algorithms.cost import traffic_seconds
from nnpack.algorithms.storage import (
    rounded_estimate,
    transformed_format,
    transformed_storage,
    transformed_weight,
)
from nnpack.algorithms.tile_plan import Blocking, Transforms, tiles_seconds
from nnpack.codegen.target import Target
from nnpack.frozen import replace
from nnpack.kernels.tiles import CHAIN_CHANNELS
from nnpack.kernels.winograd_shape import TileShape
from nnpack.maths.expectation import (
    expected_winograd_error,
    output_amplifications,
    winograd_rounding,
)
from nnpack.plan import Argument, Stage, WeightFormat
from nnpack.problem import Problem, WeightStorage

MAX_TILE = 12

# Columns further apart are gathered one by one rather than loaded with those between them.
MAX_LOADED_STEP = 4

# The share of peak that the products reach, on Zen 4 with weights from the last-level cache.
PRODUCT_EFFICIENCY = 0.92

# What the output transform takes if it pools, which turns and stores a quarter: 1/3 of the time
# on large images, 2/3 on small ones (64 channels of 224x224, 512 of 28x28).
POOLED_SHARE = 0.5


def winograd_seconds(
    problem: Problem, shape: TileShape, blocking: Blocking, target: Target, share: float = 1.0
) -> float:
    """Multiplications in the transform domain, transforms, and traffic of the weights.

    ``share`` of the channel blocks count, over all frequencies.
    """
    cycles = _transform_cycles(problem, shape, blocking, target)
    return tiles_seconds(blocking, problem, target, PRODUCT_EFFICIENCY, cycles, share)


def winograd_estimate(
    problem: Problem, shape: TileShape, blocking: Blocking, target: Target, seconds: float
) -> Estimate:
    """The estimate of a plan that takes ``seconds``, and no less than its traffic."""
    depth = blocking.grid.input_blocks * target.lanes
    chain = min(depth, CHAIN_CHANNELS) + depth // CHAIN_CHANNELS
    down, across = _amplifications(shape)
    return rounded_estimate(
        max(seconds, traffic_seconds(problem, target)),
        expected_winograd_error(down, across, chain),
        winograd_rounding(down, across),
        blocking.storage,
    )


def winograd_storage(problem: Problem, shape: TileShape, target: Target) -> WeightStorage:
    """What the transformed weights are kept as."""
    return transformed_storage(problem, target, winograd_rounding(*_amplifications(shape))[0])


def winograd_detail(shape: TileShape, blocking: Blocking) -> str:
    """What people are told of a plan."""
    (m_h, m_w), (r_h, r_w), tile = shape.m, shape.factors, blocking.tile
    return (
        f"F({m_h}x{m_w}, {r_h}x{r_w}), "
        f"{tile.mr}x{tile.nv * blocking.lanes} tile, {blocking.block_tiles} tiles a block"
    )


def winograd_transforms(
    problem: Problem, shape: TileShape, blocking: Blocking, words: Mapping[str, Argument]
) -> Transforms:
    """The routines of both sides; ``words`` are those of strides and dilations."""
    from nnpack.kernels.winograd import WinogradInput, WinogradOutput, input_shape, output_shape

    kind = problem.epilogue.kind
    return Transforms(
        WinogradInput(input_shape(shape)),
        WinogradOutput(output_shape(shape), kind, blocking.storage),
        {**words, "plane_columns": shape.t[1]},
        shape.strided,
    )


def winograd_format(
    problem: Problem, shape: TileShape, blocking: Blocking, steps: Mapping[str, Argument]
) -> WeightFormat:
    """The format of the transformed weights; ``steps`` has the words of the phases of a stride."""
    from nnpack.kernels.winograd_weights import PackWinogradWeights

    words = weight_arguments(problem)
    words |= {name: steps[name] for name in ("step_h", "step_w", "phase_blocks")}
    words |= {"panels": blocking.panels, "channel_blocks": blocking.grid.input_blocks}
    words |= transformed_weight(blocking.storage, "packed")
    # Epilogue and output do not matter to the weights.
    shape = replace(shape, scattered=False, neighbours=0)
    kernel = PackWinogradWeights(shape, blocking.tile.nv, blocking.storage)
    stage = Stage(kernel, problem.groups * blocking.panels, words)
    description = "winograd", kernel, problem.weights

    def gain() -> float:
        return float(shape.rows.kernel_gain * shape.columns.kernel_gain)

    return transformed_format(description, stage, problem, blocking, gain)


def _amplifications(shape: TileShape) -> tuple[tuple[float, ...], tuple[float, ...]]:
    (m_h, m_w), (r_h, r_w) = shape.m, shape.factors
    return output_amplifications(m_h, r_h), output_amplifications(m_w, r_w)


def _transform_cycles(
    problem: Problem, shape: TileShape, blocking: Blocking, target: Target
) -> tuple[float, float]:
    """Cycles a tile, input and output: loading or storing, turning, and transforming twice.

    Measured on Zen 4: 10 cycles a vector while V and M stay in the second-level cache, 18 beyond;
    loads that skip columns cost more, and so do single columns, for which lanes are turned one by
    one (25 to 33 cycles a vector in, 11 to 22 out).
    """
    held = FLOAT_BYTES * (blocking.v_floats + blocking.m_floats)
    cycles = 10.0 if held <= 1.25 * target.caches.l2 else 18.0
    loads = {1: 0.0, 2: 4.0, None: 40.0}.get(shape.column_step, 12.0)
    if shape.neighbours:
        loads = 8.0
    if shape.inputs[1] == 1:
        loads += 15.0
    scatter = 12.0 if shape.scattered else 6.0 if shape.m[1] == 1 else 0.0
    out_blocks = ceil_div(problem.group_out_channels, target.lanes)
    stored = POOLED_SHARE * cycles if problem.epilogue.pool else cycles
    vector_in = shape.frequencies * cycles + math.prod(shape.inputs) * loads
    vectors_out = shape.frequencies * out_blocks
    return blocking.grid.input_blocks * vector_in, vectors_out * (stored + scatter)
