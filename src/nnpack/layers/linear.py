"""The fully connected layer: weights packed ahead, plans kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, SupportsIndex

from nnpack.algorithms.product import estimate_product, plan_packed_product
from nnpack.arguments import as_flag
from nnpack.arrays import Float32Array, as_float32
from nnpack.codegen.target import Target, host_target
from nnpack.explanation import Candidate, Explanation
from nnpack.functional.matrices import as_matrix, matrix_strides
from nnpack.layers.base import Layer, Weights, as_shape_argument
from nnpack.linear_problem import ProductProblem
from nnpack.plan import Plan
from nnpack.problem import Accuracy, Activation, Pooling, ResidualPosition, WeightStorage
from nnpack.settings import get_num_threads

__all__ = ["Linear"]


class Linear(Layer):
    """``activation(scale * (x @ weight.T) + bias + residual)``, weights packed once.

    ``weight`` is (O, I), ``scale`` and ``bias`` (O,); all are copied. A layer takes x (..., I) with
    any dimensions before the last, and any number of threads may call it at once. The weights are
    packed in one way for any number of rows. See `nnpack.linear`.

    ``weight_storage="float16"``: weights are rounded to half precision, to nearest even, and kept
    so, which halves what is read of them; all other error is as ever, against the rounded weights.

    Raises ProblemError or DtypeError for malformed arguments.
    """

    _weight_ndim = 2

    def __init__(
        self,
        weight: object,
        bias: object = None,
        *,
        scale: object = None,
        activation: Activation | None = None,
        residual_position: ResidualPosition = "before",
        map_shape: Sequence[SupportsIndex] | None = None,
        pool: Pooling | None = None,
        statistics: bool = False,
        accuracy: Accuracy = "fast",
        threads: SupportsIndex | None = None,
        weight_storage: WeightStorage = "float32",
    ) -> None:
        options = {
            "activation": activation,
            "residual_position": residual_position,
            "map_shape": map_shape,
            "pool": pool,
            "statistics": statistics,
            "accuracy": accuracy,
            "weight_storage": weight_storage,
        }
        super().__init__(weight, bias, scale, options, threads)

    def explain(self, x_shape: Sequence[SupportsIndex], *, residual: bool = False) -> Explanation:
        """How an input of ``x_shape`` is computed, with ``residual`` where one is added.

        No rows are explained as one. Raises ProblemError when the layer cannot take such an input.
        """
        shape = as_shape_argument(x_shape, "(..., I)")
        problem = self._problem(self._weights, shape, None)
        if problem.is_empty:
            problem = self._problem(self._weights, shape[-1:], None)
        problem = self._adding(problem) if as_flag("residual", residual) else problem
        target = host_target()
        plan = plan_packed_product(problem, target, self._threads or get_num_threads())
        estimate = estimate_product(problem, target)
        candidate = Candidate(
            plan.algorithm,
            None,
            estimate.seconds,
            estimate.error,
            plan.workspace_bytes,
            plan.weight_format.nbytes,
            plan.detail,
            packed_storage=plan.weight_format.storage,
        )
        return Explanation(problem, plan.algorithm, (candidate,))

    def _as_input(self, x: object) -> Float32Array:
        return as_matrix(as_float32("x", x))

    def _check_weights(self, weights: Weights) -> None:
        self._problem(weights, (0, max(1, weights.arrays["weight"].shape[1])), None)

    def _problem(
        self, weights: Weights, shape: tuple[SupportsIndex, ...], x: Float32Array | None
    ) -> ProductProblem:
        arrays = weights.arrays.items()
        shapes: dict[str, Any] = {f"{n}_shape": a.shape for n, a in arrays if n != "slopes"}
        words = {**self._options, **shapes}
        strides = None if x is None else matrix_strides(x)
        return ProductProblem.linear(shape, **words, x_strides=strides)

    def _residual_shape(self, problem: ProductProblem) -> tuple[int, ...]:
        return problem.unpooled_shape

    def _channels(self, problem: ProductProblem) -> int:
        return problem.columns

    def _make_plan(
        self, weights: Weights, problem: ProductProblem, target: Target, threads: int
    ) -> Plan:
        return plan_packed_product(problem, target, threads)
