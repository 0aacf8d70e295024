"""Batch normalisation and its gradients: sums by chunks, terms of each channel, application."""

from __future__ import annotations

from typing import Literal

from nnpack.algorithms.base import ceil_div, epilogue_words
from nnpack.algorithms.channel_sums import Workspace, chunk_words, extent_words, moment_stages
from nnpack.algorithms.elementary import block_of, simple_plan, streaming_block
from nnpack.batch_norm_problem import BatchNormGradientProblem, BatchNormProblem
from nnpack.codegen.target import Target
from nnpack.plan import Argument, Plan, Slot, Stage

__all__ = ["plan_batch_norm", "plan_batch_norm_gradient"]

Problem = BatchNormProblem | BatchNormGradientProblem
Words = dict[str, Argument]


def plan_batch_norm(problem: BatchNormProblem, target: Target, threads: int) -> Plan:
    """Slots x, y, gamma, beta and mean; in inference variance, in training outputs besides.

    Those are ``mean``, ``variance`` and ``inverse_std``, each (C,).
    """
    from nnpack.kernels.normalization import Normalize

    epilogue, space = problem.epilogue, Workspace()
    stages: tuple[Stage, ...] = ()
    words: Words = {"x": Slot("x"), "y": Slot("y"), "mean": Slot("mean"), **extent_words(problem)}
    words |= epilogue_words(epilogue)
    if problem.beta:
        words["bias"] = Slot("beta")
    if problem.training:
        words["scale"] = scale = space.take(problem.channels)
        stages = _moments(problem, target, space, scale)
        kernel = Normalize(problem.pixels > 1, epilogue.kind)
    else:
        words |= {"variance": Slot("variance"), "eps": problem.eps, **_gamma(problem)}
        given: Literal["plain", "gamma"] = "gamma" if problem.gamma else "plain"
        kernel = Normalize(problem.pixels > 1, epilogue.kind, given)
    last = _apply(problem, target, kernel, words)
    return simple_plan("batch_norm", (*stages, last), threads, space.nbytes)


def plan_batch_norm_gradient(
    problem: BatchNormGradientProblem, target: Target, threads: int
) -> Plan:
    """Slots x, grad, gamma, mean and inverse_std; y, grad_gamma and grad_beta are written."""
    from nnpack.kernels.normalization_gradient import (
        ChunkGradients,
        CombineGradients,
        InputGradient,
    )

    constant = not problem.training
    space = Workspace()
    chunks, tasks = chunk_words(problem, target)
    count = chunks["image_chunks"] * chunks["parts"]
    names = ("factor",) if constant else ("factor", "slope", "bias")
    terms: Words = {name: space.take(problem.channels) for name in names}
    sums: Words = {
        name: space.take(count * problem.channels) for name in ("bias_sums", "slope_sums")
    }
    arrays: Words = {name: Slot(name) for name in ("x", "grad", "mean")}
    planes = problem.pixels > 1
    extents = extent_words(problem)
    first = Stage(ChunkGradients(planes), tasks, {**arrays, **sums, **extents, **chunks})
    outputs: Words = {name: Slot(name) for name in ("inverse_std", "grad_gamma", "grad_beta")}
    combine = Stage(
        CombineGradients(problem.gamma, constant),
        ceil_div(problem.channels, target.lanes),
        {**sums, **outputs, **terms, **extents, **chunks, **_gamma(problem)},
    )
    words = {**arrays, **terms, **extents, "y": Slot("y")}
    last = _apply(problem, target, InputGradient(planes, constant), words)
    return simple_plan("batch_norm", (first, combine, last), threads, space.nbytes)


def _moments(
    problem: BatchNormProblem, target: Target, space: Workspace, slope: Slot
) -> tuple[Stage, ...]:
    """The stages that find the slots mean, variance and inverse_std, and ``slope``."""
    from nnpack.kernels.normalization import CombineMoments

    found: Words = {
        "inverse_std": Slot("inverse_std"),
        "slope": slope,
        "eps": problem.eps,
        **_gamma(problem),
    }
    combine = CombineMoments(terms=True, gamma=problem.gamma)
    return moment_stages(problem, target, space, Slot("x"), combine, found)


def _gamma(problem: Problem) -> Words:
    return {"gamma": Slot("gamma")} if problem.gamma else {}


def _apply(problem: Problem, target: Target, kernel: object, words: Words) -> Stage:
    """The stage that writes every number, a block of planes or of rows of channels a task."""
    if problem.pixels > 1:
        planes = problem.batch * problem.channels
        block = streaming_block(problem.pixels, planes)
        tasks = ceil_div(planes, block)
    else:
        block = block_of(target.lanes)
        tasks = ceil_div(problem.channels, target.lanes) * ceil_div(problem.batch, block)
    return Stage(kernel, tasks, {**words, "block": block})  # type: ignore[arg-type]
