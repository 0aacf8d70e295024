"""Layers one after the other as one program: one native call, one memory for all in between."""

from __future__ import annotations

import functools
import math
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, chain
from statistics import median
from typing import Any, SupportsIndex

import numpy as np

from nnpack.arguments import as_integer
from nnpack.arrays import Float32Array, check_out
from nnpack.codegen.lock import llvm_lock
from nnpack.codegen.target import host_target
from nnpack.errors import ProblemError
from nnpack.execution import Program, ReportedProgram, Runnable, compile_stages
from nnpack.frozen import dataclass
from nnpack.layers.base import Layer, Weights
from nnpack.plan import Argument, Plan, Slot, Stage, WeightFormat, aligned, place_values
from nnpack.runtime.memory import Block, address, empty_output
from nnpack.settings import get_num_threads, resolve_num_threads
from nnpack.verbose import is_verbose, report

__all__ = ["Network"]

_MAX_PROGRAMS = 8


@dataclass(frozen=True)
class _Packed:
    """The packed weights of a layer: their format, their address, and the memory they are in."""

    form: WeightFormat
    address: int
    block: Block


@dataclass(frozen=True)
class _Prepared:
    """A program, one for each layer of it, and the weights they were made of and read."""

    program: Runnable
    layers: tuple[Program, ...]
    y_shape: tuple[int, ...]
    versions: tuple[Weights, ...]
    packed: tuple[_Packed | None, ...]

    def find(self, number: int, weights: Weights, form: WeightFormat) -> _Packed | None:
        """The packed weights of layer ``number``, if they are these in that format."""
        packed = self.packed[number]
        same = packed is not None and packed.form == form and self.versions[number] is weights
        return packed if same else None


@dataclass(frozen=True)
class NetworkProblem:
    """What is said of a network's calls: how many layers it has, and the shape of x."""

    layers: int
    x: tuple[int, ...]


@dataclass(frozen=True)
class _Link:
    """One layer of the chain: its weights, its problem, and which values its slots are.

    Values are numbered by the layer that computes them; -1 is the input of the network.
    """

    weights: Weights
    problem: Any
    slots: Mapping[str, int]


