"""Batch normalisation and its gradients: sums by chunks, terms of each channel, application."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from nnpack.algorithms.base import FLOAT_BYTES, ceil_div, epilogue_words
from nnpack.algorithms.channel_sums import Workspace, chunk_words, extent_words, moment_stages
from nnpack.algorithms.elementary import ALONE_FLOATS, block_of, simple_plan, streaming_block
from nnpack.batch_norm_problem import BatchNormGradientProblem, BatchNormProblem
from nnpack.codegen.target import Target
from nnpack.epilogue import Prelu
from nnpack.kernels.stage import Kernel
from nnpack.plan import Argument, Plan, Slot, Stage

__all__ = ["plan_batch_norm", "plan_batch_norm_gradient"]

Problem = BatchNormProblem | BatchNormGradientProblem
Words = dict[str, Argument]

_AHEAD_BYTES = 4 << 20
"""Of both arrays, from which a channel is asked for while the one before it is written: it takes
10 to 15 % of the time of what is in memory, and costs 5 % where caches hold all."""

_CHANNELS_PER_THREAD = 8
"""Of so many the last one, which other threads wait for, is an eighth."""


def plan_batch_norm(problem: BatchNormProblem, target: Target, threads: int) -> Plan:
    """Slots x, y, gamma, beta and mean; in inference variance, in training outputs besides.

    Those are ``mean``, ``variance`` and ``inverse_std``, each (C,), and with ``running`` the slots
    running_mean and running_variance, which are changed as ``momentum`` says: see
    `kernels.normalization.Terms`.
    """
    from nnpack.kernels.normalization import Normalize

    words: Words = {"x": Slot("x"), "y": Slot("y"), **extent_words(problem)}
    words |= {**epilogue_words(problem.epilogue), "eps": problem.eps, **_gamma(problem)}
    if problem.beta:
        words["bias"] = Slot("beta")
    if problem.training:
        return _plan_training(problem, target, threads, words)
    words |= {"mean": Slot("mean"), "variance": Slot("variance")}
    given: Literal["plain", "gamma"] = "gamma" if problem.gamma else "plain"
    kernel = Normalize(problem.pixels > 1, problem.epilogue.kind, given)
    return simple_plan("batch_norm", (_apply(problem, target, kernel, words),), threads)


def _plan_training(problem: BatchNormProblem, target: Target, threads: int, words: Words) -> Plan:
    from nnpack.kernels.normalization import CombineMoments, Normalize, NormalizeChannels, Terms

    terms, space, kind = Terms(problem.gamma, problem.running), Workspace(), problem.epilogue.kind
    names = ("inverse_std", "running_mean", "running_variance", "momentum")
    found: Words = {**_slots(names), **_gamma(problem), "eps": problem.eps}
    if _goes_by_channels(problem, threads):
        chunks, _ = chunk_words(problem, target)
        parts = _chunk_slots(space, problem, chunks, ("mean", "square"))
        words |= {**found, **parts, **chunks}
        words |= {"batch_mean": Slot("mean"), "variance": Slot("variance")}
        stage = _by_channels(problem, NormalizeChannels(terms, kind), words)
        return simple_plan("batch_norm", (stage,), threads, space.nbytes)
    scale = space.take(problem.channels)
    moments = moment_stages(
        problem, target, space, Slot("x"), CombineMoments(terms), {**found, "slope": scale}
    )
    words |= {"mean": Slot("mean"), "scale": scale}
    last = _apply(problem, target, Normalize(problem.pixels > 1, kind), words)
    return simple_plan("batch_norm", (*moments, last), threads, space.nbytes)


def plan_batch_norm_gradient(
    problem: BatchNormGradientProblem, target: Target, threads: int
) -> Plan:
    """Slots x, grad, gamma, beta, mean and inverse_std; y, grad_gamma and grad_beta are written.

    ``beta`` is read behind an activation only.
    """
    from nnpack.kernels.normalization_gradient import (
        Behind,
        ChunkGradients,
        CombineGradients,
        GradientChannels,
        InputGradient,
    )

    constant, planes, space = not problem.training, problem.pixels > 1, Workspace()
    behind = None
    if problem.activation is not None:
        assert not isinstance(problem.activation, Prelu)
        behind = Behind(problem.activation.kind, problem.gamma, problem.beta)
    chunks, tasks = chunk_words(problem, target)
    names = ("x", "grad", "mean", "inverse_std", "y", "grad_gamma", "grad_beta")
    words: Words = {**_slots(names), **extent_words(problem), **_gamma(problem), **chunks}
    words |= _chunk_slots(space, problem, chunks, ("bias_sums", "slope_sums"))
    if behind is not None:
        words |= dict(zip(behind.numbers, problem.parameters, strict=True))
        words |= {"beta": Slot("beta")} if problem.beta else {}
    if _goes_by_channels(problem, threads):
        numbers = problem.batch * problem.channels * problem.pixels
        ahead = 2 * FLOAT_BYTES * numbers > _AHEAD_BYTES
        stage = _by_channels(
            problem, GradientChannels(problem.gamma, constant, behind, ahead), words
        )
        return simple_plan("batch_norm", (stage,), threads, space.nbytes)
    words |= {name: space.take(problem.channels) for name in ("factor", "slope", "bias")}
    stages = (
        Stage(ChunkGradients(planes, behind), tasks, words),
        Stage(
            CombineGradients(problem.gamma, constant),
            ceil_div(problem.channels, target.lanes),
            words,
        ),
        _apply(problem, target, InputGradient(planes, constant, behind), words),
    )
    return simple_plan("batch_norm", stages, threads, space.nbytes)


def _goes_by_channels(problem: Problem, threads: int) -> bool:
    """Whether one channel after the other is done whole, rather than all of them stage by stage.

    Either computes the same, bit by bit. Whole channels are read from memory once, and need no
    barriers; there must be enough of them for the threads to end at the same time.
    """
    few = problem.batch * problem.channels * problem.pixels <= ALONE_FLOATS
    return problem.pixels > 1 and (few or problem.channels >= _CHANNELS_PER_THREAD * threads)


def _chunk_slots(
    space: Workspace, problem: Problem, chunks: Mapping[str, int], names: Iterable[str]
) -> Words:
    count = chunks["image_chunks"] * chunks["parts"]
    return {name: space.take(count * problem.channels) for name in names}


def _by_channels(problem: Problem, kernel: Kernel, words: Words) -> Stage:
    """The stage that does whole channels, a block of them a task."""
    block = streaming_block(problem.batch * problem.pixels, problem.channels)
    return Stage(kernel, ceil_div(problem.channels, block), {**words, "block": block})


def _slots(names: Iterable[str]) -> Words:
    return {name: Slot(name) for name in names}


def _gamma(problem: Problem) -> Words:
    return {"gamma": Slot("gamma")} if problem.gamma else {}


def _apply(problem: Problem, target: Target, kernel: Kernel, words: Words) -> Stage:
    """The stage that writes every number, a block of planes or of rows of channels a task."""
    from nnpack.kernels.chunks import CHANNEL_VECTORS

    if problem.pixels > 1:
        planes = problem.batch * problem.channels
        block = streaming_block(problem.pixels, planes)
        tasks = ceil_div(planes, block)
    else:
        floats = CHANNEL_VECTORS * target.lanes
        block = block_of(floats)
        tasks = ceil_div(problem.channels, floats) * ceil_div(problem.batch, block)
    return Stage(kernel, tasks, {**words, "block": block})
