"""Batch normalisation, for inference and for training, its gradients, and its folding."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Literal, SupportsIndex, overload

import numpy as np

from nnpack.algorithms.batch_norm import plan_batch_norm, plan_batch_norm_gradient
from nnpack.arguments import as_flag, as_integer, as_number
from nnpack.arrays import Float32Array, as_float32, check_out
from nnpack.batch_norm_problem import (
    BatchNormGradientProblem,
    BatchNormProblem,
    normalized_extents,
)
from nnpack.epilogue import Activation, activation_arrays
from nnpack.errors import DtypeError, ProblemError
from nnpack.execution import Call, Runnable
from nnpack.functional.running import planned_program, result, run
from nnpack.functional.stating import kept
from nnpack.runtime.memory import address, empty_output
from nnpack.settings import resolve_num_threads

__all__ = [
    "batch_norm",
    "batch_norm_gradient",
    "batch_norm_gradient_program",
    "batch_norm_program",
    "fold_batch_norm",
    "running_weights",
]

Normalized = tuple[Float32Array, Float32Array, Float32Array]


@overload
def batch_norm(
    x: object,
    gamma: object = None,
    beta: object = None,
    mean: object = None,
    variance: object = None,
    *,
    eps: float = 1e-5,
    training: Literal[False] = False,
    momentum: float = 0.1,
    activation: Activation | None = None,
    threads: SupportsIndex | None = None,
    out: Float32Array | None = None,
) -> Float32Array: ...


@overload
def batch_norm(
    x: object,
    gamma: object = None,
    beta: object = None,
    mean: object = None,
    variance: object = None,
    *,
    eps: float = 1e-5,
    training: Literal[True],
    momentum: float = 0.1,
    activation: Activation | None = None,
    threads: SupportsIndex | None = None,
    out: Float32Array | None = None,
) -> Normalized: ...


def batch_norm(
    x: object,
    gamma: object = None,
    beta: object = None,
    mean: object = None,
    variance: object = None,
    *,
    eps: float = 1e-5,
    training: bool = False,
    momentum: float = 0.1,
    activation: Activation | None = None,
    threads: SupportsIndex | None = None,
    out: Float32Array | None = None,
) -> Float32Array | Normalized:
    """``activation(gamma * (x - mean) / sqrt(variance + eps) + beta)``, channel by channel.

    x is float32, (N, C), (N, C, L) or (N, C, H, W); the others are (C,). Without ``gamma`` it is 1,
    without ``beta`` 0. ``out`` may be x.

    With ``training`` mean and biased variance are those of x, found in float32 but safe at any
    mean, and (y, mean, inverse_std) is returned, what `batch_norm_gradient` needs. ``mean`` and
    ``variance`` are then running statistics, both or neither, and changed in place:
    ``(1 - momentum) * running + momentum * batch``, with the unbiased variance.

    Raises ProblemError or DtypeError for malformed arguments, before anything is written;
    ProblemError also when training on a single number a channel.
    """
    x, training = as_float32("x", x), as_flag("training", training)
    batch, channels, pixels = normalized_extents("x", x.shape)
    inputs = _vectors(channels, gamma=gamma, beta=beta, mean=mean, variance=variance)
    running = ("mean" in inputs) + ("variance" in inputs)
    if running == 1 or not (running or training):
        raise ProblemError("mean and variance must both be given; only training can do without")
    flags = "gamma" in inputs, "beta" in inputs, training, bool(training and running)
    words = (batch, channels, pixels), flags, resolve_num_threads(threads)
    if not training:
        if activation is None and type(eps) is float:
            call = _plain_inference(*words, eps, None)
        else:
            call = kept(_inference, words, eps, activation)
        y = empty_output(x.shape) if out is None else _checked(out, x, inputs)
        if call is not None:
            slopes = () if activation is None else activation_arrays(activation).values()
            call(np.ascontiguousarray(x), y, *map(np.ascontiguousarray, inputs.values()), *slopes)
        return y
    train = kept(_training, words, eps, activation)
    factor = as_number("momentum", momentum)
    y = empty_output(x.shape) if out is None else _checked(out, x, inputs)
    slopes = () if activation is None else activation_arrays(activation).values()
    moments = [np.empty(channels, np.float32) for _ in range(3)]
    arrays = [*map(np.ascontiguousarray, inputs.values())]
    if running:
        _check_writeable({**inputs, "x": x, "out": y}, mean=mean, variance=variance)
        moved, weights = arrays[-2:], running_weights(factor, batch * pixels)
        train(np.ascontiguousarray(x), y, *arrays, weights, *moments, *slopes)
        _copy_back(mean, moved[0])
        _copy_back(variance, moved[1])
    else:
        train(np.ascontiguousarray(x), y, *arrays, *moments, *slopes)
    return y, moments[0], moments[2]


def batch_norm_program(
    extents: tuple[int, int, int],
    flags: tuple[bool, bool, bool, bool],
    threads: int,
    eps: float,
    activation: Activation | None,
) -> Runnable | None:
    """The program of a batch normalisation, unless there is nothing to compute.

    Slots as in `plan_batch_norm`, of (batch, channels, pixels); ``flags``: gamma, beta, training,
    running.
    """
    gamma, beta, training, running = flags
    problem = BatchNormProblem(*extents, gamma, beta, eps, activation, training, running)
    return None if problem.is_empty else planned_program(plan_batch_norm, problem, threads)


def _inference(
    extents: tuple[int, int, int],
    flags: tuple[bool, bool, bool, bool],
    threads: int,
    eps: float,
    activation: Activation | None,
) -> Call | None:
    """What computes y of x, gamma, beta, mean, variance and slopes, of which some may be absent."""
    program = batch_norm_program(extents, flags, threads, eps, activation)
    if program is None:
        return None
    terms = [name for name, given in zip(("gamma", "beta"), flags, strict=False) if given]
    slopes = activation_arrays(activation)
    return program.bound("x", "y", *terms, "mean", "variance", *slopes)


# Of arguments that are looked up as they are: half the time of `kept`.
_plain_inference = functools.lru_cache(maxsize=1024)(_inference)


def _training(
    extents: tuple[int, int, int],
    flags: tuple[bool, bool, bool, bool],
    threads: int,
    eps: float,
    activation: Activation | None,
) -> Call:
    """What computes y, mean, variance and inverse_std, of x, gamma, beta and running moments.

    In the order x, y, gamma, beta, running mean and variance, momentum, the other results, slopes.
    """
    program = batch_norm_program(extents, flags, threads, eps, activation)
    assert program is not None
    terms = [name for name, given in zip(("gamma", "beta"), flags, strict=False) if given]
    running = ("running_mean", "running_variance", "momentum") if flags[3] else ()
    found = ("mean", "variance", "inverse_std")
    return program.bound("x", "y", *terms, *running, *found, *activation_arrays(activation))


def batch_norm_gradient_program(
    extents: tuple[int, int, int],
    flags: tuple[bool, bool, bool],
    threads: int,
    activation: Activation | None = None,
) -> Runnable:
    """The program of the gradients, slots as in `plan_batch_norm_gradient`.

    Of (batch, channels, pixels); ``flags``: gamma, training, beta.
    """
    problem = BatchNormGradientProblem(*extents, *flags, activation)
    return planned_program(plan_batch_norm_gradient, problem, threads)


def batch_norm_gradient(
    grad_output: object,
    x: object,
    gamma: object,
    mean: object,
    inverse_std: object,
    *,
    beta: object = None,
    activation: Activation | None = None,
    training: bool = True,
    threads: SupportsIndex | None = None,
    out: Float32Array | None = None,
) -> Normalized:
    """The gradients of x, gamma and beta of a `batch_norm`.

    ``mean`` and ``inverse_std`` are what training returned. With ``training=False`` they are
    constants, of which x had no part: the running mean, and ``1 / sqrt(variance + eps)``.
    ``gamma`` may be None. ``out``, for the gradient of x, may be ``grad_output`` or x.

    With an ``activation``, any but `Prelu`, ``grad_output`` is the gradient of its output; its
    input is computed again from x and from ``beta``, which nothing else needs and may be None. At
    corners its derivative is as in `activation_gradient`.

    Raises ProblemError or DtypeError for malformed arguments, before anything is written.
    """
    x, grad = as_float32("x", x), as_float32("grad_output", grad_output)
    batch, channels, pixels = normalized_extents("x", x.shape)
    if grad.shape != x.shape:
        raise ProblemError(f"grad_output.shape={grad.shape} must be that of x, {x.shape}")
    given = {"gamma": gamma, "mean": mean, "inverse_std": inverse_std, "beta": beta}
    parameters = _vectors(channels, **given)
    if not {"mean", "inverse_std"} <= parameters.keys():
        raise DtypeError("mean and inverse_std must be arrays, not None")
    flags = "gamma" in parameters, as_flag("training", training), "beta" in parameters
    words = (batch, channels, pixels), flags, resolve_num_threads(threads)
    if activation is not None:
        BatchNormGradientProblem(*words[0], *flags, activation)  # which refuses what is malformed
    inputs = {"x": x, "grad_output": grad, **parameters}
    grad_x = result(x.shape, out, inputs, in_place=True)
    grad_gamma, grad_beta = np.zeros((2, channels), np.float32)
    if batch:
        arrays = _dense({"x": x, "grad": grad, **parameters})
        if activation is not None and address(arrays["x"]) == address(grad_x):
            # What the activation passes on may be stored in y before all of x is read.
            arrays["x"] = arrays["x"].copy()
        results = {"y": grad_x, "grad_gamma": grad_gamma, "grad_beta": grad_beta}
        program = kept(batch_norm_gradient_program, words, activation)
        run(program, {**arrays, **results})
    return grad_x, grad_gamma, grad_beta


def fold_batch_norm(
    weight: object,
    bias: object,
    gamma: object,
    beta: object,
    mean: object,
    variance: object,
    eps: float = 1e-5,
    *,
    transposed: bool = False,
    groups: SupportsIndex = 1,
) -> tuple[Float32Array, Float32Array]:
    """The weight and the bias of one layer for a layer and the batch normalisation behind it.

    ``weight`` is (O, ...): of a convolution, (O, I/groups, kh, kw) or (O, I/groups, k), or of a
    fully connected layer, (O, I); with ``transposed`` (I, O/groups, ...). All others are (O,);
    ``bias``, ``gamma`` and ``beta`` may be None. Computed in float64, rounded once:
    ``weight * gamma / deviation`` and ``(bias - mean) * gamma / deviation + beta``.

    Raises ProblemError or DtypeError for malformed arguments, and ProblemError where the deviation
    ``sqrt(variance + eps)`` is not positive.
    """
    weights = as_float32("weight", weight)
    if weights.ndim < 2:
        raise ProblemError(f"weight.shape={weights.shape} must have 2 dimensions or more")
    group_count = as_integer("groups", groups, least=1)
    transposed = as_flag("transposed", transposed)
    if transposed and weights.shape[0] % group_count:
        raise ProblemError(f"groups={groups} must divide weight.shape[0]={weights.shape[0]}")
    channels = weights.shape[1] * group_count if transposed else weights.shape[0]
    terms = _vectors(channels, bias=bias, gamma=gamma, beta=beta, mean=mean, variance=variance)
    if not {"mean", "variance"} <= terms.keys():
        raise DtypeError("mean and variance must be arrays, not None")
    wide = {name: array.astype(np.float64) for name, array in terms.items()}
    spread = wide["variance"] + as_number("eps", eps)
    if not (spread > 0).all():
        raise ProblemError(f"variance + eps must be positive, got {spread[~(spread > 0)][0]}")
    factor = wide.get("gamma", 1.0) / np.sqrt(spread)
    shift = (wide.get("bias", 0.0) - wide["mean"]) * factor + wide.get("beta", 0.0)
    if transposed:
        grouped = weights.reshape(group_count, -1, *weights.shape[1:])
        columns = factor.reshape(group_count, 1, -1, *(1,) * (weights.ndim - 2))
        folded = (grouped * columns).reshape(weights.shape)
    else:
        folded = weights * factor.reshape(-1, *(1,) * (weights.ndim - 1))
    return folded.astype(np.float32), shift.astype(np.float32)


def _checked(out: object, x: Float32Array, inputs: Mapping[str, Float32Array]) -> Float32Array:
    return check_out(out, x.shape, (*inputs.items(), ("x", x)), in_place=True)


def _vectors(channels: int, **values: object) -> dict[str, Float32Array]:
    """Those of ``values`` that are not None, of the right length."""
    found = {}
    for name, value in values.items():
        if value is None:
            continue
        vector = as_float32(name, value, 1)
        if len(vector) != channels:
            raise ProblemError(
                f"{name}.shape={vector.shape} must be ({channels},), one number a channel"
            )
        found[name] = vector
    return found


def _dense(arrays: Mapping[str, Float32Array]) -> dict[str, Float32Array]:
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def _check_writeable(others: Mapping[str, Float32Array], **running: object) -> None:
    """Raise ProblemError unless running statistics can be changed, and nothing else is by that."""
    for name, value in running.items():
        if value is None:
            continue
        if not (isinstance(value, np.ndarray) and value.flags.writeable):
            raise ProblemError(f"{name} must be a writeable numpy.ndarray, for training changes it")
        for other, array in others.items():
            if other != name and np.may_share_memory(value, array):
                raise ProblemError(f"{name} overlaps {other}, and training changes it; copy it")


@functools.lru_cache(maxsize=256)
def running_weights(momentum: float, count: int) -> Float32Array:
    """What running moments keep, and what they take of mean and biased variance of ``count``.

    The slot ``momentum``.
    """
    unbiased = momentum * count / (count - 1)
    weights = np.array([1.0 - momentum, momentum, unbiased], np.float32)
    weights.setflags(write=False)
    return weights


def _copy_back(running: object, moved: Float32Array) -> None:
    """Write running moments where they came from, unless that is where they are."""
    assert isinstance(running, np.ndarray)
    if address(running) != address(moved):
        running[...] = moved
