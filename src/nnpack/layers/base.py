"""Layers: weights packed ahead and plans kept; what all of them share.

A layer keeps one packed copy of its weights for every format its plans ask for, and one program for
every shape it was called with; both in bounded caches (`layers.weights`) under one lock. A call
that finds its program takes no lock.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, SupportsIndex

import numpy as np

from nnpack.arrays import (
    Float32Array,
    as_float32,
    as_halves,
    check_out,
    optional_vector,
    slice_stride,
    undefined_moments,
)
from nnpack.codegen.lock import llvm_lock
from nnpack.codegen.target import Target, host_target
from nnpack.epilogue import activation_arrays
from nnpack.errors import ProblemError
from nnpack.execution import Program, Runnable, compile_stages
from nnpack.frozen import replace
from nnpack.functional.residual import placed_in, readable_residual, stores_slices
from nnpack.functional.running import reported
from nnpack.layers.weights import Weights
from nnpack.plan import Plan, WeightFormat, profiled
from nnpack.runtime.memory import Block, address, empty_output
from nnpack.settings import get_num_threads, resolve_num_threads

if TYPE_CHECKING:
    import numpy.typing as npt

    from nnpack.runtime.profile import Profile

__all__ = ["Layer", "Weights", "as_shape_argument"]

_FLOAT32 = np.dtype(np.float32)


class LayerProblem(Protocol):
    """What a layer asks of the problem that one input states."""

    @property
    def y_shape(self) -> tuple[int, ...]:
        """The shape of the result."""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to compute."""


class Prepared:
    """A program with everything it reads but x and a residual, and the shape of what it writes.

    ``writes_early``: some of y is written before the residual at the same place is read;
    ``moments``: of how many channels mean and variance are found, 0 for none; ``in_slices``:
    whether y may be channels of a larger array, as far apart as was asked; ``recent``: whether it
    was called since it was looked at last.
    """

    __slots__ = (
        "addresses",
        "in_slices",
        "keep",
        "moments",
        "plan",
        "program",
        "recent",
        "residual_shape",
        "writes_early",
        "y_shape",
    )

    def __init__(
        self,
        program: Runnable | None,
        plan: Plan | None,
        y_shape: tuple[int, ...],
        addresses: Mapping[str, int],
        keep: tuple[object, ...],
        writes_early: bool = False,
        residual_shape: tuple[int, ...] | None = None,
        moments: int = 0,
        in_slices: bool = False,
    ) -> None:
        self.in_slices = in_slices
        self.program = program
        self.plan = plan
        self.y_shape = y_shape
        self.addresses = addresses
        self.keep = keep
        self.writes_early = writes_early
        self.residual_shape = residual_shape or y_shape
        self.moments = moments
        self.recent = True

    def run(self, x: Float32Array, y: Float32Array, residual: Float32Array | None) -> Any:
        """Compute y from x, and from the residual of a program that has one; return the result.

        That is y, or ``(y, mean, variance)``.
        """
        if not self.moments:
            self._run({"x": address(x), "y": address(y)}, y, residual)
            return y
        moments = undefined_moments(self.moments)
        places = {name: address(array) for name, array in moments.items()}
        self._run({**places, "x": address(x), "y": address(y)}, y, residual)
        return y, moments["mean"], moments["variance"]

    def _run(
        self, places: Mapping[str, int], y: Float32Array, residual: Float32Array | None
    ) -> None:
        if self.program is None:
            return
        addresses = {**self.addresses, **places}
        if residual is not None:
            residual = readable_residual(residual, y, self.writes_early)
            addresses["residual"] = address(residual)
        self.program.run(addresses)

    def checked_residual(self, residual: object) -> Float32Array:
        """``residual`` as an array of its shape. Raises ProblemError or DtypeError."""
        array = as_float32("residual", residual)
        if array.shape != self.residual_shape:
            raise ProblemError(
                f"residual.shape={array.shape} must be {self.residual_shape}, what it is added to"
            )
        return array


