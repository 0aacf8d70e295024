"""Convolutional layers: weights packed ahead and plans kept, for any batch and image size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, SupportsIndex

from nnpack.arguments import (
    MAX_INTEGER,
    IntOrPair,
    PaddingLike,
    as_flag,
    as_integer,
    as_number,
    as_pair,
)
from nnpack.arrays import Float32Array, as_float32, element_strides, with_unit_column_stride
from nnpack.codegen.target import Target, host_target
from nnpack.errors import AlgorithmError, ProblemError
from nnpack.layers.base import Layer, Weights, as_shape_argument
from nnpack.plan import Plan
from nnpack.planner import (
    AnyProblem,
    Explanation,
    check_algorithm,
    check_applicable,
    explain,
    make_plan,
    writes_early,
)
from nnpack.problem import (
    Accuracy,
    Activation,
    Pooling,
    Problem,
    ResidualPosition,
    TransposedProblem,
    WeightStorage,
)
from nnpack.settings import get_num_threads

__all__ = ["Conv2d", "ConvTranspose2d"]


# So many windows long and wide is the larger image that a named algorithm is asked about.
_SAMPLE_WINDOWS = 16


class _ConvolutionLayer(Layer):
    """What forward and transposed layers share: the choice of an algorithm, and tuning."""

    _weight_ndim = 4
    _takes_slices = True

    def __init__(
        self,
        weight: object,
        bias: object,
        scale: object,
        options: dict[str, Any],
        algorithm: str,
        threads: SupportsIndex | None,
        tune: bool,
    ) -> None:
        self._tune = as_flag("tune", tune)
        self._algorithm = check_algorithm(algorithm)
        super().__init__(weight, bias, scale, options, threads)

    def explain(self, x_shape: Sequence[SupportsIndex], *, residual: bool = False) -> Explanation:
        """What every algorithm answers to an input of ``x_shape``, and which one is used.

        With ``residual`` of calls that add one.

        Raises ProblemError when the layer cannot take such an input, AlgorithmError when the
        algorithm it was made with cannot do it.
        """
        shape = as_shape_argument(x_shape, "(N, C, H, W)")
        problem: Any = self._problem(self._weights, shape, None)
        problem = self._adding(problem) if as_flag("residual", residual) else problem
        threads = self._threads or get_num_threads()
        return explain(problem, self._algorithm, host_target(), threads)

    def tune(
        self, x_shape: Sequence[SupportsIndex], *, seconds: float | None = None
    ) -> Explanation:
        """Measure all that can do an input of ``x_shape``, and use the fastest from now on.

        That takes about ``seconds`` (half a second by default) and the compilation of what is
        measured. The outcome is kept as wisdom, for later processes too; layers that were called
        with such an input before keep what they have. It holds for this number of threads only:
        results may then differ in rounding from those of another number.

        Raises ProblemError when the layer cannot take such an input.
        """
        from nnpack.tuning import TUNING_SECONDS, tune_problem

        weights, shape = self._weights, as_shape_argument(x_shape, "(N, C, H, W)")
        problem = self._problem(weights, shape, None)
        threads, target = self._threads or get_num_threads(), host_target()
        seconds = TUNING_SECONDS if seconds is None else as_number("seconds", seconds)
        if not seconds > 0:
            raise ProblemError(f"seconds={seconds} must be greater than 0")
        arrays = weights.as_float32()
        tune_problem(problem, self._algorithm, target, threads, arrays, seconds=seconds)
        with self._lock:
            for key in [key for key in weights.prepared if key[0] == problem.x_shape]:
                del weights.prepared[key]
        return explain(problem, self._algorithm, target, threads)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "algorithm": self._algorithm, "tune": self._tune}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._algorithm = state["algorithm"]
        self._tune = state["tune"]

    def _as_input(self, x: object) -> Float32Array:
        return with_unit_column_stride(as_float32("x", x, 4))

    def _problem(
        self, weights: Weights, shape: tuple[SupportsIndex, ...], x: Float32Array | None
    ) -> AnyProblem:
        raise NotImplementedError

    def _check_algorithm(self, weights: Weights, channels: int) -> None:
        """Refuse a named algorithm here that refuses images of one window and larger ones."""
        if self._algorithm == "auto":
            return
        window = weights.arrays["weight"].shape[2:]
        dilation = as_pair("dilation", self._options["dilation"], least=1)
        extents = [n * d for n, d in zip(window, dilation, strict=True)]

        def check(windows: int) -> None:
            shape = (1, channels, *(n * windows for n in extents))
            check_applicable(self._problem(weights, shape, None), self._algorithm, host_target())

        try:
            check(_SAMPLE_WINDOWS)
        except AlgorithmError as error:
            try:
                check(1)
            except (AlgorithmError, ProblemError):
                raise error from None

    def _problem_words(self, weights: Weights, x: Float32Array | None) -> dict[str, Any]:
        named = ((name, weights.arrays.get(name)) for name in ("bias", "scale"))
        shapes = {f"{name}_shape": a.shape for name, a in named if a is not None}
        strides = None if x is None else element_strides(x)
        return {**self._options, **shapes, "x_strides": strides}

    def _make_plan(
        self, weights: Weights, problem: AnyProblem, target: Target, threads: int
    ) -> Plan:
        if self._tune:
            from nnpack.tuning import tune_problem

            words = problem, self._algorithm, target, threads
            tune_problem(*words, weights.as_float32(), again=False)
        return make_plan(problem, self._algorithm, target, threads)

    def _writes_early(self, problem: AnyProblem) -> bool:
        return writes_early(problem, self._algorithm, host_target())

    def _residual_shape(self, problem: AnyProblem) -> tuple[int, ...]:
        return problem.conv_shape

    def _channels(self, problem: AnyProblem) -> int:
        return problem.out_channels


class Conv2d(_ConvolutionLayer):
    """``pool(activation(scale * conv(x, weight) + bias))``, weights packed once: `nnpack.conv2d`.

    ``weight`` is (O, C/groups, kh, kw), ``scale`` and ``bias`` (O,); all are copied. A layer takes
    any batch and image size, and any number of threads may call it at once. ``tune`` measures
    the candidates at the first call of each shape, unless wisdom has them: see `tune`. With
    ``statistics`` a call returns ``(y, mean, variance)``, as `nnpack.conv2d` does.

    ``weight_storage="float16"``: weights are rounded to half precision, to nearest even, and kept
    so; transformed ones wherever that adds at most 5e-4 of relative L2 error, which
    ``accuracy="exact"`` never lets it. All other error is as ever, against the rounded weights.

    Raises ProblemError, DtypeError or AlgorithmError for malformed arguments.
    """

    def __init__(
        self,
        weight: object,
        bias: object = None,
        *,
        stride: IntOrPair = 1,
        padding: PaddingLike = 0,
        dilation: IntOrPair = 1,
        groups: SupportsIndex = 1,
        scale: object = None,
        activation: Activation | None = None,
        residual_position: ResidualPosition = "before",
        pool: Pooling | None = None,
        statistics: bool = False,
        algorithm: str = "auto",
        accuracy: Accuracy = "fast",
        threads: SupportsIndex | None = None,
        weight_storage: WeightStorage = "float32",
        tune: bool = False,
    ) -> None:
        options = {
            "stride": stride,
            "padding": padding,
            "dilation": dilation,
            "groups": groups,
            "activation": activation,
            "residual_position": residual_position,
            "pool": pool,
            "statistics": statistics,
            "accuracy": accuracy,
            "weight_storage": weight_storage,
        }
        super().__init__(weight, bias, scale, options, algorithm, threads, tune)

    def _check_weights(self, weights: Weights) -> None:
        channels = weights.arrays["weight"].shape[1] * _as_count(self._options["groups"])
        self._problem(weights, (0, max(1, channels), MAX_INTEGER, MAX_INTEGER), None)
        self._check_algorithm(weights, max(1, channels))

    def _problem(
        self, weights: Weights, shape: tuple[SupportsIndex, ...], x: Float32Array | None
    ) -> Problem:
        words = self._problem_words(weights, x)
        return Problem.conv2d(shape, weights.arrays["weight"].shape, **words)


class ConvTranspose2d(_ConvolutionLayer):
    """`nnpack.conv_transpose2d` with weights (I, O/groups, kh, kw) packed once; see `Conv2d`."""

    def __init__(
        self,
        weight: object,
        bias: object = None,
        *,
        stride: IntOrPair = 1,
        padding: PaddingLike = 0,
        output_padding: IntOrPair = 0,
        dilation: IntOrPair = 1,
        groups: SupportsIndex = 1,
        scale: object = None,
        activation: Activation | None = None,
        residual_position: ResidualPosition = "before",
        pool: Pooling | None = None,
        statistics: bool = False,
        algorithm: str = "auto",
        accuracy: Accuracy = "fast",
        threads: SupportsIndex | None = None,
        weight_storage: WeightStorage = "float32",
        tune: bool = False,
    ) -> None:
        options = {
            "stride": stride,
            "padding": padding,
            "output_padding": output_padding,
            "dilation": dilation,
            "groups": groups,
            "activation": activation,
            "residual_position": residual_position,
            "pool": pool,
            "statistics": statistics,
            "accuracy": accuracy,
            "weight_storage": weight_storage,
        }
        super().__init__(weight, bias, scale, options, algorithm, threads, tune)

    def _check_weights(self, weights: Weights) -> None:
        channels = weights.arrays["weight"].shape[0]
        self._problem(weights, (0, channels, 2**28, 2**28), None)
        self._check_algorithm(weights, channels)

    def _problem(
        self, weights: Weights, shape: tuple[SupportsIndex, ...], x: Float32Array | None
    ) -> TransposedProblem:
        words = self._problem_words(weights, x)
        return TransposedProblem.conv_transpose2d(shape, weights.arrays["weight"].shape, **words)


def _as_count(groups: object) -> int:
    return as_integer("groups", groups, least=1)
