"""Variants: the same algorithm with a decision taken otherwise, for tuning to try."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nnpack
from nnpack import wisdom
from nnpack.algorithms.base import list_variants
from nnpack.algorithms.table import ALGORITHMS, find_algorithms
from nnpack.codegen.target import host_target
from nnpack.planner import list_choices, make_plan
from nnpack.problem import Problem
from tests import oracle
from tests.plans import integers

CASES: list[dict[str, Any]] = [
    {"x": (2, 20, 9, 11), "weight": (33, 20, 1, 1)},
    {"x": (1, 20, 30, 31), "weight": (33, 20, 3, 3), "padding": 1},
    {"x": (3, 4, 17, 16), "weight": (6, 4, 5, 5), "padding": 2},
]


def _problem(case: dict[str, Any]) -> Problem:
    return Problem.conv2d(case["x"], case["weight"], padding=case.get("padding", 0))


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["weight"]))
@pytest.mark.parametrize("threads", [1, 2])
def test_every_variant_computes_the_convolution(case: dict[str, Any], threads: int) -> None:
    rng, target, problem = np.random.default_rng(0), host_target(), _problem(case)
    x, weight = integers(rng, case["x"]), integers(rng, case["weight"])
    padding = case.get("padding", 0)
    expected = oracle.conv2d(x, weight, padding=padding)
    variants = [choice for choice in list_choices(problem, "auto", target) if "@" in choice.name]
    assert len(variants) >= 4
    for variant in variants:
        wisdom.keep(problem, "auto", target, threads, wisdom.Outcome(variant.names, {}))
        assert make_plan(problem, "auto", target, threads).algorithm == variant.name
        y = nnpack.conv2d(x, weight, padding=padding, threads=threads)
        np.testing.assert_allclose(y, expected, rtol=0, atol=2e-2)
    nnpack.forget_wisdom()


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["weight"]))
def test_variants_are_named_after_their_algorithm_and_apart(case: dict[str, Any]) -> None:
    problem, target = _problem(case), host_target()
    for algorithm in ALGORITHMS:
        names = [variant.name for variant in list_variants(algorithm, problem, target)]
        assert all(name.startswith(f"{algorithm.name}@") for name in names)
        assert len(set(names)) == len(names)
        if algorithm.refusal(problem, target):
            assert not names


def test_only_tuning_knows_of_variants() -> None:
    assert not find_algorithms("winograd_6@half")
    with pytest.raises(nnpack.AlgorithmError, match="unknown"):
        nnpack.conv2d(
            np.ones((1, 1, 8, 8), np.float32),
            np.ones((1, 1, 3, 3), np.float32),
            algorithm="winograd_6@half",
        )


def test_workspace_of_larger_blocks_stays_bounded() -> None:
    target = host_target()
    problem = Problem.conv2d((64, 512, 56, 56), (512, 512, 3, 3), padding=1)
    for choice in list_choices(problem, "auto", target):
        plan = choice.algorithms[0].build(problem, target, 1)
        assert plan.workspace_bytes <= 1.1 * target.caches.l3 / 4, choice.name