class Layer:
    """Caches, and the fast path of a call. A subclass says what is computed, and how.

    ``options`` are keyword arguments of the problem, ``weight_storage`` and ``residual_position``
    among them.
    """

    _weight_ndim: int
    _takes_slices = False
    """Whether ``out`` may be some channels of a larger array."""

    def __init__(
        self,
        weight: object,
        bias: object,
        scale: object,
        options: dict[str, Any],
        threads: SupportsIndex | None,
    ) -> None:
        self._options = {name: _frozen(value) for name, value in options.items()}
        self._threads = None if threads is None else resolve_num_threads(threads)
        self._lock = llvm_lock
        self._weights = self._copied(weight, bias, scale)
        self._check_weights(self._weights)

    # What a subclass says:

    def _as_input(self, x: object) -> Float32Array:
        """``x`` as the programs read it. Raises DtypeError or ProblemError."""
        raise NotImplementedError

    def _check_weights(self, weights: Weights) -> None:
        """Raise now what any input would raise later: state the problem on the least input."""
        raise NotImplementedError

    def _problem(
        self, weights: Weights, shape: tuple[SupportsIndex, ...], x: Float32Array | None
    ) -> LayerProblem:
        """The problem of an input of ``shape``, with the strides of ``x`` or dense."""
        raise NotImplementedError

    def _make_plan(self, weights: Weights, problem: Any, target: Target, threads: int) -> Plan:
        """The plan of a problem that `_problem` stated."""
        raise NotImplementedError

    def _writes_early(self, problem: Any) -> bool:
        """Whether some of y is written before the residual at the same place is read."""
        return False

    def _residual_shape(self, problem: Any) -> tuple[int, ...]:
        """The shape of what a residual is added to: of y, unless that is pooled after."""
        shape: tuple[int, ...] = problem.y_shape
        return shape

    def _channels(self, problem: Any) -> int:
        """How many channels the result has, each of which has statistics."""
        raise NotImplementedError

    # What all layers do:

    def __call__(
        self, x: object, *, residual: object = None, out: Float32Array | None = None
    ) -> Any:
        """The layer applied to ``x``: a new C-contiguous float32 array, or ``out``.

        ``out`` is C-contiguous, or of a convolution some channels of such an array.

        A layer with ``statistics`` returns ``(y, mean, variance)``, y being that array.

        ``residual`` has the shape of the result (before a pool) and is added where the layer's
        ``residual_position`` says; ``out`` may be ``residual`` itself.

        Raises ProblemError or DtypeError for malformed arguments before anything is written.
        """
        weights, given = self._weights, x
        prepared = None
        stride = slice_stride(out) if self._takes_slices and out is not None else None
        if type(x) is np.ndarray and x.dtype == _FLOAT32:
            threads = self._threads or get_num_threads()
            key = x.shape, x.strides, threads, residual is not None, stride
            prepared = weights.prepared.get(key)
        if prepared is None or not x.flags.aligned:  # type: ignore[attr-defined]
            x = self._as_input(x)
            prepared = self._prepare(weights, x, residual is not None, stride)
        prepared.recent = True
        added = None if residual is None else prepared.checked_residual(residual)
        if out is None:
            y = empty_output(prepared.y_shape)
        else:
            # Of an array that was copied to be read, the original is not to be written either.
            taken = given if isinstance(given, np.ndarray) else x
            inputs: dict[str, Any] = {"x": taken, **weights.arrays}
            if added is not None:
                inputs["residual"] = added
            slices = self._takes_slices
            words: dict[str, Any] = {"in_place": "residual", "slices": slices}
            y = check_out(out, prepared.y_shape, inputs.items(), **words)
            if stride is not None and not prepared.in_slices:
                dense = prepared.run(x, empty_output(y.shape), added)  # type: ignore[arg-type]
                return _copied_to(y, dense)
        return prepared.run(x, y, added)  # type: ignore[arg-type]

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

    def profile(self, x: object) -> Profile:
        """Run on ``x`` with kernels that time their phases; the second of two runs counts.

        Raises as a call does.
        """
        from nnpack.kernels.stage import PHASES
        from nnpack.runtime.profile import Profile, counter_frequency

        x = self._as_input(x)
        weights = self._weights
        prepared = self._prepare(weights, x, False, None)
        phases = np.zeros(len(PHASES), np.int64)
        seconds = 0.0
        if prepared.program is not None and prepared.plan is not None:
            plan = profiled(prepared.plan)
            program = Program(plan.stages, host_target(), plan.threads, plan.workspace_bytes)
            y = empty_output(prepared.y_shape)
            arrays: dict[str, Any] = {"x": x, "y": y, "profile": phases}
            arrays |= undefined_moments(prepared.moments)
            words = {name: address(array) for name, array in arrays.items()}
            program.run({**prepared.addresses, **words})
            phases[:] = 0
            start = time.perf_counter()
            program.run({**prepared.addresses, **words})
            seconds = time.perf_counter() - start
        ticks = counter_frequency(host_target())
        found = {name: int(n) / ticks for name, n in zip(PHASES, phases, strict=True) if n}
        return Profile(seconds, found)

    def __repr__(self) -> str:
        arrays, words = self._weights.arrays, dict(self._options)
        if "slopes" in arrays:
            words["activation"] = "Prelu"  # whose slopes may be hundreds
        shown = [f"{name} {arrays[name].shape}" for name in arrays if name != "slopes"]
        shown += [f"{name}={value}" for name, value in words.items() if value is not None]
        return f"<{type(self).__name__}: {', '.join(shown)}>"

    def __getstate__(self) -> dict[str, Any]:
        return {
            "options": self._options,
            "threads": self._threads,
            "arrays": self._weights.arrays,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._options = state["options"]
        self._threads = state["threads"]
        self._lock = llvm_lock
        self._weights = Weights(state["arrays"])

    def _copied(self, weight: object, bias: object, scale: object) -> Weights:
        arrays: dict[str, npt.NDArray[Any]]
        arrays = {"weight": np.array(as_float32("weight", weight, self._weight_ndim), order="C")}
        if self._options["weight_storage"] == "float16":
            arrays["weight"] = as_halves("weight", arrays["weight"])
        for name, value in (("bias", bias), ("scale", scale)):
            vector = optional_vector(name, value)
            if vector is not None:
                arrays[name] = vector.copy()
        return Weights(arrays | activation_arrays(self._options.get("activation")))

    def _prepare(
        self, weights: Weights, x: Float32Array, adds: bool, stride: int | None
    ) -> Prepared:
        """What runs on such an ``x``, with a residual if it ``adds`` one.

        With a ``stride`` between the images of y, where it can be stored so.
        """
        threads = self._threads or get_num_threads()
        key = x.shape, x.strides, threads, adds, stride
        with self._lock:
            prepared = weights.prepared.get(key)
            if prepared is None:
                problem: Any = self._problem(weights, x.shape, x)
                problem = self._adding(problem) if adds else problem
                problem = placed_in(problem, stride)
                prepared = self._make_prepared(weights, problem, threads)
                weights.keep_program(key, prepared)
            return prepared

    def _adding(self, problem: Any) -> Any:
        """``problem`` with a residual, where the options say."""
        epilogue = replace(problem.epilogue, residual=self._options["residual_position"])
        return replace(problem, epilogue=epilogue)

    def _make_prepared(self, weights: Weights, problem: Any, threads: int) -> Prepared:
        shape = self._residual_shape(problem)
        moments = self._channels(problem) if problem.epilogue.statistics else 0
        if problem.is_empty:
            return Prepared(None, None, problem.y_shape, {}, (), False, shape, moments)
        target = host_target()
        plan = self._make_plan(weights, problem, target, threads)
        compile_stages((*plan.weight_format.stages, *plan.stages), target, threads)
        packed = self._pack(weights, plan.weight_format, threads)
        program = Program(plan.stages, target, threads, plan.workspace_bytes)
        run = reported(program, problem, plan)
        addresses = {name: address(array) for name, array in weights.arrays.items()}
        addresses["packed"] = packed.address
        keep, early = (packed, weights.arrays), self._writes_early(problem)
        slices = self._takes_slices and stores_slices(problem)
        return Prepared(run, plan, problem.y_shape, addresses, keep, early, shape, moments, slices)

    def _pack(self, weights: Weights, form: WeightFormat, threads: int) -> Block:
        """The weights packed as ``form`` says."""
        if form not in weights.packed:
            packed = Block(form.nbytes)
            program = Program(form.stages, host_target(), threads, 0)
            raw = weights.as_float32()["weight"]
            program.run({"weight": address(raw), "packed": packed.address})
            weights.keep_format(form, packed)
        return weights.packed[form]


def _copied_to(y: Float32Array, dense: Any) -> Any:
    """The result of a call, ``dense`` or with moments, with y in its place."""
    if isinstance(dense, tuple):
        y[...] = dense[0]
        return y, *dense[1:]
    y[...] = dense
    return y


def _frozen(value: object) -> object:
    """``value``, or a tuple in place of a list or an array that the caller may change later."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        return value
    return tuple(value)


def as_shape_argument(x_shape: object, layout: str) -> tuple[SupportsIndex, ...]:
    """``x_shape`` as a tuple, whose items the problem will check. Raises ProblemError."""
    if not isinstance(x_shape, Iterable):
        raise ProblemError(f"x_shape={x_shape!r} must be {layout}")
    return tuple(x_shape)
