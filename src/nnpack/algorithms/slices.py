"""A pool as a pass of its own: what it reads is computed some images at a time.

The outputs of one slice stay in the workspace, where the pool finds them in a cache; so the
workspace does not grow with the batch.
"""

from __future__ import annotations

from collections.abc import Callable

from nnpack.algorithms.base import FLOAT_BYTES, ceil_div
from nnpack.algorithms.pooling import plan_pooling
from nnpack.codegen.target import Target
from nnpack.frozen import replace
from nnpack.plan import Plan, chain_plans, shifted
from nnpack.pool_problem import PoolProblem

__all__ = ["CACHED_PASS", "FOLLOWING", "pool_in_slices", "slice_images"]

# What details of plans say.
FOLLOWING = "pool in a following pass"

# Second-level caches that a pass may fill and still find its input in the last level.
CACHED_PASS = 4


def slice_images(batch: int, image_floats: int, target: Target) -> int:
    """Images of a slice, at least one; as even as may be."""
    fitting = max(1, CACHED_PASS * target.caches.l2 // (FLOAT_BYTES * image_floats))
    return ceil_div(batch, ceil_div(batch, fitting))


def pool_in_slices(
    build: Callable[[int], Plan], pool: PoolProblem, x_n: int, target: Target, threads: int
) -> Plan:
    """``build(images)``, of that many images into a dense y, then ``pool``, slice by slice.

    ``x_n`` is the distance of the images of the slot ``x``; those of a residual are dense. All
    slices have equally many images, so that one format of weights serves them; the last
    moves back so as to end with the batch.
    """
    image = pool.channels * pool.height * pool.width
    images = slice_images(pool.batch, image, target)
    plan = build(images)
    pooling = plan_pooling(replace(pool, batch=images), target, threads)
    chained = chain_plans(plan, pooling, FLOAT_BYTES * images * image)
    steps = {"x": x_n, "residual": image, "y": pool.y_strides[0]}
    stages = []
    for start in range(0, pool.batch, images):
        first = FLOAT_BYTES * min(start, pool.batch - images)
        offsets = {slot: first * step for slot, step in steps.items()}
        stages += [shifted(stage, offsets) for stage in chained.stages]
    return replace(chained, stages=tuple(stages), detail=f"{plan.detail}, {FOLLOWING}")
