"""Tuning measures what can do a problem, keeps the fastest, and computes what was asked for."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import nnpack
from nnpack import tuning
from nnpack.geometry import dense_strides
from nnpack.planner import plan_choice
from nnpack.tuning import interleave
from tests import oracle
from tests.plans import integers

SHAPE = (1, 4, 12, 12)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing known, and turns of a single call."""
    monkeypatch.setattr(tuning, "TURN_SECONDS", 0.0)
    monkeypatch.setattr(tuning, "TUNING_SECONDS", 1e-9)
    nnpack.forget_wisdom()
    yield
    nnpack.forget_wisdom()


def _layer(**words: Any) -> nnpack.Conv2d:
    return nnpack.Conv2d(integers(np.random.default_rng(1), (6, 4, 3, 3)), padding=1, **words)


def _image(shape: tuple[int, ...] = SHAPE) -> Any:
    return integers(np.random.default_rng(2), shape)


def test_the_fastest_that_was_measured_is_used() -> None:
    layer = _layer(threads=1)
    assert not layer.explain(SHAPE).measured
    explanation = layer.tune(SHAPE)
    assert explanation.measured
    times = {c.algorithm: c.measured for c in explanation.candidates if c.measured}
    assert len(times) >= 2
    assert min(times, key=lambda name: times[name] or 0.0) == explanation.chosen
    assert layer.explain(SHAPE) == explanation
    assert all(c.measured is None for c in explanation.candidates if c.refusal)


def test_a_layer_that_was_called_before_is_tuned_too() -> None:
    layer, x = _layer(threads=1), _image()
    expected = layer(x)
    layer.tune(SHAPE)
    np.testing.assert_allclose(layer(x), expected, rtol=0, atol=1e-2)


def test_tuning_holds_for_its_shape_and_threads() -> None:
    layer = _layer()
    layer.tune(SHAPE)
    assert not layer.explain((2, *SHAPE[1:])).measured
    assert not _layer(threads=nnpack.get_num_threads() + 1).explain(SHAPE).measured


def test_transposed_layers_are_tuned() -> None:
    rng = np.random.default_rng(3)
    weight, x = integers(rng, (4, 3, 3, 3)), _image()
    layer = nnpack.ConvTranspose2d(weight, stride=2)
    assert layer.tune(SHAPE).measured
    np.testing.assert_allclose(
        layer(x), oracle.conv_transpose2d(x, weight, stride=2), rtol=0, atol=1e-2
    )


def test_a_named_family_is_tuned_within_itself() -> None:
    explanation = _layer(algorithm="winograd").tune(SHAPE)
    assert explanation.chosen.startswith("winograd")
    assert explanation.measured


def test_no_images_are_not_measured() -> None:
    assert not _layer().tune((0, *SHAPE[1:])).measured


def test_a_shape_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(nnpack.ProblemError, match="channels"):
        _layer().tune((1, 5, 12, 12))


def test_layers_that_tune_measure_each_shape_once(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []

    def count(runs: Any, _seconds: float) -> dict[str, float]:
        measured.append(len(runs))
        return dict.fromkeys(runs, 1.0)

    monkeypatch.setattr(tuning, "interleave", count)
    layer, x = _layer(tune=True), _image()
    first = layer(x)
    np.testing.assert_array_equal(layer(x), first)
    once = len(measured)  # one pass, or two where the winner has variants
    assert 1 <= once <= 2
    layer(_image((2, *SHAPE[1:])))
    twice = len(measured)
    assert once < twice <= once + 2
    # What one layer has found, others need not measure.
    pickle.loads(pickle.dumps(layer))(x)
    assert len(measured) == twice
    _layer()(_image((3, *SHAPE[1:])))
    assert len(measured) == twice


def test_parts_of_larger_arrays_are_tuned_as_arrays_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tuning, "interleave", lambda runs, _: dict.fromkeys(runs, 1.0))
    planned = []

    def watch(problem: Any, *others: Any) -> Any:
        planned.append((problem.x_strides, problem.y_strides))
        return plan_choice(problem, *others)

    monkeypatch.setattr("nnpack.tuning.plan_choice", watch)
    x = _image((2, *SHAPE[1:]))
    features = np.zeros((2, 64, *SHAPE[2:]), np.float32)
    features[:, 8 : 8 + SHAPE[1]] = x
    expected = _layer()(x)
    y = features[:, -expected.shape[1] :]
    _layer(tune=True)(features[:, 8 : 8 + SHAPE[1]], out=y)
    np.testing.assert_allclose(y, expected, atol=1e-4)
    # What is measured on are arrays of the extents alone.
    assert set(planned) == {(dense_strides(x.shape)[:3], dense_strides(y.shape))}
    count = len(planned)
    _layer(tune=True)(x)
    assert len(planned) == count


class _Time:
    """A clock that only moves when told."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> float:
        return self.seconds

    def pass_by(self, seconds: float) -> Any:
        def run() -> None:
            self.seconds += seconds

        return run


def test_times_are_those_of_a_call_and_the_slow_fall_out() -> None:
    clock = _Time()
    calls: list[int] = []
    wait = clock.pass_by(1.0)

    def slow() -> None:
        calls.append(1)
        wait()

    runs = {
        "fast": clock.pass_by(0.1),
        "near": clock.pass_by(0.12),
        "slow": slow,
    }
    times = interleave(runs, 5.0, clock.now)
    assert times == pytest.approx({"fast": 0.1, "near": 0.12, "slow": 1.0})
    assert len(calls) == 2
    assert clock.seconds >= 5.0
