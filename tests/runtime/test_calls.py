"""Programs called with arrays run as those called with addresses, by builtin and by ctypes."""

from __future__ import annotations

import gc
import sys
import threading

import numpy as np
import pytest

import nnpack
from nnpack.codegen.compiler import compile_kernel
from nnpack.codegen.target import host_target
from nnpack.runtime import calls
from nnpack.runtime.calls import Caller, program_words
from nnpack.runtime.executor import RunFrame
from nnpack.runtime.workers import caller_of
from tests.runtime.stages import Fill, make_frame, run_script


def _program(
    tasks: int, value: int, threads: int = 1
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Fills the array of argument 1, from its second word on."""
    frame = make_frame((Fill(), tasks, (0, value))).tolist()
    return program_words(frame, [(1, 4, 8)], threads)


@pytest.mark.parametrize("known", [True, False], ids=["builtin", "ctypes"])
def test_addresses_of_arrays_go_where_relocations_say(
    known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not known:
        monkeypatch.setattr(calls, "_is_known", lambda: False)
    call = Caller(compile_kernel(RunFrame(), host_target()), 0).call
    assert isinstance(call, type(len)) == (known and sys.implementation.name == "cpython")
    out = np.zeros(6, np.int64)
    assert call(_program(4, 10), out[:0], out) is None
    np.testing.assert_array_equal(out, [0, 10, 11, 12, 13, 0])


def test_calls_keep_no_array_and_lose_no_none() -> None:
    call, out = caller_of(_program(3, 1), 1), np.zeros(4, np.int64)
    before = sys.getrefcount(out), sys.getrefcount(None)
    for _ in range(1000):
        call(out, out)
    assert sys.getrefcount(out) == before[0]
    assert abs(sys.getrefcount(None) - before[1]) < 500
    gc.collect()


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_calls_run_on_threads_and_from_threads(threads: int) -> None:
    call = caller_of(_program(500, 7, threads), threads)
    found = [np.zeros(501, np.int64) for _ in range(4)]

    def work(out: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
        for _ in range(200):
            out[:] = 0
            call(out, out)

    callers = [threading.Thread(target=work, args=(out,)) for out in found]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    for out in found:
        np.testing.assert_array_equal(out[1:], np.arange(7, 507))


def test_a_forked_child_calls() -> None:
    child = run_script(
        "import nnpack\nx = np.full(50_000, -1, np.float32)\n"
        "assert not nnpack.relu(x, threads=2).any()\n"
        "if os.fork() == 0:\n    assert not nnpack.relu(x, threads=2).any(); os._exit(7)\n"
        "assert os.waitstatus_to_exitcode(os.wait()[1]) == 7\n"
    )
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 0, errors


def test_results_may_be_read_only_inputs_and_views() -> None:
    x = np.arange(-8, 8, dtype=np.float32).reshape(4, 4)
    x.setflags(write=False)
    np.testing.assert_array_equal(nnpack.relu(x.T), np.maximum(x.T, 0))
    np.testing.assert_array_equal(nnpack.relu(x[::2, 1:3]), np.maximum(x[::2, 1:3], 0))
