"""What an algorithm does not merge into its store, as stages that follow in the same plan.

A pool reads the outputs of the convolution from the workspace, some images at a time; mean and
variance are those of y. This is the one place that knows which epilogues are merged: the planner
sees every algorithm as a `CompleteAlgorithm`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol, TypeVar, runtime_checkable

from nnpack.algorithms.base import FLOAT_BYTES, Algorithm, Estimate, Varied
from nnpack.algorithms.channel_sums import (
    STATISTICS,
    Counts,
    sums_bytes,
    with_following_statistics,
)
from nnpack.algorithms.cost import cache_bandwidth
from nnpack.algorithms.slices import CACHED_PASS, FOLLOWING, pool_in_slices, slice_images
from nnpack.codegen.target import Target
from nnpack.frozen import replace
from nnpack.geometry import dense_strides
from nnpack.plan import Plan
from nnpack.pool_problem import PoolProblem
from nnpack.problem import Problem, TransposedProblem

# What details of plans say.
MERGED, STATISTICS_MERGED = "pool merged", "statistics merged"

_AnyProblem = TypeVar("_AnyProblem", Problem, TransposedProblem)


@runtime_checkable
class Merging(Protocol):
    """An algorithm that can merge a pool into its store."""

    def merges_pool(self, problem: Problem, target: Target) -> bool:
        """Whether it merges the pool of ``problem``, which it does not refuse without it."""


@runtime_checkable
class Summing(Protocol):
    """An algorithm that can find mean and variance of what it stores."""

    def merges_statistics(self, problem: Problem, target: Target) -> bool:
        """Whether it does for ``problem``, which it does not refuse without them.

        What is added to what must not depend on the number of threads.
        """


def bare(problem: _AnyProblem) -> _AnyProblem:
    """``problem`` without what may follow: y has all outputs, dense, and no statistics."""
    if not _asks_more(problem):
        return problem
    epilogue = replace(problem.epilogue, pool=None, statistics=False)
    return replace(problem, epilogue=epilogue, y_strides=dense_strides(problem.conv_shape))


def trimmed(problem: Problem) -> Problem:
    """``problem`` without an odd last row and column of outputs, which no pool looks at.

    A residual has them, as its strides say.
    """
    if problem.epilogue.pool is None:
        return problem
    n, c, h, _ = dense_strides(problem.conv_shape)
    strides = (n, c, h) if problem.epilogue.residual else None
    extents = (problem.height, problem.width)
    outputs = (problem.out_height, problem.out_width)
    padding = list(problem.padding)
    for axis in (0, 1):
        if outputs[axis] % 2:
            reach = (outputs[axis] - 2) * problem.stride[axis] + problem.extent[axis]
            padding[2 * axis + 1] = reach - extents[axis] - padding[2 * axis]
    top, bottom, left, right = padding
    epilogue = replace(problem.epilogue, residual_strides=strides)
    return replace(problem, padding=(top, bottom, left, right), epilogue=epilogue)


def following_passes(problem: Problem | TransposedProblem) -> str:
    """What details say of a plan of ``bare(problem)`` and the rest after it, "" for nothing."""
    if problem.epilogue.statistics:
        return STATISTICS
    return FOLLOWING if problem.epilogue.pool else ""


def with_following_passes(
    build: Callable[[_AnyProblem], Plan], problem: _AnyProblem, target: Target, threads: int
) -> Plan:
    """What ``build`` makes of ``bare(problem)``, its result pooled or summed by further stages.

    With statistics y must be dense.
    """
    plain, pool = bare(problem), problem.epilogue.pool
    batch, channels, *outputs = problem.conv_shape
    if pool is not None:
        stated = PoolProblem.pool2d(pool.kind, problem.conv_shape, 2)
        stated = replace(stated, y_strides=problem.y_strides)
        x_n = problem.x_strides[0]

        def some(images: int) -> Plan:
            return build(replace(plain, batch=images))

        return pool_in_slices(some, stated, x_n, target, threads)
    plan = build(plain)
    if problem.epilogue.statistics:
        counts = Counts(batch, channels, math.prod(outputs))
        return with_following_statistics(plan, counts, target)
    return plan


# Sums of pieces may take this share of the last-level cache, whatever the batch and the image.
MOST_SUMS = 16


class CompleteAlgorithm:
    """``inner`` for every epilogue: what it does not merge comes after it."""

    def __init__(self, inner: Algorithm) -> None:
        self.inner = inner
        self.name = inner.name

    def refusal(self, problem: Problem, target: Target) -> str | None:
        """That of the convolution alone."""
        return self.inner.refusal(bare(problem), target)

    def estimate(self, problem: Problem, target: Target) -> Estimate:
        """A pass over all outputs more, unless what is asked for is merged."""
        if self._merges(problem, target):
            return self.inner.estimate(trimmed(problem), target)
        estimate = self.inner.estimate(bare(problem), target)
        return replace(estimate, seconds=estimate.seconds + _pass_seconds(problem, target))

    def build(self, problem: Problem, target: Target, threads: int) -> Plan:
        """The plan of the algorithm, or that with another pass."""
        if self._merges(problem, target):
            plan = self.inner.build(trimmed(problem), target, threads)
            if not _asks_more(problem):
                return plan
            if problem.epilogue.pool:
                return replace(plan, detail=f"{plan.detail}, {MERGED}")
            # Pieces of few outputs have many sums: a pass that follows takes larger ones.
            if sums_bytes(plan) <= target.caches.l3 // MOST_SUMS:
                return replace(plan, detail=f"{plan.detail}, {STATISTICS_MERGED}")

        def build(plain: Problem) -> Plan:
            return self.inner.build(plain, target, threads)

        return with_following_passes(build, problem, target, threads)

    def variants(self, problem: Problem, target: Target) -> tuple[Algorithm, ...]:
        """The variants of the algorithm, each complete."""
        if not isinstance(self.inner, Varied):
            return ()
        asked = trimmed(problem) if self._merges(problem, target) else bare(problem)
        return tuple(CompleteAlgorithm(v) for v in self.inner.variants(asked, target))

    def _merges(self, problem: Problem, target: Target) -> bool:
        if not _asks_more(problem):
            return True
        inner = self.inner
        if problem.epilogue.statistics:
            return isinstance(inner, Summing) and inner.merges_statistics(problem, target)
        return isinstance(inner, Merging) and inner.merges_pool(problem, target)


def _asks_more(problem: Problem | TransposedProblem) -> bool:
    return problem.epilogue.pool is not None or problem.epilogue.statistics


def _pass_seconds(problem: Problem, target: Target) -> float:
    """Seconds for all outputs to be read again and pooled or summed.

    What outgrows a few second-level caches drives all else out of the last level, and comes no
    faster than from memory (8 and 16 MB: 12 GB/s on Zen 4).
    """
    images = max(1, problem.batch)
    written = math.prod(problem.y_shape) if problem.epilogue.pool else 0
    nbytes = FLOAT_BYTES * (math.prod(problem.conv_shape) + written)
    together = images
    if problem.epilogue.pool:
        together = slice_images(images, math.prod(problem.conv_shape[1:]), target)
    near = nbytes * together // images < CACHED_PASS * target.caches.l2
    return nbytes / (cache_bandwidth(target) if near else target.rates.memory_bandwidth)
