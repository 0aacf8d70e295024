"""Matrix products as problems: fully connected layers and their gradients, validated here, once.

All are ``y[m, n] = epilogue(sum_k a[m, k] * b[n, k])`` and differ in what a and b are:

| | a | b |
|---|---|---|
| linear | x (rows, I) | weight (O, I) |
| its input gradient | grad_output (rows, O) | weight, transposed: (I, O) |
| its weight gradient | grad_output, transposed: (O, rows) | x, transposed: (I, rows) |
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import SupportsIndex

from nnpack.arguments import as_shape, check_one_of
from nnpack.epilogue import Activation, Epilogue, Pooling, ResidualPosition, Terms
from nnpack.errors import ProblemError
from nnpack.frozen import dataclass, replace
from nnpack.problem import MAX_ARRAY_BYTES, Accuracy, WeightStorage

__all__ = ["ColumnSumProblem", "MatrixStrides", "ProductProblem"]

MatrixStrides = tuple[int, int]
"""Strides in elements of (row, depth) or (column, depth), at least one of them 1."""


@dataclass(frozen=True, kw_only=True)
class ProductProblem:
    """``y[m, n] = epilogue(sum_k a[m, k] * b[n, k])``, y dense.

    The last extent of ``shape`` are the columns, all others together the rows. Scale and bias have
    a number for each column. With ``map_shape`` (c, h, w) the columns form a map, which the
    epilogue may pool.

    Raises ProblemError when a field is out of its range.
    """

    shape: tuple[int, ...]
    depth: int
    a_strides: MatrixStrides
    b_strides: MatrixStrides
    epilogue: Epilogue = Epilogue()
    accuracy: Accuracy = "fast"
    weight_storage: WeightStorage = "float32"
    map_shape: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        check_one_of("accuracy", self.accuracy, ("fast", "exact"))
        check_one_of("weight_storage", self.weight_storage, ("float32", "float16"))
        for name, floats in (
            ("x", self.rows * self.depth),
            ("weight", self.columns * self.depth),
            ("y", self.rows * self.columns),
        ):
            if 4 * floats > MAX_ARRAY_BYTES:
                raise ProblemError(f"{name} has {floats} elements, more than memory can hold")

    @property
    def rows(self) -> int:
        """Rows of the product."""
        return math.prod(self.shape[:-1])

    @property
    def columns(self) -> int:
        """Columns of the product."""
        return self.shape[-1]

    @property
    def unpooled_shape(self) -> tuple[int, ...]:
        """The shape of y before a pool, which is that of a residual."""
        return self.shape if self.map_shape is None else (*self.shape[:-1], *self.map_shape)

    @property
    def y_shape(self) -> tuple[int, ...]:
        """The shape of y."""
        if self.epilogue.pool is None or self.map_shape is None:
            return self.unpooled_shape
        channels, *outputs = self.map_shape
        return (*self.shape[:-1], channels, *self.epilogue.stored((outputs[0], outputs[1])))

    @property
    def is_empty(self) -> bool:
        """Whether y has no elements, so that there is nothing to compute."""
        return self.rows == 0

    @property
    def flops(self) -> int:
        """Multiplications and additions."""
        return 2 * self.rows * self.columns * self.depth

    @classmethod
    def linear(
        cls,
        x_shape: Sequence[SupportsIndex],
        weight_shape: Sequence[SupportsIndex],
        *,
        bias_shape: Sequence[SupportsIndex] | None = None,
        scale_shape: Sequence[SupportsIndex] | None = None,
        residual_shape: Sequence[SupportsIndex] | None = None,
        activation: Activation | None = None,
        residual_position: ResidualPosition = "before",
        accuracy: Accuracy = "fast",
        weight_storage: WeightStorage = "float32",
        map_shape: Sequence[SupportsIndex] | None = None,
        pool: Pooling | None = None,
        statistics: bool = False,
        x_strides: MatrixStrides | None = None,
        weight_strides: MatrixStrides | None = None,
    ) -> ProductProblem:
        """Return the problem that the arguments of ``nnpack.linear`` state.

        Strides of None are those of C-contiguous arrays.

        Raises ProblemError or DtypeError when the arguments state no well-formed product.
        """
        outputs, inputs = as_shape("weight", weight_shape, ("O", "I"))
        leading = _leading("x", x_shape, inputs, "I")
        shape = *leading, outputs
        places = None if map_shape is None else _as_map(map_shape, outputs)
        if places is not None and residual_shape is not None:
            _check_residual(tuple(residual_shape), (*leading, *places))
            residual_shape = shape
        if pool is not None and places is None:
            raise ProblemError(f"pool={pool} needs map_shape=(c, h, w), the form of the outputs")
        terms = Terms(scale_shape, bias_shape, residual_shape, residual_position, statistics)
        epilogue = replace(terms.epilogue(activation, shape, axis=-1), pool=pool)
        if pool is not None and places is not None and min(places[1:]) == 1:
            raise ProblemError(f"pool={pool} needs a map of at least 2x2, got map_shape={places}")
        return cls(
            shape=shape,
            depth=inputs,
            a_strides=x_strides or (inputs, 1),
            b_strides=weight_strides or (inputs, 1),
            epilogue=epilogue,
            accuracy=accuracy,
            weight_storage=weight_storage,
            map_shape=places,
        )

    @classmethod
    def input_gradient(
        cls,
        grad_output_shape: Sequence[SupportsIndex],
        weight_shape: Sequence[SupportsIndex],
        grad_output_strides: MatrixStrides | None = None,
        weight_strides: MatrixStrides | None = None,
        *,
        accuracy: Accuracy = "fast",
        accumulate: bool = False,
    ) -> ProductProblem:
        """Return the problem of ``nnpack.linear_input_gradient``; `linear` says the rest."""
        outputs, inputs = as_shape("weight", weight_shape, ("O", "I"))
        leading = _leading("grad_output", grad_output_shape, outputs, "O")
        row, step = weight_strides or (inputs, 1)
        return cls(
            shape=(*leading, inputs),
            depth=outputs,
            a_strides=grad_output_strides or (outputs, 1),
            b_strides=(step, row),
            epilogue=_gradient_epilogue(accumulate),
            accuracy=accuracy,
        )

    @classmethod
    def weight_gradient(
        cls,
        x_shape: Sequence[SupportsIndex],
        grad_output_shape: Sequence[SupportsIndex],
        x_strides: MatrixStrides | None = None,
        grad_output_strides: MatrixStrides | None = None,
        *,
        accuracy: Accuracy = "fast",
        accumulate: bool = False,
    ) -> ProductProblem:
        """Return the problem of ``nnpack.linear_weight_gradient``; `linear` says the rest."""
        *leading, inputs = _shape("x", x_shape, "I")
        *others, outputs = _shape("grad_output", grad_output_shape, "O")
        if leading != others:
            raise ProblemError(
                f"grad_output.shape={tuple(grad_output_shape)} must be that of x, "
                f"{tuple(x_shape)}, but for the last dimension"
            )
        x_row, x_step = x_strides or (inputs, 1)
        row, step = grad_output_strides or (outputs, 1)
        return cls(
            shape=(outputs, inputs),
            depth=math.prod(leading),
            a_strides=(step, row),
            b_strides=(x_step, x_row),
            epilogue=_gradient_epilogue(accumulate),
            accuracy=accuracy,
        )


@dataclass(frozen=True, kw_only=True)
class ColumnSumProblem:
    """``y[n] = epilogue(sum_m a[m, n])``, the columns consecutive: the gradient of a bias."""

    rows: int
    columns: int
    row_stride: int
    epilogue: Epilogue = Epilogue()

    @classmethod
    def bias_gradient(
        cls,
        grad_output_shape: Sequence[SupportsIndex],
        *,
        accumulate: bool = False,
        row_stride: int | None = None,
    ) -> ColumnSumProblem:
        """Return the problem of ``nnpack.linear_bias_gradient``."""
        *leading, outputs = _shape("grad_output", grad_output_shape, "O")
        return cls(
            rows=math.prod(leading),
            columns=outputs,
            row_stride=outputs if row_stride is None else row_stride,
            epilogue=_gradient_epilogue(accumulate),
        )


def _as_map(map_shape: Sequence[SupportsIndex], outputs: int) -> tuple[int, int, int]:
    """``(c, h, w)``, as many places as there are outputs."""
    channels, height, width = as_shape("map", map_shape, ("c", "h", "w"))
    if channels * height * width != outputs:
        raise ProblemError(
            f"map_shape={(channels, height, width)} has {channels * height * width} places; it "
            f"must have {outputs}, the O of weight (O, I)"
        )
    return channels, height, width


def _check_residual(found: tuple[SupportsIndex, ...], shape: tuple[int, ...]) -> None:
    if found != shape:
        raise ProblemError(f"residual.shape={found} must be {shape}, what it is added to")


def _gradient_epilogue(accumulate: bool) -> Epilogue:
    """What is added to is the residual, which a result may be written over."""
    return Epilogue(residual="after" if accumulate else None)


def _leading(name: str, shape: Sequence[SupportsIndex], last: int, axis: str) -> tuple[int, ...]:
    """All extents of ``shape`` but the last, which must be ``last``."""
    *leading, found = _shape(name, shape, axis)
    if found != last:
        raise ProblemError(
            f"{name}.shape={tuple(shape)} must end with {last}, the {axis} of weight (O, I)"
        )
    return tuple(leading)


def _shape(name: str, shape: Sequence[SupportsIndex], axis: str) -> tuple[int, ...]:
    """``shape``, whose last extent is called ``axis`` and at least 1."""
    if len(shape) == 0:
        raise ProblemError(f"{name}.shape=() must be (..., {axis})")
    # "N" is the one axis that may be 0.
    return as_shape(name, shape, (*("N",) * (len(shape) - 1), axis))
