"""How a product is parted into tasks: all of it, within bounds, and evenly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnpack.algorithms.base import ceil_div
from nnpack.algorithms.sharing import Share, share_out
from nnpack.algorithms.table import ALGORITHMS
from nnpack.codegen.compiler import Specification
from nnpack.codegen.target import AVX512
from nnpack.kernels.tile_stage import TileStage
from nnpack.kernels.tiles import TileProduct
from nnpack.plan import kernels_of
from nnpack.problem import Problem


def tasks(share: Share, strips: int, panels: int, images: int) -> int:
    return images * ceil_div(strips, share.strips) * ceil_div(panels, share.panels)


@given(
    st.integers(1, 300), st.integers(1, 300), st.integers(1, 80), st.integers(0, 20), st.booleans()
)
def test_one_thread_takes_the_largest_tasks(
    strips: int, most: int, panels: int, images: int, packed: bool
) -> None:
    share = share_out(strips, most, panels, images, 1, packed)
    assert share.panels == panels
    assert share.strips <= min(strips, most)
    assert ceil_div(strips, share.strips) == ceil_div(strips, min(strips, most))


@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.integers(1, 80),
    st.integers(1, 20),
    st.integers(2, 64),
)
def test_tasks_stay_within_bounds(
    strips: int, most: int, panels: int, images: int, threads: int
) -> None:
    share = share_out(strips, most, panels, images, threads, packed=True)
    assert 1 <= share.strips <= min(strips, most)
    assert 1 <= share.panels <= panels


@pytest.mark.parametrize("threads", [2, 3, 4, 8])
@pytest.mark.parametrize(
    ("strips", "panels"), [(14, 32), (14, 8), (7, 43), (66, 32), (13, 13), (1, 64)]
)
def test_threads_finish_together(strips: int, panels: int, threads: int) -> None:
    share = share_out(strips, strips, panels, 1, threads, packed=False)
    count = tasks(share, strips, panels, 1)
    longest = ceil_div(count, threads) * share.strips * share.panels
    assert longest <= 1.2 * strips * panels / threads


def _transforms(name: str, dilation: int, smallest: int) -> list[set[Specification]]:
    """The routines, but for products, that plans for images of ten sizes need, size by size."""
    (algorithm,) = (a for a in ALGORITHMS if a.name == name)
    found = []
    for size in range(smallest, smallest + 10):
        shape, padding = (1, 64, size, size + 2), dilation
        problem = Problem.conv2d(shape, (48, 64, 3, 3), padding=padding, dilation=dilation)
        plans = [algorithm.build(problem, AVX512, threads) for threads in (1, 2, 7)]
        kernels = {kernel for plan in plans for kernel in kernels_of(plan.stages)}
        found.append({k for k in kernels if not isinstance(k, (TileStage, TileProduct))})
    return found


@pytest.mark.parametrize("name", ["winograd_4", "winograd_6", "fourier_16"])
def test_another_image_size_needs_no_other_transforms(name: str) -> None:
    """But for few Fourier tiles, of smaller images: their products have another form."""
    first, *others = _transforms(name, 1, 29)
    assert len(first) == 2
    assert all(other == first for other in others)


def test_phases_of_two_extents_need_transforms_of_two_extents() -> None:
    """Both in either direction, loaded one, four, eight or sixteen together."""
    needed = set().union(*_transforms("polyphase", 12, 25))
    shapes = {(kernel.shape.m, type(kernel).__name__) for kernel in needed}  # type: ignore[attr-defined]
    assert {m for m, _ in shapes} == {(a, b) for a in (2, 3) for b in (2, 3)}
    assert len(needed) <= 4 * (4 + 1)
