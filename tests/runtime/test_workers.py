"""Processes that fork, are interrupted, or end, whatever their workers are doing."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time

import pytest

from nnpack.runtime import workers
from tests.runtime.stages import Recorder, run, run_script

linux_only = pytest.mark.skipif(not workers._has_futex(), reason="there are no workers here")
can_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for a script, which must succeed without a complaint; return what it printed."""
    with process:
        try:
            output, errors = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGABRT)  # it and its children show where they are
            raise AssertionError(process.communicate()[1]) from None
    assert process.returncode == 0, errors
    assert not errors
    return output


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_exit_right_after_a_run(threads: int) -> None:
    finish(run_script(f"check({threads}, runs=3)"))


def test_exit_without_a_run() -> None:
    finish(run_script(""))


def test_exit_while_workers_sleep() -> None:
    finish(run_script("check(4)\ntime.sleep(0.2)"))


def test_exit_while_daemon_threads_run_frames() -> None:
    finish(
        run_script("""
def work():
    record = Recorder(100)
    while True:
        run(record.frame, 3)
for _ in range(4):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.3)
""")
    )


def test_exit_while_a_daemon_thread_is_in_a_long_run() -> None:
    finish(
        run_script("""
inside, clashes = np.zeros((2, 8), np.int64)
frame = make_frame((Meet(), 16, (inside, clashes, 10**8)))
threading.Thread(target=run, args=(frame, 2), daemon=True).start()
time.sleep(0.3)
""")
    )


def test_frames_run_on_after_the_workers_have_stopped() -> None:
    """Other exit handlers may come later than ours: they find no workers, but no end either."""
    output = finish(
        run_script("""
import atexit
from nnpack.runtime import workers
check(4)
workers._stop_workers()
check(4)
check(8)
workers._stop_workers()
print("done")
""")
    )
    assert output == "done\n"


@linux_only
def test_exit_ends_the_workers() -> None:
    finish(
        run_script("""
from nnpack.runtime import workers
check(8)
def count(): return len(os.listdir("/proc/self/task"))
before = count()
workers._stop_workers()
for _ in range(5000):  # a joined thread stays in the list for a moment
    if count() == before - 7: break
    time.sleep(0.001)
assert count() == before - 7
""")
    )


@can_fork
def test_a_forked_child_has_workers_of_its_own() -> None:
    output = finish(
        run_script("""
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
check(4)
for leave in (os._exit, sys.exit):
    child = os.fork()
    if not child:
        check(1), check(4), check(8)
        if not os.fork():
            check(3)
            leave(0)
        assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
        leave(0)
    check(4)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
check(6)
print("done")
""")
    )
    assert output == "done\n"


@can_fork
def test_a_fork_while_other_threads_run_frames() -> None:
    output = finish(
        run_script("""
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
stop = threading.Event()
def work():
    while not stop.is_set():
        check(3, runs=20)
others = [threading.Thread(target=work) for _ in range(3)]
for other in others: other.start()
for _ in range(10):
    child = os.fork()
    if not child:
        check(4, runs=10)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
stop.set()
for other in others: other.join()
print("done")
""")
    )
    assert output == "done\n"


@can_fork
def test_processes_of_multiprocessing() -> None:
    output = finish(
        run_script("""
import multiprocessing, warnings
warnings.simplefilter("ignore", DeprecationWarning)
check(2)
with multiprocessing.get_context("fork").Pool(3) as pool:
    pool.map(check, [1, 2, 3, 4])
check(2)
print("done")
""")
    )
    assert output == "done\n"


@linux_only
def test_an_interrupt_is_raised_after_the_run_and_does_no_harm() -> None:
    # A background job inherits SIGINT ignored, and Python then raises nothing.
    process = run_script("""
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
inside, clashes = np.zeros((2, 8), np.int64)
frame = make_frame((Meet(), 16, (inside, clashes, 10**6)))
check(4)
print("ready", flush=True)
try:
    while True:
        run(frame, 4)
except KeyboardInterrupt:
    assert (inside == 0).all()
    check(4)
    check(8)
    print("interrupted")
""")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    assert finish(process) == "interrupted\n"


@linux_only
def test_workers_take_no_signals() -> None:
    """Looked at once they run: until then the C library itself blocks all signals in them."""
    output = finish(
        run_script("""
from nnpack.runtime import layout, workers
check(4)
def name(worker):
    slot = layout.SLOTS + layout.SLOT_WORDS * worker
    return workers._process.pool._words[slot + layout.SLOT_THREAD]
for worker in (1, 2, 3):
    while not name(worker):
        time.sleep(0.001)
    with open(f"/proc/self/task/{name(worker)}/status") as file:
        blocked = int(next(line for line in file if line.startswith("SigBlk")).split()[1], 16)
    print([name for name in ("SIGINT", "SIGTERM", "SIGALRM", "SIGSEGV")
           if blocked >> (getattr(signal, name) - 1) & 1])
print(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
""")
    )
    assert output.splitlines() == ["['SIGINT', 'SIGTERM', 'SIGALRM']"] * 3 + ["set()"]


@linux_only
def test_a_caller_bound_to_one_processor_does_not_bind_the_workers() -> None:
    finish(
        run_script("""
everywhere = os.sched_getaffinity(0)
check(3)
before = set(os.listdir("/proc/self/task"))
os.sched_setaffinity(0, {min(everywhere)})
for _ in range(20):
    check(3, runs=5)
    time.sleep(0.001)
os.sched_setaffinity(0, everywhere)
check(3)
""")
    )


def test_without_futexes_everything_runs_on_the_calling_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workers, "_process", workers._Process())
    monkeypatch.setattr(workers, "_has_futex", lambda: False)
    record = Recorder(100)
    run(record.frame, 4)
    assert (record.counts == 1).all()
    assert (record.workers == 0).all()


@linux_only
def test_a_thread_that_cannot_be_made_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_process", workers._Process())
    monkeypatch.setattr(workers.Pool, "_start_worker", lambda *_: None)
    record = Recorder(100)
    for _ in range(10):
        run(record.frame, 4)
    assert (record.counts == 10).all()


def test_the_pool_is_made_once_by_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    process = workers._Process()
    monkeypatch.setattr(workers, "_process", process)
    record = Recorder(10)
    start = threading.Barrier(8)

    def call() -> None:
        start.wait()
        run(record.frame, 4)

    callers = [threading.Thread(target=call) for _ in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert (record.counts == 8).all()
    assert process.pool is not None
    assert process.pool.threads == (4 if workers._has_futex() else 1)
    process.pool.stop()
