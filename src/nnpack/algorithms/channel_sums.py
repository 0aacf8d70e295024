"""Sums over the numbers of each channel, chunk by chunk: words, workspace, stages of moments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from nnpack.algorithms.base import CACHE_LINE, FLOAT_BYTES, ceil_div, round_up
from nnpack.codegen.target import Target
from nnpack.frozen import dataclass, replace
from nnpack.kernels.epilogue import SUMS
from nnpack.kernels.normalization import ChunkMoments, CombineMoments
from nnpack.plan import Argument, Plan, Slot, Stage

__all__ = [
    "Counts",
    "Extents",
    "Workspace",
    "chunk_words",
    "extent_words",
    "moment_stages",
    "sums_bytes",
    "with_following_statistics",
    "with_merged_statistics",
]

# What details of plans say.
STATISTICS = "statistics in a following pass"

# A chunk is read twice, the second time from the first-level cache, of which it takes half.
_CHUNK_FLOATS = 4096
_CHUNK_ROWS = 256


class Extents(Protocol):
    """Numbers (batch, channels, pixels), dense."""

    @property
    def batch(self) -> int:
        """Images, or rows."""

    @property
    def channels(self) -> int:
        """What is summed apart."""

    @property
    def pixels(self) -> int:
        """Numbers of a channel side by side; lanes stand along the channels where it is one."""


@dataclass(frozen=True)
class Counts:
    """`Extents` of numbers that no problem describes."""

    batch: int
    channels: int
    pixels: int


class Workspace:
    """Hands out parts of the workspace, each from a cache line on."""

    def __init__(self) -> None:
        self.nbytes = 0

    def take(self, floats: int) -> Slot:
        """Room for so many floats."""
        slot = Slot("workspace", self.nbytes)
        self.nbytes += round_up(FLOAT_BYTES * floats, CACHE_LINE)
        return slot


def with_following_statistics(plan: Plan, extents: Extents, target: Target) -> Plan:
    """``plan``, and a pass over its y, dense, for the slots mean and variance, each (channels,)."""
    space = Workspace()
    stages = moment_stages(extents, target, space, Slot("y"), CombineMoments(), {})
    return replace(
        plan,
        stages=(*plan.stages, *stages),
        # The pass begins where all else has ended, and takes the same room.
        workspace_bytes=max(plan.workspace_bytes, space.nbytes),
        detail=f"{plan.detail}, {STATISTICS}",
    )


def with_merged_statistics(
    plan: Plan, channels: int, pieces: int, size: int, target: Target
) -> Plan:
    """``plan``, whose stages write ``kernels.epilogue.SUMS``; these combined in order of pieces.

    ``size`` is what the stages call the size of a piece.
    """
    space = Workspace()
    space.nbytes = round_up(plan.workspace_bytes, CACHE_LINE)
    sums = {name: space.take(pieces * channels) for name in SUMS}
    summing: dict[str, Argument] = {**sums, "sums_size": size, "sums_channels": channels}
    shifts, mean, square, counts = sums.values()
    combining: dict[str, Argument] = {
        "batch_mean": Slot("mean"),
        "variance": Slot("variance"),
        "mean": mean,
        "square": square,
        "shifts": shifts,
        "counts": counts,
        "channels": channels,
        "chunks": pieces,
    }
    combine = CombineMoments(counted=True)
    return replace(
        plan,
        stages=(
            *(replace(stage, arguments={**stage.arguments, **summing}) for stage in plan.stages),
            Stage(combine, ceil_div(channels, target.lanes), combining),
        ),
        workspace_bytes=space.nbytes,
    )


def sums_bytes(plan: Plan) -> int:
    """What the sums of a plan `with_merged_statistics` take of its workspace."""
    combining = plan.stages[-1].arguments
    pieces, channels = combining["chunks"], combining["channels"]
    assert isinstance(pieces, int)
    assert isinstance(channels, int)
    return len(SUMS) * FLOAT_BYTES * pieces * channels


def moment_stages(
    extents: Extents,
    target: Target,
    space: Workspace,
    x: Slot,
    combine: CombineMoments,
    words: Mapping[str, Argument],
) -> tuple[Stage, Stage]:
    """The stages that find the slots mean and variance of ``x``; ``words`` are others of the last.

    What is added to what depends on the extents alone, not on who adds it.
    """
    chunks, tasks = chunk_words(extents, target)
    count = chunks["image_chunks"] * chunks["parts"]
    parts = {name: space.take(count * extents.channels) for name in ("mean", "square")}
    shared: dict[str, Argument] = {**parts, **extent_words(extents), **chunks}
    found = {"batch_mean": Slot("mean"), "variance": Slot("variance")}
    return (
        Stage(ChunkMoments(extents.pixels > 1), tasks, {**shared, "x": x}),
        Stage(combine, ceil_div(extents.channels, target.lanes), {**shared, **found, **words}),
    )


def extent_words(extents: Extents) -> dict[str, Argument]:
    """The words of ``kernels.chunks.EXTENTS``."""
    return {"batch": extents.batch, "channels": extents.channels, "pixels": extents.pixels}


def chunk_words(extents: Extents, target: Target) -> tuple[dict[str, int], int]:
    """The words of ``kernels.chunks.CHUNKS``, and how many tasks they are."""
    if extents.pixels == 1:
        images, part = min(extents.batch, _CHUNK_ROWS), 1
        items = ceil_div(extents.channels, target.lanes)
    else:
        images = max(1, min(extents.batch, _CHUNK_FLOATS // extents.pixels))
        part = min(extents.pixels, _CHUNK_FLOATS)
        items = extents.channels
    image_chunks, parts = ceil_div(extents.batch, images), ceil_div(extents.pixels, part)
    words = {"images": images, "part": part, "image_chunks": image_chunks, "parts": parts}
    return words, items * image_chunks * parts
