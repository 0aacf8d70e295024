"""The ordered table of algorithms for weight gradients."""

from __future__ import annotations

from nnpack.algorithms.table import ALIASES
from nnpack.algorithms.weight_gradient_base import WeightGradientAlgorithm
from nnpack.algorithms.weight_gradient_depthwise import WeightGradientDepthwise
from nnpack.algorithms.weight_gradient_direct import WeightGradientDirect
from nnpack.algorithms.weight_gradient_fourier import WeightGradientFourier
from nnpack.algorithms.weight_gradient_gemm import WeightGradientGemm
from nnpack.algorithms.weight_gradient_row_dots import WeightGradientRowDots
from nnpack.algorithms.weight_gradient_rows import WeightGradientRows
from nnpack.algorithms.weight_gradient_winograd import WeightGradientWinograd

WEIGHT_GRADIENT_ALGORITHMS: tuple[WeightGradientAlgorithm, ...] = (
    *(WeightGradientWinograd(m) for m in range(2, 8)),
    WeightGradientFourier(8),
    WeightGradientFourier(16),
    WeightGradientDepthwise(),
    WeightGradientDirect(),
    WeightGradientRowDots(),
    WeightGradientRows(),
    WeightGradientGemm(),
)


def find_gradient_algorithms(name: str) -> tuple[WeightGradientAlgorithm, ...]:
    """The algorithms that ``algorithm=name`` allows: one, a family, or all; none if unknown."""
    wanted = ALIASES.get(name, name)
    found = WEIGHT_GRADIENT_ALGORITHMS
    if wanted == "auto":
        return found
    return tuple(a for a in found if wanted in (a.name, a.name.rpartition("_")[0]))
