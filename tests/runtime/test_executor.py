"""Every task is run exactly once, stage after stage, whoever runs it and however many there are."""

from __future__ import annotations

import random
import threading

import numpy as np
import pytest

from nnpack.codegen.compiler import emit_object
from nnpack.codegen.target import AVX2, AVX512, NEON, X86_64, Target
from nnpack.runtime.executor import RunFrame, StopWorkers, WorkerMain
from nnpack.runtime.workers import _has_futex
from tests.runtime.stages import (
    Fill,
    Meet,
    Recorder,
    SetFloatState,
    Total,
    call_here,
    make_frame,
    run,
)


@pytest.mark.parametrize("threads", range(1, 9))
@pytest.mark.parametrize("tasks", [0, 1, 2, 3, 7, 8, 33, 1000])
def test_every_task_runs_once(tasks: int, threads: int) -> None:
    record = Recorder(tasks)
    for _ in range(200):
        run(record.frame, threads)
    assert (record.counts[:tasks] == 200).all()
    assert (record.workers >= 0).all()
    assert (record.workers < threads).all()


def test_a_frame_without_stages_is_done_at_once() -> None:
    for threads in (1, 2, 8):
        run(np.zeros(1, np.int64), threads)


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_a_stage_sees_all_that_the_one_before_has_written(threads: int) -> None:
    values, totals = np.zeros(200, np.int64), np.zeros(8, np.int64)
    for value in range(400):
        fill = (Fill(), 200, (values, value))
        total = (Total(), 8, (totals, values, 200))
        run(make_frame(fill, total, total, fill, total), threads)
        assert (totals == 200 * value + 199 * 100).all()


def test_hundreds_of_stages_of_all_sizes() -> None:
    records = [Recorder(tasks) for tasks in range(300)]
    frame = make_frame(*[record.stage for record in records])
    for threads in (2, 5, 1, 16, 2):
        run(frame, threads)
    for tasks, record in enumerate(records):
        assert (record.counts[:tasks] == 5).all()


def test_callers_of_many_threads_at_once_get_their_own_work_done() -> None:
    def call(number: int) -> None:
        record = Recorder(50 + number)
        for i in range(400):
            run(record.frame, 1 + (i + number) % 4)
        done[number] = bool((record.counts == 400).all())

    done = [False] * 8
    callers = [threading.Thread(target=call, args=(number,)) for number in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert all(done)


@pytest.mark.parametrize("threads", [2, 4, 16])
def test_no_two_threads_have_the_same_number(threads: int) -> None:
    inside, clashes = np.zeros(threads, np.int64), np.zeros(1, np.int64)
    frame = make_frame((Meet(), 64, (inside, clashes, 20)))
    for _ in range(200):
        run(frame, threads)
    assert clashes[0] == 0
    assert (inside == 0).all()


def test_more_threads_than_processors_and_workers_than_the_pool_has() -> None:
    record = Recorder(700)
    for threads in (16, 300, 16, 10**6):
        run(record.frame, threads)
    assert (record.counts == 4).all()
    assert record.workers.max() < 256


def test_the_number_of_threads_may_change_from_run_to_run() -> None:
    record = Recorder(40)
    for i in range(2000):
        run(record.frame, 1 + i * 7 % 11)
    assert (record.counts == 2000).all()


def test_workers_sleep_and_wake_between_runs() -> None:
    record, pause = Recorder(20), threading.Event()
    for i in range(150):
        run(record.frame, 2 + i % 3)
        pause.wait(0.00005 * (i % 6))  # around the time after which workers go to sleep
    assert (record.counts == 150).all()


@pytest.mark.skipif(not _has_futex(), reason="there are no workers here")
def test_no_worker_is_lost() -> None:
    """After many sleeps and wake-ups at the worst of times every worker still takes its share."""
    record, pause, chance = Recorder(12), threading.Event(), random.Random(0)
    for _ in range(1500):
        run(record.frame, chance.randint(2, 6))
        pause.wait(chance.choice((0, 0, 0.00002, 0.00005, 0.0001)))
    meeting = Recorder(24)
    inside = np.zeros((2, 8), np.int64)
    frame = make_frame((Meet(), 24, (inside[0], inside[1], 10_000)), meeting.stage)
    seen = set[int]()
    for _ in range(2000):
        run(frame, 6)
        seen.update(meeting.workers.tolist())
        if seen == set(range(6)):
            return
        pause.wait(0.001)
    pytest.fail(f"only {seen} came")


@pytest.mark.skipif(not _has_futex(), reason="there are no workers here")
def test_threads_begin_with_shares_of_their_own() -> None:
    """As soon as both are awake, the second thread takes the first task of the second half."""
    record, pause, inside = Recorder(8), threading.Event(), np.zeros((2, 8), np.int64)
    frame = make_frame((Meet(), 24, (inside[0], inside[1], 10_000)), record.stage)
    for _ in range(2000):
        run(frame, 2)
        if record.workers[[0, 4]].tolist() == [0, 1]:
            return
        pause.wait(0.001)
    pytest.fail("the halves were never begun by a thread each")


def test_workers_compute_with_the_float_state_of_the_caller() -> None:
    record, meet = Recorder(64), np.zeros((2, 8), np.int64)
    frame = make_frame((Meet(), 64, (meet[0], meet[1], 100)), record.stage)
    run(frame, 4)
    usual = int(record.states[0])
    assert (record.states == usual).all()
    flushing = usual | (1 << 15 if usual & 0x1F80 else 1 << 24)  # MXCSR masks traps, FPCR is 0
    try:
        call_here(SetFloatState(), flushing)
        for _ in range(50):
            run(frame, 4)
            assert (record.states == flushing).all()
    finally:
        call_here(SetFloatState(), usual)
    run(frame, 4)
    assert (record.states == usual).all()


@pytest.mark.parametrize("target", [AVX512, AVX2, X86_64, NEON], ids=lambda t: t.name)
def test_compiles_for_every_target(target: Target) -> None:
    for specification in (RunFrame(), WorkerMain(), StopWorkers()):
        assert emit_object(specification, target)
