"""Strassen's algorithm at the edges of its halves, in its accuracy, and where it is chosen."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

import nnpack
from nnpack.algorithms.gemm_tiles import TileChoice
from nnpack.algorithms.strassen import Strassen
from nnpack.codegen.target import Target, host_target
from nnpack.kernels.convolve import Lanes
from nnpack.kernels.gemm import GemmTile
from nnpack.problem import Problem
from tests import oracle
from tests.guard import Side
from tests.native import TARGETS, name_of
from tests.plans import Operands, all_survive, runner

BY_TARGET = pytest.mark.parametrize("target", TARGETS, ids=name_of)


def _operands(shape: tuple[int, ...], outputs: int, seed: int = 3) -> Operands:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape, dtype=np.float32)
    weight = rng.standard_normal((outputs, shape[1], 1, 1), dtype=np.float32)
    return Operands(x, weight, None, None, None, None)


@BY_TARGET
@pytest.mark.parametrize("lanes", ["pixels", "channels"])
@pytest.mark.parametrize("stride", [1, 2])
def test_halves_of_every_size_are_right_and_within_memory(
    target: Target, lanes: Lanes, stride: int
) -> None:
    """Pixels and channels from one to beyond two tiles; odd depths; one channel."""
    strassen = Strassen(TileChoice(GemmTile(5, 2), lanes, 1.0))
    width = 2 * 2 * target.lanes
    alone = sorted({1, 2, target.lanes, target.lanes + 1, width - 1, width, width + 1})
    rows = (1, 5, 6, 9, 10, 11)
    sizes = [(a, r) for a, r in zip(alone, (*rows, 23), strict=False)]
    pairs = sizes if lanes == "pixels" else [(r, a) for a, r in sizes]

    def check(side: Side) -> None:
        for n, (pixels, outputs) in enumerate(pairs):
            operands = _operands((2, n + 1, 1, (pixels - 1) * stride + 1), outputs)
            words: dict[str, Any] = {"stride": (1, stride)}
            problem = Problem.conv2d(operands.x.shape, operands.weight.shape, **words)
            run = runner(strassen.build(problem, target, 1), problem, target)
            reference = oracle.conv2d(operands.x, operands.weight, **words)
            error = np.abs(run(operands.guarded(side), side) - reference).max()
            assert error <= 1e-5, (pixels, outputs, error)

    assert all_survive([partial(check, "before"), partial(check, "after")])


def test_the_error_is_the_one_expected() -> None:
    for depth in (5, 64, 700):
        operands = _operands((2, depth, 14, 14), 96)
        y = nnpack.conv2d(operands.x, operands.weight, algorithm="strassen").astype(np.float64)
        reference = oracle.conv2d(operands.x, operands.weight)
        problem = Problem.conv2d(operands.x.shape, operands.weight.shape)
        expected = Strassen().estimate(problem, host_target())
        error = np.linalg.norm(y - reference) / np.linalg.norm(reference)
        assert 0.7 * expected.relative_l2 <= error <= 1.15 * expected.relative_l2


def test_any_number_of_threads_gives_the_same_bits() -> None:
    operands = _operands((3, 37, 29, 31), 150)
    words: dict[str, Any] = {"algorithm": "strassen", "stride": 2, "padding": 1}
    results = [
        nnpack.conv2d(operands.x, operands.weight, threads=threads, **words)
        for threads in (1, 2, 5)
    ]
    assert all(np.array_equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ({"accuracy": "exact"}, "has an expected greatest error of .* allows"),
        ({"weight_storage": "float16"}, "needs weight_storage='float32', got 'float16'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_it_says_why_it_refuses(words: dict[str, Any], reason: str) -> None:
    weight = np.ones((64, 1024, 1, 1), np.float32)
    with pytest.raises(nnpack.AlgorithmError, match=reason):
        nnpack.Conv2d(weight, algorithm="strassen", **words)(np.ones((1, 1024, 8, 8), np.float32))
