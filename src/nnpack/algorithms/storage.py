"""What packed weights are kept as: float32, or float16 where that is asked for and does no harm."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Protocol

from nnpack.algorithms.base import Estimate, weight_arguments
from nnpack.codegen.target import Target
from nnpack.plan import Argument, Slot, Stage, WeightFormat
from nnpack.problem import Accuracy, Problem, WeightStorage

STORAGE_BYTES: Mapping[WeightStorage, int] = {"float32": 4, "float16": 2}

# What rounding transformed weights to half precision may add to the relative L2 error, and about
# 2.5 times as much to the greatest, as of all errors.
MAX_ROUNDING: Mapping[Accuracy, float] = {"fast": 5e-4, "exact": 0.0}
GREATEST_PER_L2 = 2.5

_GREATEST_HALF = 65504


def packed_storage(problem: Problem, target: Target) -> WeightStorage:
    """How weights are kept that are packed as they are.

    Without instructions that convert, halves would take longer than the traffic they save.
    """
    return problem.weight_storage if target.half_conversions else "float32"


def panel_format(problem: Problem, width: int, panels: int, storage: WeightStorage) -> WeightFormat:
    """The format of `PackWeights`: panels of ``width`` output channels."""
    from nnpack.kernels.weights import PackWeights, consecutive_weights

    words = weight_arguments(problem) | {"panels": panels, "packed": Slot("packed")}
    depth = problem.group_in_channels * problem.kernel[0] * problem.kernel[1]
    count = problem.groups * panels
    consecutive = consecutive_weights(problem.weights, problem.kernel)
    stage = Stage(PackWeights(width, storage, consecutive), count, words)
    nbytes = STORAGE_BYTES[storage] * count * depth * width
    return WeightFormat(("panels", width), nbytes, (stage,), storage)


def transformed_storage(problem: Problem, target: Target, rounding: float) -> WeightStorage:
    """How transformed weights are kept whose ``rounding`` adds so much relative L2 error."""
    if rounding > MAX_ROUNDING[problem.accuracy]:
        return "float32"
    return packed_storage(problem, target)


def rounded_estimate(
    seconds: float,
    error: tuple[float, float],
    rounding: tuple[float, float],
    storage: WeightStorage,
) -> Estimate:
    """The estimate of (relative L2, greatest) errors in float32 and from rounding weights."""
    if storage == "float32":
        return Estimate(seconds, error[1], error[0])
    relative_l2, greatest = map(math.hypot, error, rounding)
    return Estimate(seconds, greatest, relative_l2, rounding[0])


def transformed_weight(storage: WeightStorage, name: str) -> dict[str, Argument]:
    """The words of ``kernels.storage.scaled_fields``."""
    if storage == "float32":
        return {name: Slot("packed")}
    from nnpack.kernels.storage import SCALE_BYTES

    return {name: Slot("packed", SCALE_BYTES), "weight_scale": Slot("packed")}


class _Transformed(Protocol):
    """What a blocking says of transformed weights."""

    @property
    def storage(self) -> WeightStorage: ...
    @property
    def weight_bytes(self) -> int: ...


def transformed_format(
    description: tuple[object, ...],
    transform: Stage,
    problem: Problem,
    weights: _Transformed,
    gain: Callable[[], float],
) -> WeightFormat:
    """The format that ``transform`` makes; no transformed weight exceeds ``gain() * max|weight|``.

    ``weights`` says how those of one group are kept.
    """
    nbytes = problem.groups * weights.weight_bytes
    if weights.storage == "float32":
        return WeightFormat(description, nbytes, (transform,))
    from nnpack.kernels.storage import SCALE_BYTES, ScaleWeights

    exponent = math.floor(math.log2(_GREATEST_HALF / gain())) - 1
    words = weight_arguments(problem) | {"groups": problem.groups, "weight_scale": Slot("packed")}
    stages = Stage(ScaleWeights(exponent), 1, words), transform
    return WeightFormat(description, SCALE_BYTES + nbytes, stages, weights.storage)
