"""Choices: which algorithm wins where it is clear-cut, and what a plan promises."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings

import nnpack
from nnpack.algorithms.table import ALGORITHMS, ALIASES, algorithm_names, find_algorithms
from nnpack.codegen.target import AVX2, AVX512, X86_64, CacheSizes, Target
from nnpack.plan import Slot
from nnpack.planner import check_algorithm, explain, make_plan
from nnpack.problem import Problem
from tests.native import name_of
from tests.problems import ConvCase, conv_problems, problem_count

KIB = 1024
# A server core as they are; fixed, so that choices do not depend on the machine of the test.
SERVER = dataclasses.replace(AVX512, caches=CacheSizes(32 * KIB, 1024 * KIB, 32 * KIB * KIB))
TARGETS = (SERVER, AVX2, X86_64)


def _conv(c: int, k: int, size: int, taps: int, **words: Any) -> Problem:
    words.setdefault("padding", taps // 2)
    groups = words.get("groups", 1)
    return Problem.conv2d((1, c, size, size), (k, c // groups, taps, taps), **words)


@pytest.mark.parametrize(
    ("problem", "families"),
    [
        (_conv(64, 64, 56, 3), {"winograd"}),
        (_conv(512, 512, 28, 3), {"winograd", "fourier"}),
        (_conv(128, 128, 28, 3, accuracy="fast"), {"winograd"}),
        (_conv(64, 256, 56, 1), {"strassen"}),
        (_conv(512, 512, 14, 1), {"strassen"}),
        (_conv(512, 512, 14, 1, accuracy="exact"), {"pointwise", "direct"}),
        (_conv(64, 16, 28, 1), {"pointwise", "direct"}),
        (_conv(3, 64, 224, 3), {"cook_toom"}),
        (_conv(32, 32, 112, 3, groups=32), {"direct", "depthwise"}),
        (_conv(256, 512, 56, 1, stride=2), {"strassen"}),
        (_conv(2048, 256, 28, 3, padding=12, dilation=12), {"polyphase"}),
    ],
    ids=lambda value: f"{value.kernel[0]}x{value.in_channels}" if hasattr(value, "kernel") else "",
)
@pytest.mark.parametrize("threads", [1, 4])
def test_clear_cut_layers_go_to_the_algorithm_made_for_them(
    problem: Problem, families: set[str], threads: int
) -> None:
    chosen = make_plan(problem, "auto", SERVER, threads).algorithm
    assert any(chosen.startswith(family) for family in families), chosen


def test_exact_takes_no_large_tiles() -> None:
    words: dict[str, Any] = {"accuracy": "exact"}
    chosen = make_plan(_conv(256, 256, 56, 3, **words), "auto", SERVER, 1).algorithm
    assert chosen in ("winograd_2", "winograd_3", "fourier_8", "fourier_16")


@pytest.mark.parametrize("target", TARGETS, ids=name_of)
def test_implicit_gemm_needs_no_more_workspace_for_larger_problems(target: Target) -> None:
    plans = [
        make_plan(
            Problem.conv2d((batch, 64, size, size), (64, 64, 3, 3)), "implicit_gemm", target, 1
        )
        for batch, size in ((1, 100), (1, 400), (64, 400))
    ]
    least, *others = (plan.workspace_bytes for plan in plans)
    assert all(other <= 1.2 * least for other in others)


@settings(max_examples=problem_count(0.3))
@given(case=conv_problems())
def test_any_problem_has_a_plan_that_says_what_its_kernels_need(case: ConvCase) -> None:
    problem = case.problem()
    if problem.is_empty:
        return
    for target in TARGETS:
        for threads in (1, 5):
            plan = make_plan(problem, "auto", target, threads)
            assert plan.threads == threads
            assert plan.detail
            for stage in plan.stages:
                assert set(stage.kernel.fields) <= set(stage.arguments)
                slots = [a for a in stage.arguments.values() if isinstance(a, Slot)]
                borrowed = [slot.offset for slot in slots if slot.name == "workspace"]
                assert all(0 <= offset < plan.workspace_bytes for offset in borrowed)
                assert stage.tasks > 0


@settings(max_examples=problem_count(0.3))
@given(case=conv_problems())
def test_the_choice_does_not_depend_on_the_number_of_threads(case: ConvCase) -> None:
    """Results must not, and different algorithms round differently."""
    problem = case.problem()
    if not problem.is_empty:
        names = {make_plan(problem, "auto", SERVER, n).algorithm for n in (1, 2, 16)}
        assert len(names) == 1


def test_the_fastest_of_those_that_may_be_used_is_chosen() -> None:
    explanation = explain(_conv(64, 64, 56, 3), "auto", SERVER, 1)
    seconds = {c.algorithm: c.seconds for c in explanation.candidates if c.refusal is None}
    assert explanation.chosen == min(seconds, key=lambda name: seconds[name] or 0)
    assert [c.algorithm for c in explanation.candidates] == [a.name for a in ALGORITHMS]


def test_weights_that_are_packed_at_every_run_make_small_formats_win() -> None:
    """Large tiles are the fastest, and packing their 51 MB of weights takes longer."""
    problem = Problem.conv2d((1, 512, 14, 14), (512, 512, 3, 3), padding=1)
    kept, packed = (explain(problem, "auto", SERVER, 1, packs=packs) for packs in (False, True))
    formats = {c.algorithm: c.packed_bytes or 0 for c in kept.candidates}
    assert formats[packed.chosen] < formats[kept.chosen]
    seconds = {c.algorithm: c.seconds for c in packed.candidates if c.refusal is None}
    assert packed.chosen == min(seconds, key=lambda name: seconds[name] or 0)
    plan = make_plan(problem, "auto", SERVER, 1, packs=True)
    assert plan.weight_format.nbytes == formats[packed.chosen]


def test_with_many_images_packing_matters_little() -> None:
    problem = Problem.conv2d((256, 64, 56, 56), (64, 64, 3, 3), padding=1)
    names = {
        make_plan(problem, "auto", SERVER, 1, packs=packs).algorithm for packs in (False, True)
    }
    assert len(names) == 1


def test_no_images_are_explained_as_one() -> None:
    stated = [Problem.conv2d((batch, 8, 20, 20), (8, 8, 3, 3), padding=1) for batch in (0, 1)]
    nothing, one = (explain(problem, "auto", SERVER, 1) for problem in stated)
    assert nothing.candidates == one.candidates


# Names


def test_names_are_algorithms_families_and_aliases() -> None:
    assert find_algorithms("auto") == ALGORITHMS
    assert [a.name for a in find_algorithms("winograd_4")] == ["winograd_4"]
    assert {"winograd_2", "winograd_4", "winograd_6"} <= {
        a.name for a in find_algorithms("winograd")
    }
    assert find_algorithms("wt8x8") == find_algorithms("winograd_6")
    for name in (*ALIASES, *algorithm_names()):
        assert check_algorithm(name) == name
        assert find_algorithms(name)


@pytest.mark.parametrize("name", ["implicit", "winograd_", "Winograd", "", None, 4, ["auto"]])
def test_other_names_are_refused(name: object) -> None:
    with pytest.raises(nnpack.AlgorithmError, match="is unknown; choose one of auto, "):
        check_algorithm(name)


def test_a_family_is_refused_with_every_reason() -> None:
    problem = _conv(8, 8, 20, 1)
    with pytest.raises(nnpack.AlgorithmError, match="^algorithm='winograd' needs 2 to") as error:
        make_plan(problem, "winograd", SERVER, 1)
    assert str(error.value).endswith("; use algorithm='auto'")


def test_too_large_an_error_is_a_refusal() -> None:
    problem = _conv(64, 64, 56, 3, accuracy="exact")
    with pytest.raises(nnpack.AlgorithmError, match="accuracy='exact' allows"):
        make_plan(problem, "winograd_6", SERVER, 1)
