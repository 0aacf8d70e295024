"""Sums of chunks: every number of them is added in the order of a tree."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from nnpack.algorithms.gradient_chunks import Chunks, choose_chunks, sum_stages
from nnpack.codegen.target import Target
from nnpack.execution import Program
from nnpack.plan import Slot
from nnpack.runtime.memory import address
from tests.guard import guarded_copy
from tests.native import TARGETS, name_of

Float32Array = npt.NDArray[np.float32]


def _tree(chunks: Float32Array) -> Float32Array:
    """The same in NumPy: neighbours first."""
    while len(chunks) > 1:
        odd = chunks[len(chunks) // 2 * 2 :]
        chunks = np.concatenate([chunks[: len(chunks) - len(odd) : 2] + chunks[1::2], odd])
    return np.asarray(chunks[0])


def _sum(chunks: Float32Array, target: Target, threads: int) -> Float32Array:
    count, floats = chunks.shape
    stages = sum_stages(Chunks(count, 1), Slot("workspace"), floats, floats)
    places = guarded_copy(chunks, "after")
    Program(stages, target, threads, 0).run({"workspace": address(places)})
    return np.array(places[0])


@pytest.mark.parametrize("target", TARGETS, ids=name_of)
@pytest.mark.parametrize("count", [2, 3, 5, 7, 8, 13])
def test_chunks_are_added_as_a_tree(target: Target, count: int) -> None:
    rng = np.random.default_rng(count)
    chunks = rng.standard_normal((count, 2192), dtype=np.float32)
    for threads in (1, 3):
        np.testing.assert_array_equal(_sum(chunks, target, threads), _tree(chunks))


def test_errors_grow_with_the_levels_and_not_with_the_chunks() -> None:
    """Of numbers of one sign, at most half a unit a level; in order they lose four digits."""
    rng = np.random.default_rng(0)
    for count in (16, 256, 4096):
        chunks = rng.uniform(0.5, 1.0, (count, 64)).astype(np.float32)
        exact = chunks.sum(axis=0, dtype=np.float64)
        pairwise = np.abs(_sum(chunks, TARGETS[0], 1) / exact - 1).max()
        in_order = np.abs(np.cumsum(chunks, axis=0, dtype=np.float32)[-1] / exact - 1).max()
        assert pairwise <= 2.0**-24 * Chunks(count, 1).levels
        assert pairwise < in_order
    assert in_order > 20 * pairwise


def test_chunks_are_as_many_as_have_room() -> None:
    assert choose_chunks(7, 4, 100, 1000) == Chunks(1, 7)
    assert choose_chunks(100, 4, 100, 1000) == Chunks(10, 10)
    assert choose_chunks(101, 4, 1, 1000) == Chunks(21, 5)
    assert choose_chunks(100, 4, 2000, 1000) == Chunks(1, 100)
    assert Chunks(21, 5).levels == 5
    assert Chunks(1, 100).levels == 0
