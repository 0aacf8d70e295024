"""Plans: what is to be run, as values. A plan holds no data and no addresses.

A `Stage` is one kernel with its argument words and a number of tasks; words that are only known at
the call are `Slot` values. A `Plan` is a tuple of stages with the weight format they read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nnpack.frozen import dataclass, field, replace

if TYPE_CHECKING:
    from nnpack.codegen.compiler import Specification
    from nnpack.kernels.stage import Kernel

__all__ = [
    "Plan",
    "Routine",
    "Slot",
    "Stage",
    "WeightFormat",
    "aligned",
    "chain_plans",
    "combine_plans",
    "in_workspace",
    "kernels_of",
    "packed_in_workspace",
    "place_values",
    "profiled",
    "shifted",
]


@dataclass(frozen=True)
class Slot:
    """The address of an array given at the call, plus ``offset`` bytes.

    Names: x, weight, bias, scale, slopes, residual, packed, y, workspace; others of other layers.
    """

    name: str
    offset: int = 0


@dataclass(frozen=True)
class Routine:
    """The address of a function that a stage calls, the entry of ``kernel``.

    Stages that share a part of their code are compiled once for it: what else they are made of may
    differ.
    """

    kernel: Specification


Argument = int | float | Slot | Routine


@dataclass(frozen=True)
class Stage:
    """``kernel`` run over ``tasks`` independent tasks, in any order and split over threads."""

    kernel: Kernel
    tasks: int
    arguments: Mapping[str, Argument] = field(hash=False)


def kernels_of(stages: Iterable[Stage]) -> Iterator[Specification]:
    """All that has to be compiled for ``stages``: their kernels, and the routines these call."""
    for stage in stages:
        yield stage.kernel
        yield from (v.kernel for v in stage.arguments.values() if isinstance(v, Routine))


@dataclass(frozen=True)
class WeightFormat:
    """How an algorithm wants its weights: equal formats are packed alike.

    ``stages`` turn the slot ``weight`` into the slot ``packed``, of ``nbytes`` bytes. ``storage``
    says for people what the packed weights are.
    """

    description: tuple[object, ...]
    nbytes: int
    stages: tuple[Stage, ...] = field(compare=False)
    storage: str = "float32"


@dataclass(frozen=True)
class Plan:
    """How one problem is computed, for at most ``threads`` threads.

    ``workspace_bytes`` is all the memory a run borrows. ``detail`` says for people what was decided
    inside the algorithm (tile, block).
    """

    algorithm: str
    stages: tuple[Stage, ...]
    weight_format: WeightFormat
    workspace_bytes: int
    threads: int
    detail: str


_ALIGNMENT = 64


def aligned(nbytes: int) -> int:
    """``nbytes`` rounded up to whole cache lines."""
    return -(-nbytes // _ALIGNMENT) * _ALIGNMENT


def combine_plans(parts: tuple[tuple[Plan, int], ...]) -> Plan:
    """One plan for the plans of all parts of an output, each with its byte offset in y.

    Packed weights stand one behind the other, each part's on a cache line of its own.
    """
    if len(parts) == 1 and parts[0][1] == 0:
        return parts[0][0]
    stages: list[Stage] = []
    packing: list[Stage] = []
    packed = 0
    for plan, y_offset in parts:
        # A residual lies as y does.
        offsets = {"y": y_offset, "residual": y_offset, "packed": packed}
        stages += [shifted(stage, offsets) for stage in plan.stages]
        weights = plan.weight_format
        packing += [shifted(stage, {"packed": packed}) for stage in weights.stages]
        packed += aligned(weights.nbytes)
    plans = [plan for plan, _ in parts]
    storage = "+".join(dict.fromkeys(plan.weight_format.storage for plan in plans))
    formats = tuple(_identity(plan.weight_format) for plan in plans)
    return Plan(
        algorithm="+".join(dict.fromkeys(plan.algorithm for plan in plans)),
        stages=tuple(stages),
        weight_format=WeightFormat(formats, packed, tuple(packing), storage),
        workspace_bytes=max(plan.workspace_bytes for plan in plans),
        threads=plans[0].threads,
        detail="; ".join(dict.fromkeys(plan.detail for plan in plans)),
    )


def _identity(form: WeightFormat) -> tuple[object, ...]:
    """What tells apart formats of different parts: which of the weights are packed, as well.

    A layer of stride 2 asks for two phases side by side on a 1x2 image and for two others, of the
    same size, on a 2x1 image.
    """
    arguments = tuple(tuple(stage.arguments.items()) for stage in form.stages)
    return (*form.description, form.nbytes, form.storage, arguments)


def shifted(stage: Stage, offsets: Mapping[str, int]) -> Stage:
    """The stage with ``offsets[slot]`` bytes added to its slots."""
    arguments = {
        name: Slot(value.name, value.offset + offsets.get(value.name, 0))
        if isinstance(value, Slot)
        else value
        for name, value in stage.arguments.items()
    }
    return Stage(stage.kernel, stage.tasks, arguments)


def packed_in_workspace(plan: Plan) -> tuple[tuple[Stage, ...], int]:
    """Stages that pack the weights into the workspace and then run, and the bytes they borrow."""
    start = aligned(plan.workspace_bytes)
    stages = (*plan.weight_format.stages, *plan.stages)
    placed = tuple(in_workspace(stage, "packed", start) for stage in stages)
    return placed, start + plan.weight_format.nbytes


def chain_plans(first: Plan, second: Plan, nbytes: int) -> Plan:
    """``second`` after ``first``, whose y, of ``nbytes``, is second's x and lies in the workspace.

    Otherwise they share the workspace. Only ``first`` has weights.
    """
    start = aligned(max(first.workspace_bytes, second.workspace_bytes))
    stages = (
        *(in_workspace(stage, "y", start) for stage in first.stages),
        *(in_workspace(stage, "x", start) for stage in second.stages),
    )
    return replace(first, stages=stages, workspace_bytes=start + nbytes)


def place_values(spans: Sequence[tuple[int, int, int]]) -> tuple[list[int], int]:
    """Byte offsets of values ``(first, last, nbytes)``, and the bytes of all of them.

    Values that are needed at one time, from ``first`` to ``last``, do not overlap. ``first``
    ascends; each takes the lowest place that is free, which was written not long ago.
    """
    offsets: list[int] = []
    total = 0
    for first, _, nbytes in spans:
        place = 0
        others = zip(offsets, spans, strict=False)
        for begin, end in sorted((at, at + aligned(o[2])) for at, o in others if o[1] >= first):
            if begin - place >= aligned(nbytes):
                break
            place = max(place, end)
        offsets.append(place)
        total = max(total, place + aligned(nbytes))
    return offsets, total


def in_workspace(stage: Stage, slot: str, start: int) -> Stage:
    """The stage with what was in ``slot`` at ``start`` of the workspace."""
    arguments = {
        name: Slot("workspace", start + value.offset)
        if isinstance(value, Slot) and value.name == slot
        else value
        for name, value in stage.arguments.items()
    }
    return Stage(stage.kernel, stage.tasks, arguments)


def profiled(plan: Plan) -> Plan:
    """The plan with every kernel that has a profiled variant replaced by it.

    Those read the slot ``profile``: an i64 for each phase of `kernels.stage.PHASES`.
    """
    return replace(plan, stages=tuple(_profiled_stage(stage) for stage in plan.stages))


def _profiled_stage(stage: Stage) -> Stage:
    kernel: Any = stage.kernel
    if not hasattr(kernel, "profile"):
        return stage
    arguments = {**stage.arguments, "profile": Slot("profile")}
    return Stage(replace(kernel, profile=True), stage.tasks, arguments)