class Network:
    """``layers``, each applied to what the one before gives, as one native call.

    ``residuals[i] = j``: layer i adds, at its ``residual_position``, what layer j takes as its
    input; j = 0 is the input of the network, and j is at most i. What passes between the layers
    never becomes arrays: it lies in one recycled piece of memory, in which whatever is read no more
    makes room for what comes, so that much of it is still in the caches.

    The result is that of the layers called one by one, with the network's number of ``threads``. It
    packs the weights for itself, on the first call with a shape of x that asks for another format,
    and on the next after a layer's `update`. Any number of threads may call it at once.

    Raises ProblemError when ``layers`` are none or have statistics, or ``residuals`` are not such.
    """

    def __init__(
        self,
        layers: Iterable[Layer],
        residuals: Mapping[int, int] | None = None,
        *,
        threads: SupportsIndex | None = None,
    ) -> None:
        given: object = layers
        self._layers = tuple(given) if isinstance(given, Iterable) else ()
        if not self._layers or not all(isinstance(layer, Layer) for layer in self._layers):
            raise ProblemError("layers must be one or more layers, such as nnpack.Conv2d")
        if any(layer._options["statistics"] for layer in self._layers):
            raise ProblemError("layers of a network have statistics=False: it gives a single array")
        self._residuals = _checked_residuals(
            {} if residuals is None else residuals, len(self._layers)
        )
        self._threads = None if threads is None else resolve_num_threads(threads)
        self._prepared: OrderedDict[object, _Prepared] = OrderedDict()

    def __call__(self, x: object, *, out: Float32Array | None = None) -> Float32Array:
        """What the last layer gives: a new C-contiguous array, or ``out``.

        Raises ProblemError or DtypeError for malformed arguments before anything is written.
        """
        given = x
        x, prepared = self._find(x)
        if out is None:
            y = empty_output(prepared.y_shape)
        else:
            taken = given if isinstance(given, np.ndarray) else x
            y = check_out(out, prepared.y_shape, [("x", taken)])
        prepared.program.run({"x": address(x), "y": address(y)})
        return y

    def profile(self, x: object, rounds: SupportsIndex = 20) -> list[float]:
        """Seconds of every layer: medians of ``rounds``.

        Each layer is a native call of its own here, which adds some 4 us to it. Raises as a call
        does.
        """
        count = as_integer("rounds", rounds, least=1)
        array, prepared = self._find(x)
        y = empty_output(prepared.y_shape)
        words = {"x": address(array), "y": address(y)}
        found: list[list[float]] = [[] for _ in self._layers]
        # Every layer borrows the memory that the one before gave back, and its results with it.
        for _ in range(count):
            for program, seconds in zip(prepared.layers, found, strict=True):
                start = time.perf_counter()
                program.run(words)
                seconds.append(time.perf_counter() - start)
        return [median(seconds) for seconds in found]

    def _find(self, x: object) -> tuple[Float32Array, _Prepared]:
        """``x`` as an array, and what runs on it."""
        array = self._layers[0]._as_input(x)
        if 0 in self._residuals.values():
            array = np.ascontiguousarray(array)
        threads = self._threads or get_num_threads()
        key = array.shape, array.strides, threads
        prepared = self._prepared.get(key)
        if prepared is None or not self._is_current(prepared):
            with llvm_lock:
                versions = tuple(layer._weights for layer in self._layers)
                known = list(self._prepared.values())
                prepared = _prepare(self._layers, versions, self._residuals, array, threads, known)
                self._prepared[key] = prepared
                if len(self._prepared) > _MAX_PROGRAMS:
                    self._prepared.popitem(last=False)
        return array, prepared

    def _is_current(self, prepared: _Prepared) -> bool:
        """Whether no layer has had other weights since."""
        pairs = zip(self._layers, prepared.versions, strict=True)
        return all(layer._weights is version for layer, version in pairs)

    def __getstate__(self) -> dict[str, Any]:
        return {"layers": self._layers, "residuals": self._residuals, "threads": self._threads}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._layers = state["layers"]
        self._residuals = state["residuals"]
        self._threads = state["threads"]
        self._prepared = OrderedDict()


def _checked_residuals(residuals: object, count: int) -> dict[int, int]:
    if not isinstance(residuals, Mapping):
        raise ProblemError(f"residuals={residuals!r} must be a mapping of numbers of layers")
    checked = {}
    for key, value in residuals.items():
        layer, source = (
            as_integer("residuals", key, least=0),
            as_integer("residuals", value, least=0),
        )
        if not 0 <= source <= layer < count:
            raise ProblemError(
                f"residuals has {key}: {value}; of {count} layers, numbered from 0, one can add "
                "its own input or that of one before"
            )
        checked[layer] = source
    return checked


def _prepare(
    layers: Sequence[Layer],
    versions: tuple[Weights, ...],
    residuals: Mapping[int, int],
    x: Float32Array,
    threads: int,
    known: Sequence[_Prepared],
) -> _Prepared:
    """What runs on such an ``x``: all planned and compiled, the weights packed.

    What is packed for one of the ``known`` is not packed again.
    """
    target = host_target()
    links = _linked(layers, versions, residuals, x)
    plans = [
        None
        if link.problem.is_empty
        else layer._make_plan(link.weights, link.problem, target, threads)
        for layer, link in zip(layers, links, strict=True)
    ]
    made = [plan for plan in plans if plan is not None]
    packing = [stage for plan in made for stage in plan.weight_format.stages]
    compile_stages((*packing, *(s for plan in made for s in plan.stages)), target, threads)
    packed = _pack(links, plans, threads, known)
    places, nbytes = _places(links, max((plan.workspace_bytes for plan in made), default=0))
    bound = [
        ()
        if plan is None or weights is None
        else tuple(_bound(stage, link, weights.address, places) for stage in plan.stages)
        for link, plan, weights in zip(links, plans, packed, strict=True)
    ]
    programs = (Program(stages, target, threads, nbytes) for stages in bound)
    whole = _reported(
        Program(tuple(chain.from_iterable(bound)), target, threads, nbytes), links, x, threads
    )
    return _Prepared(whole, tuple(programs), links[-1].problem.y_shape, versions, packed)


