"""A first cost model: multiply-adds at the rate of the target, bytes at the rate of memory."""

from __future__ import annotations

import math

from nnpack.algorithms.base import FLOAT_BYTES
from nnpack.codegen.target import Target
from nnpack.problem import Problem

# Bytes a second that one core draws from memory and from its last-level cache; typical of servers.
MEMORY_BANDWIDTH = 14e9
CACHE_BANDWIDTH = 40e9


def product_seconds(problem: Problem, target: Target, steps: float) -> float:
    """Seconds for ``steps`` vector multiply-adds per image and group, and the traffic beside them.

    Multiplication and streaming overlap: what takes longer counts, and a fifth of the other.
    """
    arithmetic = problem.batch * problem.groups * steps / target.multiply_adds
    traffic = traffic_seconds(problem, target)
    return max(arithmetic, traffic) + 0.2 * min(arithmetic, traffic)


def traffic_seconds(problem: Problem, target: Target) -> float:
    """Seconds to read x and the weights and to write y, from where they fit."""
    floats = (
        math.prod(problem.x_shape) + math.prod(problem.y_shape) + math.prod(problem.weight_shape)
    )
    nbytes = FLOAT_BYTES * floats
    in_cache = nbytes < target.caches.l3 // 2
    return nbytes / (CACHE_BANDWIDTH if in_cache else MEMORY_BANDWIDTH)
