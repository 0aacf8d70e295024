"""Threads of PyTorch's runtime give way to the library's workers, and come back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

import nnpack
from nnpack.integrations.torch import threads
from tests.integrations.torch.tensors import randn

nt = nnpack.torch
_TASKS = Path("/proc/self/task")


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def _work_in_parallel() -> None:
    assert torch.relu(torch.ones(1 << 20)).sum().item() == 1 << 20


def _settled_count(most: int) -> int:
    """How many threads this process has, once there are at most so many or a second is over."""
    deadline = time.monotonic() + 1
    while len(list(_TASKS.iterdir())) > most and time.monotonic() < deadline:
        time.sleep(0.01)
    return len(list(_TASKS.iterdir()))


@pytest.mark.usefixtures("two_threads")
@pytest.mark.skipif(not _TASKS.exists(), reason="needs Linux's list of threads")
@pytest.mark.skipif("OpenMP" not in torch.__config__.parallel_info(), reason="needs OpenMP")
def test_threads_of_openmp_are_given_back_and_made_again() -> None:
    threads.release_openmp_threads()
    alone = _settled_count(1)
    _work_in_parallel()
    assert len(list(_TASKS.iterdir())) == alone + 1
    threads.release_openmp_threads()
    assert _settled_count(alone) == alone
    _work_in_parallel()


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(("allowed", "images", "times"), [(1, 64, 0), (2, 64, 1), (2, 1, 0)])
def test_they_are_only_sent_away_for_large_calls_on_several_threads(
    allowed: int, images: int, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    released: list[bool] = []
    monkeypatch.setattr(threads, "release_openmp_threads", lambda: released.append(True))
    monkeypatch.setattr(nnpack, "get_num_threads", lambda: allowed)
    nt.conv2d(randn(images, 32, 12, 12, grad=False), randn(32, 32, 3, 3, grad=False))
    assert len(released) == times