def _reported(program: Program, links: Sequence[_Link], x: Float32Array, threads: int) -> Runnable:
    """``program``, which reports its runs where the environment asks for that."""
    if not is_verbose():
        return program
    words = NetworkProblem(len(links), x.shape), "network", "", threads
    return ReportedProgram(program, functools.partial(report, "call", *words))


def _linked(
    layers: Sequence[Layer],
    versions: Sequence[Weights],
    residuals: Mapping[int, int],
    x: Float32Array,
) -> list[_Link]:
    """The layers, each with the problem that the one before leaves it.

    Raises ProblemError when a layer cannot take what the one before gives, or add its residual.
    """
    shapes: list[tuple[int, ...]] = [x.shape]
    links = []
    for number, (layer, weights) in enumerate(zip(layers, versions, strict=True)):
        try:
            problem: Any = layer._problem(weights, shapes[-1], None if number else x)
        except ProblemError as error:
            raise ProblemError(f"layer {number}: {error}") from error
        slots = {"x": number - 1, "y": number}
        if number in residuals:
            source, shape = residuals[number], layer._residual_shape(problem)
            if shapes[source] != shape:
                raise ProblemError(
                    f"residuals has {number}: {source}; the input of layer {source} has the shape "
                    f"{shapes[source]}, and layer {number} adds {shape}"
                )
            slots["residual"] = source - 1
            problem = layer._adding(problem)
        links.append(_Link(weights, problem, slots))
        shapes.append(problem.y_shape)
    return links


def _pack(
    links: Sequence[_Link], plans: Sequence[Plan | None], threads: int, known: Sequence[_Prepared]
) -> tuple[_Packed | None, ...]:
    """The packed weights of every layer that has a plan: of ``known`` where these have them.

    All others are in one block, so that it may lie on huge pages; each on cache lines of its own.
    """
    forms = [None if plan is None else plan.weight_format for plan in plans]
    found: list[_Packed | None] = []
    for number, (link, form) in enumerate(zip(links, forms, strict=True)):
        held = (p.find(number, link.weights, form) for p in known if form is not None)
        found.append(next((packed for packed in held if packed is not None), None))
    sizes = [
        0 if form is None or packed is not None else aligned(form.nbytes)
        for form, packed in zip(forms, found, strict=True)
    ]
    block = Block(max(sum(sizes), 1))
    starts = accumulate(sizes, initial=block.address)
    for number, (link, form, start) in enumerate(zip(links, forms, starts, strict=False)):
        if form is not None and found[number] is None:
            raw = link.weights.as_float32()["weight"]
            program = Program(form.stages, host_target(), threads, 0)
            program.run({"weight": address(raw), "packed": start})
            found[number] = _Packed(form, start, block)
    return tuple(found)


def _places(links: Sequence[_Link], scratch: int) -> tuple[dict[int, Slot], int]:
    """Where every value lies, and the bytes of the workspace, which begins with ``scratch``."""
    last = len(links) - 1
    read = {value: number for number, link in enumerate(links) for value in link.slots.values()}
    spans = [
        (value, read[value], 4 * math.prod(links[value].problem.y_shape)) for value in range(last)
    ]
    offsets, nbytes = place_values(spans)
    start = aligned(scratch)
    places = {value: Slot("workspace", start + offset) for value, offset in enumerate(offsets)}
    return {**places, -1: Slot("x"), last: Slot("y")}, start + nbytes


def _bound(stage: Stage, link: _Link, packed: int, places: Mapping[int, Slot]) -> Stage:
    """``stage`` with all bound but the input and the output of the network, and the workspace.

    ``packed``: the address of the packed weights. ``places``: where values lie.
    """

    def bound(value: Argument) -> Argument:
        if not isinstance(value, Slot) or value.name == "workspace":
            return value
        if value.name in link.slots:
            place = places[link.slots[value.name]]
            return Slot(place.name, place.offset + value.offset)
        if value.name == "packed":
            return packed + value.offset
        return address(link.weights.arrays[value.name]) + value.offset

    arguments = {name: bound(value) for name, value in stage.arguments.items()}
    return Stage(stage.kernel, stage.tasks, arguments)
