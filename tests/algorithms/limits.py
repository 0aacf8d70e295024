"""How wrong an algorithm may be on given data, whatever they are."""

from __future__ import annotations

from nnpack.algorithms.base import Algorithm, direct_error
from nnpack.algorithms.cook_toom import CookToom
from nnpack.algorithms.polyphase import Polyphase
from nnpack.algorithms.winograd import WinogradAlgorithm
from nnpack.codegen.target import Target
from nnpack.kernels.cook_toom_shape import Columns
from nnpack.kernels.winograd_shape import TileShape
from nnpack.maths.accuracy import error_limit, worst_amplification
from nnpack.maths.cook_toom import cook_toom
from nnpack.maths.expectation import UNIT_ROUNDOFF
from nnpack.problem import Elu, Problem, Relu
from tests import oracle
from tests.plans import Operands


def absolute_limit(
    algorithm: Algorithm, problem: Problem, target: Target, operands: Operands
) -> float:
    """The greatest error that ``algorithm`` may make, epilogue included.

    Proved for direct summation (Higham, 2002, section 3.1) and for Winograd's algorithms; of
    others, many times what they expect of random data.
    """
    relative = _relative_limit(algorithm, problem, target)
    value = relative * _full_magnitude(problem, operands)
    scale = 1.0 if operands.scale is None else float(abs(operands.scale).max())
    bias = 0.0 if operands.bias is None else float(abs(operands.bias).max())
    result = scale * _full_magnitude(problem, operands) + bias
    if operands.residual is not None:
        result += float(abs(operands.residual).max())
    # The epilogue rounds a few times itself; expm1 is good to 3 units in the last place.
    return _slope(problem) * (scale * value + 8 * UNIT_ROUNDOFF * result)


def _relative_limit(algorithm: Algorithm, problem: Problem, target: Target) -> float:
    depth = problem.group_in_channels * problem.kernel[0] * problem.kernel[1]
    if isinstance(algorithm, CookToom):
        columns = Columns(algorithm.m, problem.kernel, problem.stride)
        terms = problem.group_in_channels * len(columns.steps)
        return error_limit(columns.factors, cook_toom(1, 1), terms)
    shapes = _shapes(algorithm, problem, target)
    if shapes:
        terms = problem.group_in_channels * problem.stride[0] * problem.stride[1]
        limits = (error_limit(shape.rows, shape.columns, terms) for shape in shapes)
        return max(limits) + _rounding_limit(algorithm, problem, target)
    expected = algorithm.estimate(problem, target).error
    if expected <= 1.001 * direct_error(depth):
        return (depth + 1) * 2 * UNIT_ROUNDOFF
    return 50 * expected


def _shapes(algorithm: Algorithm, problem: Problem, target: Target) -> list[TileShape]:
    """The tiles of Winograd's algorithms."""
    if isinstance(algorithm, WinogradAlgorithm):
        return [algorithm.shape(problem, target.lanes)]
    return algorithm.shapes(problem, target.lanes) if isinstance(algorithm, Polyphase) else []


def _rounding_limit(algorithm: Algorithm, problem: Problem, target: Target) -> float:
    """What rounding each transformed weight by 2^-11 of it can do, by the proof of `error_limit`.

    A hundredth more for what is subnormal, and for the roundings of what has been rounded.
    """
    if not algorithm.estimate(problem, target).rounding:
        return 0.0
    if isinstance(algorithm, CookToom):
        columns = Columns(algorithm.m, problem.kernel, problem.stride)
        terms = problem.group_in_channels * len(columns.steps)
        return error_limit(columns.factors, cook_toom(1, 1), terms)
    shapes = _shapes(algorithm, problem, target)
    worst = max(worst_amplification(s.rows) * worst_amplification(s.columns) for s in shapes)
    return 1.01 * 2.0**-11 * worst


def _full_magnitude(problem: Problem, operands: Operands) -> float:
    """max(conv(|x|, |weight|)) wherever kernel and image overlap at all."""
    borders = [max(e - 1, p) for e, p in zip(_twice(problem.extent), problem.padding, strict=True)]
    return oracle.conv2d_magnitude(
        operands.x,
        operands.weight,
        padding=tuple(borders),
        dilation=problem.dilation,
        groups=problem.groups,
    )


def _twice(pair: tuple[int, int]) -> tuple[int, int, int, int]:
    return pair[0], pair[0], pair[1], pair[1]


def _slope(problem: Problem) -> float:
    """The greatest slope of the activation: what it multiplies an error by at most."""
    match problem.epilogue.activation:
        case Relu(slope=slope):
            return max(1.0, abs(slope))
        case Elu(alpha=alpha):
            return max(1.0, abs(alpha))
        case _:
            return 1.2  # of Gelu, Silu and Mish at most 1.13
