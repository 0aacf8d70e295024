"""How a product is parted into tasks: all of it, within bounds, and evenly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnpack.algorithms.base import ceil_div
from nnpack.algorithms.sharing import Share, share_out


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
