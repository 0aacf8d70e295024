"""Convolutional layers: weights packed ahead and plans kept, for any batch and image size.

A layer keeps one packed copy of its weights for every format its plans ask for, and one program for
every shape it was called with; both in bounded caches under one lock. A call that finds its
program takes no lock.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np

from nnpack.arguments import MAX_INTEGER, IntOrPair, PaddingLike, as_integer, as_number
from nnpack.arrays import (
    Float32Array,
    as_float32,
    as_halves,
    check_out,
    element_strides,
    optional_vector,
    with_unit_column_stride,
)
from nnpack.codegen.lock import llvm_lock
from nnpack.codegen.target import host_target
from nnpack.errors import ProblemError
from nnpack.execution import Program, compile_stages
from nnpack.functional.running import reported
from nnpack.plan import Plan, WeightFormat, profiled
from nnpack.planner import AnyProblem, Explanation, check_algorithm, explain, make_plan
from nnpack.problem import Accuracy, Activation, Problem, TransposedProblem, WeightStorage
from nnpack.runtime.memory import Block, address, empty_output
from nnpack.settings import get_num_threads, resolve_num_threads

if TYPE_CHECKING:
    import numpy.typing as npt

    from nnpack.runtime.profile import Profile

__all__ = ["Conv2d", "ConvTranspose2d"]

_MAX_PROGRAMS = 64
_MAX_FORMATS = 8
_FLOAT32 = np.dtype(np.float32)

_CallKey = tuple[tuple[int, ...], tuple[int, ...], int]


class _Prepared:
    """A program with everything it reads but x, and the shape of what it writes."""

    __slots__ = ("addresses", "keep", "plan", "program", "y_shape")

    def __init__(
        self,
        program: Program | None,
        plan: Plan | None,
        y_shape: tuple[int, ...],
        addresses: Mapping[str, int],
        keep: tuple[object, ...],
    ) -> None:
        self.program = program
        self.plan = plan
        self.y_shape = y_shape
        self.addresses = addresses
        self.keep = keep

    def run(self, x: Float32Array, y: Float32Array) -> None:
        if self.program is not None:
            self.program.run({**self.addresses, "x": address(x), "y": address(y)})


class _Weights:
    """One version of a layer's weights with what was derived from it; replaced whole on update.

    The weight is an array of float16 where it is stored so.
    """

    def __init__(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        self.arrays = arrays
        self.packed: OrderedDict[WeightFormat, Block] = OrderedDict()
        self.prepared: OrderedDict[_CallKey, _Prepared] = OrderedDict()

    def as_float32(self) -> dict[str, Float32Array]:
        """The arrays as programs read them, for as long as they are kept."""
        arrays = self.arrays.items()
        return {name: array.astype(np.float32, copy=False) for name, array in arrays}


class _ConvolutionLayer:
    """What forward and transposed layers share: caches, and the fast path of a call."""

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
        self._options = {name: _frozen(value) for name, value in options.items()}
        self._tune = tune
        self._algorithm = check_algorithm(algorithm)
        self._threads = None if threads is None else resolve_num_threads(threads)
        self._lock = llvm_lock
        self._weights = self._copied(weight, bias, scale)
        self._check_weights(self._weights)

    def __call__(self, x: object, *, out: Float32Array | None = None) -> Float32Array:
        """The layer applied to ``x`` (N, C, H, W): a new C-contiguous array, or ``out``.

        Raises ProblemError or DtypeError for malformed arguments before anything is written.
        """
        weights = self._weights
        prepared = None
        if type(x) is np.ndarray and x.dtype == _FLOAT32:
            key = x.shape, x.strides, self._threads or get_num_threads()
            prepared = weights.prepared.get(key)
        if prepared is None or not x.flags.aligned:  # type: ignore[attr-defined]
            x = with_unit_column_stride(as_float32("x", x, 4))
            prepared = self._prepare(weights, x)
        if out is None:
            y = empty_output(prepared.y_shape)
        else:
            inputs = {"x": x, **weights.arrays}
            y = check_out(out, prepared.y_shape, inputs.items())  # type: ignore[arg-type]
        prepared.run(x, y)  # type: ignore[arg-type]
        return y

    def update(self, weight: object, bias: object = None, *, scale: object = None) -> None:
        """Replace the weights by others of the same shapes; packed copies are made anew.

        Calls that are under way finish with the former weights.
        Raises ProblemError when a shape differs, or an array is given or missing unlike before.
        """
        new = self._copied(weight, bias, scale)
        old_shapes = {name: array.shape for name, array in self._weights.arrays.items()}
        shapes = {name: array.shape for name, array in new.arrays.items()}
        if shapes != old_shapes:
            raise ProblemError(f"update got {shapes}; it must be {old_shapes}, as constructed")
        self._weights = new

    def explain(self, x_shape: Sequence[SupportsIndex]) -> Explanation:
        """What every algorithm answers to an input of ``x_shape``, and which one is used."""
        problem = self._problem(self._weights, _shape(x_shape), None)
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

        weights, shape = self._weights, _shape(x_shape)
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

    def profile(self, x: object) -> Profile:
        """Run on ``x`` with kernels that time their phases; the second of two runs counts."""
        from nnpack.kernels.stage import PHASES
        from nnpack.runtime.profile import Profile, counter_frequency

        x = with_unit_column_stride(as_float32("x", x, 4))
        weights = self._weights
        prepared = self._prepare(weights, x)
        phases = np.zeros(len(PHASES), np.int64)
        seconds = 0.0
        if prepared.program is not None and prepared.plan is not None:
            plan = profiled(prepared.plan)
            program = Program(plan.stages, host_target(), plan.threads, plan.workspace_bytes)
            y = empty_output(prepared.y_shape)
            words = {"x": address(x), "y": address(y), "profile": address(phases)}
            program.run({**prepared.addresses, **words})
            phases[:] = 0
            start = time.perf_counter()
            program.run({**prepared.addresses, **words})
            seconds = time.perf_counter() - start
        ticks = counter_frequency(host_target())
        found = {name: int(n) / ticks for name, n in zip(PHASES, phases, strict=True) if n}
        return Profile(seconds, found)

    def __getstate__(self) -> dict[str, Any]:
        return {
            "options": self._options,
            "algorithm": self._algorithm,
            "threads": self._threads,
            "tune": self._tune,
            "arrays": self._weights.arrays,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._options = state["options"]
        self._algorithm = state["algorithm"]
        self._threads = state["threads"]
        self._tune = state["tune"]
        self._lock = llvm_lock
        self._weights = _Weights(state["arrays"])

    def _copied(self, weight: object, bias: object, scale: object) -> _Weights:
        arrays: dict[str, npt.NDArray[Any]]
        arrays = {"weight": np.array(as_float32("weight", weight, 4), order="C")}
        if self._options["weight_storage"] == "float16":
            arrays["weight"] = as_halves("weight", arrays["weight"])
        for name, value in (("bias", bias), ("scale", scale)):
            vector = optional_vector(name, value)
            if vector is not None:
                arrays[name] = vector.copy()
        return _Weights(arrays)

    def _check_weights(self, weights: _Weights) -> None:
        """Raise now what any input would raise later: state the problem on the least image."""
        raise NotImplementedError

    def _problem(
        self, weights: _Weights, shape: tuple[SupportsIndex, ...], x: Float32Array | None
    ) -> AnyProblem:
        raise NotImplementedError

    def _problem_words(self, weights: _Weights, x: Float32Array | None) -> dict[str, Any]:
        shapes = {f"{name}_shape": array.shape for name, array in weights.arrays.items()}
        del shapes["weight_shape"]
        strides = None if x is None else element_strides(x)
        return {**self._options, **shapes, "x_strides": strides}

    def _prepare(self, weights: _Weights, x: Float32Array) -> _Prepared:
        threads = self._threads or get_num_threads()
        key = x.shape, x.strides, threads
        with self._lock:
            prepared = weights.prepared.get(key)
            if prepared is None:
                prepared = self._make_prepared(weights, x, threads)
                weights.prepared[key] = prepared
                if len(weights.prepared) > _MAX_PROGRAMS:
                    weights.prepared.popitem(last=False)
            return prepared

    def _make_prepared(self, weights: _Weights, x: Float32Array, threads: int) -> _Prepared:
        problem = self._problem(weights, x.shape, x)
        if problem.is_empty:
            return _Prepared(None, None, problem.y_shape, {}, ())
        target = host_target()
        if self._tune:
            from nnpack.tuning import tune_problem

            words = problem, self._algorithm, target, threads
            tune_problem(*words, weights.as_float32(), again=False)
        plan = make_plan(problem, self._algorithm, target, threads)
        compile_stages((*plan.weight_format.stages, *plan.stages), target, threads)
        packed = self._pack(weights, plan.weight_format, threads)
        program = Program(plan.stages, target, threads, plan.workspace_bytes)
        program = reported(program, problem, plan)
        addresses = {name: address(array) for name, array in weights.arrays.items()}
        addresses["packed"] = packed.address
        return _Prepared(program, plan, problem.y_shape, addresses, (packed, weights.arrays))

    def _pack(self, weights: _Weights, form: WeightFormat, threads: int) -> Block:
        """The weights packed as ``form`` says; at most a few formats are kept."""
        if form in weights.packed:
            weights.packed.move_to_end(form)
            return weights.packed[form]
        packed = Block(form.nbytes)
        program = Program(form.stages, host_target(), threads, 0)
        raw = weights.as_float32()["weight"]
        program.run({"weight": address(raw), "packed": packed.address})
        weights.packed[form] = packed
        if len(weights.packed) > _MAX_FORMATS:
            weights.packed.popitem(last=False)
        return packed


class Conv2d(_ConvolutionLayer):
    """``activation(scale * conv(x, weight) + bias)`` with weights packed once; see `nnpack.conv2d`.

    ``weight`` is (O, C/groups, kh, kw), ``scale`` and ``bias`` (O,); all are copied. A layer takes
    any batch and image size, and any number of threads may call it at once. ``tune`` measures
    the candidates at the first call of each shape, unless wisdom has them: see `tune`.

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
            "accuracy": accuracy,
            "weight_storage": weight_storage,
        }
        super().__init__(weight, bias, scale, options, algorithm, threads, tune)

    def _check_weights(self, weights: _Weights) -> None:
        channels = weights.arrays["weight"].shape[1] * _as_count(self._options["groups"])
        self._problem(weights, (0, max(1, channels), MAX_INTEGER, MAX_INTEGER), None)

    def _problem(
        self, weights: _Weights, shape: tuple[SupportsIndex, ...], x: Float32Array | None
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
            "accuracy": accuracy,
            "weight_storage": weight_storage,
        }
        super().__init__(weight, bias, scale, options, algorithm, threads, tune)

    def _check_weights(self, weights: _Weights) -> None:
        self._problem(weights, (0, weights.arrays["weight"].shape[0], 2**28, 2**28), None)

    def _problem(
        self, weights: _Weights, shape: tuple[SupportsIndex, ...], x: Float32Array | None
    ) -> TransposedProblem:
        words = self._problem_words(weights, x)
        return TransposedProblem.conv_transpose2d(shape, weights.arrays["weight"].shape, **words)


def _as_count(groups: object) -> int:
    return as_integer("groups", groups, least=1)


def _frozen(value: object) -> object:
    """``value``, or a tuple in place of a list or an array that the caller may change later."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        return value
    return tuple(value)


def _shape(x_shape: object) -> tuple[SupportsIndex, ...]:
    """``x_shape`` as a tuple, whose items the problem will check."""
    if not isinstance(x_shape, Iterable):
        raise ProblemError(f"x_shape={x_shape!r} must be (N, C, H, W)")
    return tuple(x_shape)
