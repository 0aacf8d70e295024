"""What a plan borrows is bounded, whatever the batch and the image, and known before the run.

The bound is a quarter of the last-level cache a thread. Where channels are so many that the least
block of an algorithm is larger (2048 for 16x16 Fourier tiles on a server), it borrows that.
"""

from __future__ import annotations

import math
from typing import Any

import pytest

from nnpack.algorithms.base import Algorithm
from nnpack.algorithms.following import MOST_SUMS, CompleteAlgorithm
from nnpack.algorithms.table import ALGORITHMS
from nnpack.codegen.target import AVX2, AVX512, KIB, NEON, X86_64, CacheSizes, Target
from nnpack.frozen import replace
from nnpack.planner import make_plan
from nnpack.problem import Problem
from tests.native import name_of

# Nothing is compiled, so that every target can be planned for; the caches are a server's.
SERVER = CacheSizes(l1=32 * KIB, l2=1024 * KIB, l3=32 * KIB * KIB)
TARGETS = [replace(target, caches=SERVER) for target in (AVX512, AVX2, X86_64, NEON)]
SMALL_CACHES = [AVX512, AVX2, X86_64, NEON]

PROBLEMS: dict[str, tuple[tuple[int, int, int], tuple[int, ...], dict[str, Any]]] = {
    "3x3": ((256, 56, 56), (256, 256, 3, 3), {"padding": 1}),
    "3x3 large image": ((64, 1080, 1920), (64, 64, 3, 3), {"padding": 1}),
    "3x3 long rows": ((192, 9, 100000), (64, 192, 3, 3), {"padding": 1}),
    "3x3 deep": ((1024, 14, 14), (1024, 1024, 3, 3), {"padding": 1}),
    "3x3 dilated": ((512, 28, 28), (512, 512, 3, 3), {"padding": 4, "dilation": 4}),
    "3x3 strided": ((128, 56, 56), (128, 128, 3, 3), {"padding": 1, "stride": 2}),
    "3x3 grouped": ((256, 28, 28), (256, 8, 3, 3), {"padding": 1, "groups": 32}),
    "5x5": ((128, 64, 64), (128, 128, 5, 5), {"padding": 2}),
    "7x7": ((192, 224, 224), (64, 192, 7, 7), {"padding": 3}),
    "7x7 first": ((3, 1024, 1024), (64, 3, 7, 7), {"padding": 3, "stride": 2}),
    "1x7": ((192, 17, 17), (192, 192, 1, 7), {"padding": (0, 3)}),
    "1x1": ((2048, 56, 56), (512, 2048, 1, 1), {}),
    "1x1 strided": ((1024, 56, 56), (2048, 1024, 1, 1), {"stride": 2}),
    "depthwise": ((1024, 2000, 4000), (1024, 1, 3, 3), {"padding": 1, "groups": 1024}),
}
BY_ALGORITHM = pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda a: str(a.name))


def _problem(name: str, batch: int) -> Problem:
    image, weight_shape, words = PROBLEMS[name]
    return Problem.conv2d((batch, *image), weight_shape, **words)


@pytest.mark.parametrize("target", TARGETS, ids=name_of)
@BY_ALGORITHM
def test_workspace_is_within_a_quarter_of_the_last_level_cache_a_thread(
    algorithm: Algorithm, target: Target
) -> None:
    beyond = {}
    for name in PROBLEMS:
        for batch, threads in ((1, 1), (1, 2), (1, 16), (3, 2), (16, 16), (256, 1), (256, 2)):
            problem = _problem(name, batch)
            if algorithm.refusal(problem, target) is None:
                plan = algorithm.build(problem, target, threads)
                bound = threads * target.caches.l3 // 4
                if plan.workspace_bytes > bound:
                    beyond[name, batch, threads] = plan.workspace_bytes / bound
    assert not beyond


@pytest.mark.parametrize("target", [*TARGETS, *SMALL_CACHES], ids=name_of)
@BY_ALGORITHM
def test_workspace_stops_growing_with_the_batch(algorithm: Algorithm, target: Target) -> None:
    """However small the caches."""
    for name in PROBLEMS:
        problems = [_problem(name, batch) for batch in (64, 1024)]
        if algorithm.refusal(problems[0], target) is None:
            few, many = (algorithm.build(p, target, 2).workspace_bytes for p in problems)
            assert many <= max(1.15 * few, 2 * target.caches.l3 // 4), name


@pytest.mark.parametrize("target", TARGETS, ids=name_of)
def test_what_is_chosen_is_within_the_bound_up_to_1024_channels(target: Target) -> None:
    for channels in (256, 512, 1024):
        for kernel in (1, 2, 3, 4, 5, 7):
            shape = (channels, channels, kernel, kernel)
            problem = Problem.conv2d((16, channels, 20, 20), shape, padding=1)
            plan = make_plan(problem, "auto", target, 2)
            assert plan.workspace_bytes <= 2 * target.caches.l3 // 4, (channels, kernel)


@BY_ALGORITHM
def test_sums_for_statistics_take_little(algorithm: Algorithm) -> None:
    """Tiles of few outputs, pixels by themselves: what follows then sums larger pieces."""
    target, complete = TARGETS[0], CompleteAlgorithm(algorithm)
    for name in ("3x3", "1x1", "3x3 strided", "5x5"):
        for batch in (1, 64, 1024):
            problem = _problem(name, batch)
            if complete.refusal(problem, target) is not None:
                continue
            summing = replace(problem, epilogue=replace(problem.epilogue, statistics=True))
            plans = [complete.build(p, target, 2) for p in (problem, summing)]
            more = plans[1].workspace_bytes - plans[0].workspace_bytes
            y_bytes = 4 * math.prod(problem.y_shape)
            assert more <= max(target.caches.l3 // MOST_SUMS, y_bytes // 256) + 4096, name
