"""A touch beyond a guarded array kills the child that does it, and nothing else."""

from __future__ import annotations

import ctypes
import signal

import numpy as np
import pytest

from tests.guard import Side, guarded_array, guarded_copy, run_guarded

CRASHES = (-signal.SIGSEGV, -signal.SIGBUS)


def _address(array: object) -> int:
    assert isinstance(array, np.ndarray)
    return array.ctypes.data


@pytest.mark.parametrize("shape", [(1,), (3, 5), (1024,), (1025,), (2, 3, 17, 31)])
@pytest.mark.parametrize("side", ["before", "after"])
def test_every_element_can_be_read_and_written(shape: tuple[int, ...], side: Side) -> None:
    array = guarded_array(shape, side)
    assert array.dtype == np.float32
    assert array.shape == shape
    assert array.flags.c_contiguous
    assert not array.any()
    array[...] = 7
    assert (array == 7).all()


@pytest.mark.parametrize("count", [1, 5, 1024, 1025])
def test_a_read_behind_the_last_byte_crashes(count: int) -> None:
    array = guarded_array(count, "after")
    behind = _address(array) + array.nbytes
    assert run_guarded(lambda: ctypes.string_at(behind - 1, 1)) == 0
    assert run_guarded(lambda: ctypes.string_at(behind, 1), quiet=True) in CRASHES


@pytest.mark.parametrize("count", [1, 5, 1024, 1025])
def test_a_read_ahead_of_the_first_byte_crashes(count: int) -> None:
    array = guarded_array(count, "before")
    first = _address(array)
    assert run_guarded(lambda: ctypes.string_at(first, 1)) == 0
    assert run_guarded(lambda: ctypes.string_at(first - 1, 1), quiet=True) in CRASHES


@pytest.mark.parametrize("side", ["before", "after"])
def test_a_write_beyond_crashes(side: Side) -> None:
    array = guarded_array(3, side, np.int64)
    place = _address(array) + (array.nbytes if side == "after" else -1)
    assert run_guarded(lambda: ctypes.memset(place, 1, 1), quiet=True) in CRASHES


def test_an_empty_array_may_not_be_read_at_all() -> None:
    array = guarded_array((0, 3), "after")
    assert array.shape == (0, 3)
    address = _address(array)
    assert run_guarded(lambda: ctypes.string_at(address, 1), quiet=True) in CRASHES


def test_a_copy_has_the_values_and_the_guard() -> None:
    copy = guarded_copy(np.arange(12, dtype=np.float32).reshape(3, 4).T, "after")
    np.testing.assert_array_equal(copy, np.arange(12).reshape(3, 4).T)
    behind = _address(copy) + copy.nbytes
    assert run_guarded(lambda: ctypes.string_at(behind, 1), quiet=True) in CRASHES


def test_an_exception_in_the_child_is_status_1() -> None:
    def fail() -> None:
        raise ValueError

    assert run_guarded(fail, quiet=True) == 1


def test_a_child_that_never_ends_is_ended() -> None:
    assert run_guarded(signal.pause, seconds=1, quiet=True) == -signal.SIGALRM


def test_views_keep_the_memory_alive() -> None:
    view = guarded_array((4, 4), "after")[1:, 2:]
    view[...] = 1
    assert view.sum() == 6
