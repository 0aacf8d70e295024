"""Memory comes back when nobody uses it, is nobody else's before, and is kept within bounds."""

from __future__ import annotations

import copy
import gc
import mmap
import pickle
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnpack.runtime import memory
from nnpack.runtime.memory import (
    MIB,
    Recycler,
    address,
    borrow_workspace,
    empty_output,
    return_workspace,
    size_class,
    trim,
)
from tests.runtime.stages import run_script

LARGE = (1, 64, 112, 112)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 5), (2, 3), LARGE, (3, 64, 200, 201)])
def test_an_output_is_an_ordinary_array(shape: tuple[int, ...]) -> None:
    y = empty_output(shape)
    assert type(y) is np.ndarray
    assert y.shape == shape
    assert y.dtype == np.float32
    assert y.flags.c_contiguous
    assert y.flags.writeable
    assert y.flags.aligned
    y[...] = np.arange(y.size).reshape(shape)
    for other in (copy.deepcopy(y), pickle.loads(pickle.dumps(y)), y.copy()):
        np.testing.assert_array_equal(other, y)


def test_the_pages_of_a_result_come_back() -> None:
    trim()
    y = empty_output(LARGE)
    first = address(y)
    del y
    z = empty_output((1, 63, 112, 112))  # a little smaller: the same class
    assert address(z) == first


def test_a_view_keeps_the_pages() -> None:
    trim()
    y = empty_output(LARGE)
    y[:] = 1
    first, view = address(y), y[0, 3:5, ::2].T
    del y
    gc.collect()
    z = empty_output(LARGE)
    z[:] = 2
    assert address(z) != first
    assert (view == 1).all()
    del view
    assert address(empty_output(LARGE)) == first


def test_live_results_never_share() -> None:
    results = [empty_output(LARGE) for _ in range(5)]
    for i, y in enumerate(results):
        y.fill(i)
    assert all((y == i).all() for i, y in enumerate(results))


def test_trim_frees_what_lies_idle_and_nothing_else() -> None:
    kept = empty_output(LARGE)
    kept[:] = 3
    del_me = empty_output(LARGE)
    del del_me
    return_workspace(borrow_workspace(MIB))
    trim()
    assert memory._outputs.idle_bytes() == 0
    assert memory._workspaces.idle_bytes() == 0
    assert (kept == 3).all()


def test_large_results_start_on_huge_pages() -> None:
    assert address(empty_output((1024, 1024))) % memory.HUGE_PAGE == 0


@pytest.mark.parametrize("nbytes", [0, 1, 64, 65_537, 3 * MIB])
def test_a_workspace_has_the_size_asked_for(nbytes: int) -> None:
    block = borrow_workspace(nbytes)
    assert block.nbytes >= nbytes
    assert block.address % 64 == 0
    return_workspace(block)


def test_borrowers_at_once_never_share_a_workspace() -> None:
    def work() -> None:
        for i in range(2000):
            block = borrow_workspace(70_000 * (1 + i % 3))
            if block.address in taken:
                clashes.append(block.address)
            taken.add(block.address)
            taken.discard(block.address)
            return_workspace(block)

    taken, clashes = set[int](), list[int]()
    borrowers = [threading.Thread(target=work) for _ in range(6)]
    for borrower in borrowers:
        borrower.start()
    for borrower in borrowers:
        borrower.join()
    assert not clashes


def test_a_returned_workspace_is_used_again() -> None:
    block = borrow_workspace(MIB)
    first = block.address
    return_workspace(block)
    assert borrow_workspace(MIB).address == first


def test_what_lies_idle_is_bounded_and_the_oldest_goes_first() -> None:
    recycler = Recycler(4 * MIB)
    blocks = [recycler.take(MIB) for _ in range(4)] + [recycler.take(2 * MIB)]
    for block in blocks:
        recycler.give(block)
    assert recycler.idle_bytes() <= 4 * MIB
    kept = [recycler.take(2 * MIB), *[recycler.take(MIB) for _ in range(2)]]
    assert {block.address for block in kept} == {block.address for block in blocks[2:]}


def test_a_block_beyond_the_bound_is_not_kept_and_drives_out_nothing() -> None:
    recycler = Recycler(2 * MIB)
    small, large = recycler.take(MIB), recycler.take(4 * MIB)
    recycler.give(small)
    recycler.give(large)
    assert recycler.idle_bytes() == MIB


def test_idle_blocks_make_room_and_what_is_too_much_is_a_memory_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def map_pages(nbytes: int) -> mmap.mmap:
        if nbytes > MIB or recycler.idle_bytes():
            raise MemoryError(f"no memory for {nbytes} bytes")
        return mmap.mmap(-1, nbytes)

    recycler = Recycler(4 * MIB)
    recycler.give(recycler.take(65_536))
    monkeypatch.setattr(memory, "_map_pages", map_pages)
    assert recycler.take(MIB).nbytes == MIB
    with pytest.raises(MemoryError, match="bytes"):
        recycler.take(2 * MIB)


def test_many_threads_give_and_take_within_the_bound() -> None:
    recycler = Recycler(MIB)

    def work() -> None:
        for i in range(300):
            blocks = [recycler.take(65_536 << n) for n in range(1 + i % 4)]
            for block in blocks:
                recycler.give(block)

    users = [threading.Thread(target=work) for _ in range(6)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert recycler.idle_bytes() <= MIB


@given(st.integers(1, 2**45))
def test_a_size_class_wastes_an_eighth_at_most(nbytes: int) -> None:
    rounded = size_class(nbytes)
    assert nbytes <= rounded <= max(nbytes + nbytes / 8 + 1, nbytes + memory.PAGE)
    assert rounded % memory.PAGE == 0
    assert size_class(rounded) == rounded


def test_addresses_of_all_kinds_of_arrays() -> None:
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    fixed = np.arange(5.0)
    fixed.flags.writeable = False
    for array in (x, x[1], x[::-1, 1:, ::2], x.T, x[:0], np.empty((0, 3)), fixed, np.array(1.0)):
        assert address(array) == array.__array_interface__["data"][0]
        assert memory._address_by_layout(array) == memory._address_by_asking(array)


def test_results_that_outlive_everything_end_in_silence() -> None:
    process = run_script("""
from nnpack.runtime import memory
results = [memory.empty_output((100, 100, 100)) for _ in range(3)]
results[0][:] = 1
sys.modules["kept"] = results[0][::2]
class Holder:
    pass
holder = Holder(); holder.me = holder; holder.y = results[1]
""")
    with process:
        assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 0
