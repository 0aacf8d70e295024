"""Measuring in a process of its own, which may die."""

from __future__ import annotations

import os
import time

import pytest

from nnpack.cli.bench.contestant import Contestant, Operands, Prepared
from nnpack.cli.bench.isolation import Isolated
from nnpack.cli.bench.layers import Layer
from nnpack.cli.bench.session import Setting
from nnpack.cli.bench.timing import Schedule
from tests.cli.bench.fakes import SMALL, STRIDED, convolve

SETTING = Setting(batch=1, threads=1, schedule=Schedule(rounds=2))


def prepare(layer: Layer, operands: Operands, _threads: int) -> Prepared:
    y = convolve(layer, operands)
    return Prepared(lambda: y, lambda output: output)


def crash(_layer: Layer, _operands: Operands, _threads: int) -> Prepared:
    os._exit(3)


def crash_later(layer: Layer, operands: Operands, _threads: int) -> Prepared:
    y, runs = convolve(layer, operands), iter(range(3))
    return Prepared(lambda: y if next(runs, None) is not None else os._exit(3), lambda _: y)


def hang(_layer: Layer, _operands: Operands, _threads: int) -> Prepared:
    time.sleep(1000)
    raise AssertionError


def ignore(_step: str, _contestant: str) -> None:
    pass


@pytest.mark.parametrize("bad", [crash, crash_later])
def test_one_that_brings_the_process_down_costs_nobody_else_anything(bad: object) -> None:
    measurer = Isolated()
    contestants = (
        Contestant("good", (), prepare),
        Contestant("bad", (), bad),  # type: ignore[arg-type]
        Contestant("other", (), prepare),
    )
    try:
        for layer in (SMALL, STRIDED):
            result = measurer.measure(layer, contestants, SETTING, ignore)
            assert result.layer == layer
            found = {m.contestant: (len(m.samples), m.reason) for m in result.measurements}
            assert found == {
                "good": (2, None),
                "other": (2, None),
                "bad": (0, "crashed or hung"),
            }
    finally:
        measurer.close()


def test_one_that_hangs_is_ended() -> None:
    measurer = Isolated(longest_step_seconds=5.0)
    contestants = Contestant("good", (), prepare), Contestant("stuck", (), hang)
    try:
        result = measurer.measure(SMALL, contestants, SETTING, ignore)
    finally:
        measurer.close()
    assert [m.reason for m in result.measurements] == [None, "crashed or hung"]


def test_steps_are_passed_on() -> None:
    measurer, steps = Isolated(), []
    try:
        measurer.measure(
            SMALL, [Contestant("good", (), prepare)], SETTING, lambda *step: steps.append(step)
        )
    finally:
        measurer.close()
    assert ("verifying good", "good") in steps
