"""What an algorithm is, and what the algorithms share."""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

from nnpack.codegen.target import Target
from nnpack.frozen import dataclass
from nnpack.maths.expectation import UNIT_ROUNDOFF
from nnpack.plan import Argument, Plan, Slot
from nnpack.problem import Epilogue, Problem, TransposedProblem

FLOAT_BYTES = 4
CACHE_LINE = 64
# What parts the name of an algorithm from the decision that makes it a variant.
VARIANT_MARK = "@"


@dataclass(frozen=True)
class Estimate:
    """What a plan is expected to cost on one thread.

    ``seconds`` a run; ``error``: expected max|error| / max|reference| on random data;
    ``relative_l2``: the same in the Euclidean norm, 0 for direct summation, which always passes.
    ``rounding``: what of ``relative_l2`` comes from keeping transformed weights as halves.
    """

    seconds: float
    error: float
    relative_l2: float = 0.0
    rounding: float = 0.0


class Algorithm(Protocol):
    """One way to compute convolutions."""

    @property
    def name(self) -> str:
        """What ``algorithm=`` calls it."""

    def refusal(self, problem: Problem, target: Target) -> str | None:
        """Why it cannot do ``problem`` ("needs ..., got ..."), or None when it can."""

    def estimate(self, problem: Problem, target: Target) -> Estimate:
        """What it costs; must not depend on the number of threads, nor may what is computed."""

    def build(self, problem: Problem, target: Target, threads: int) -> Plan:
        """The plan for at most ``threads`` threads."""


class TransposedAlgorithm(Protocol):
    """One way to compute transposed convolutions other than phase by phase; as `Algorithm`."""

    @property
    def name(self) -> str:
        """What ``algorithm=`` calls it."""

    def refusal(self, problem: TransposedProblem, target: Target) -> str | None:
        """Why it cannot do ``problem``, or None when it can: then nothing else is considered."""

    def estimate(self, problem: TransposedProblem, target: Target) -> Estimate:
        """What it costs."""

    def build(self, problem: TransposedProblem, target: Target, threads: int) -> Plan:
        """The plan for at most ``threads`` threads."""


@runtime_checkable
class Varied(Protocol):
    """An algorithm that can be tuned: it takes some decisions in more than one way."""

    def variants(self, problem: Problem, target: Target) -> tuple[Algorithm, ...]:
        """The algorithm with other decisions, each under a name of its own: ``name@decision``.

        Only for problems it does not refuse.
        """


def list_variants(algorithm: Algorithm, problem: Problem, target: Target) -> tuple[Algorithm, ...]:
    """The variants of ``algorithm`` that are worth measuring on ``problem``; often none."""
    if isinstance(algorithm, Varied) and algorithm.refusal(problem, target) is None:
        return algorithm.variants(problem, target)
    return ()


def ceil_div(a: int, b: int) -> int:
    """The least integer not under ``a / b``."""
    return -(-a // b)


def round_up(a: int, b: int) -> int:
    """The least multiple of ``b`` not under ``a``."""
    return ceil_div(a, b) * b


def direct_relative_l2(depth: int) -> float:
    """Expected relative L2 error of a float32 running sum of ``depth`` products, on random data.

    A term 0.09 u^2 a step, as in `maths.accuracy`, and the rounding of the result; within 15 % of
    what sums of 9 to 9216 products show.
    """
    return UNIT_ROUNDOFF * math.sqrt(0.3 + 0.09 * depth)


def direct_error(depth: int) -> float:
    """Expected max|error| / max|reference| of the same sum: great sums have great errors.

    0.8 to 2.6 times the L2 error in single runs of 10 000 outputs.
    """
    return 2.0 * direct_relative_l2(depth)


def weight_arguments(problem: Problem) -> dict[str, Argument]:
    """The words of ``kernels.weights.WEIGHT_FIELDS``."""
    layout = problem.weights
    return {
        "weight": Slot("weight", FLOAT_BYTES * layout.offset),
        "weight_group": layout.group,
        "weight_out": layout.out,
        "weight_channel": layout.channel,
        "weight_row": layout.row,
        "weight_column": layout.column,
        "channels": problem.group_in_channels,
        "group_out_channels": problem.group_out_channels,
        "kernel_h": problem.kernel[0],
        "kernel_w": problem.kernel[1],
    }


def image_arguments(problem: Problem) -> dict[str, Argument]:
    """The words of x, and of the extents and the padding of images."""
    n, c, h = problem.x_strides
    return {
        "x": Slot("x"),
        "x_n": n,
        "x_c": c,
        "x_h": h,
        "height": problem.height,
        "width": problem.width,
        "out_height": problem.out_height,
        "out_width": problem.out_width,
        "pad_top": problem.padding[0],
        "pad_left": problem.padding[2],
    }


def store_arguments(problem: Problem) -> dict[str, Argument]:
    """The words of the output and of the epilogue."""
    n, c, h, w = problem.y_strides
    words: dict[str, Argument] = {"y": Slot("y"), "y_n": n, "y_c": c, "y_h": h, "y_w": w}
    return words | epilogue_words(problem.epilogue)


def epilogue_words(epilogue: Epilogue) -> dict[str, Argument]:
    """The words of ``kernels.epilogue.epilogue_fields``."""
    from nnpack.kernels.epilogue import RESIDUAL_STRIDES, epilogue_arguments

    words: dict[str, Argument] = {**epilogue_arguments(epilogue.kind, epilogue.parameters)}
    if epilogue.kind.scale:
        words["scale"] = Slot("scale")
    if epilogue.kind.bias:
        words["bias"] = Slot("bias")
    if epilogue.kind.per_channel:
        words["slopes"] = Slot("slopes")
    if epilogue.kind.residual:
        words["residual"] = Slot("residual")
    if epilogue.residual_strides is not None:
        words |= dict(zip(RESIDUAL_STRIDES, epilogue.residual_strides, strict=True))
    return words


def is_dense(problem: Problem) -> bool:
    """Whether the pixels of an output plane are consecutive."""
    return problem.y_strides[2:] == (problem.y_shape[3], 1)
