"""A layer's way: prepared, verified, timed, and what becomes of those that fail."""

from __future__ import annotations

from nnpack.cli.bench.contestant import Contestant, Operands, Prepared
from nnpack.cli.bench.layers import Layer
from nnpack.cli.bench.session import Setting, measure_layer
from nnpack.cli.bench.timing import Schedule
from tests.cli.bench.fakes import SMALL, FakeTime, broken_peer, convolve, fake_peer


def setting() -> Setting:
    return Setting(batch=2, threads=1, schedule=Schedule(rounds=2), clock=FakeTime().clock)


def test_exact_and_approximate_outputs_are_timed_and_told_apart() -> None:
    result = measure_layer(SMALL, [fake_peer("good"), fake_peer("rough", 1e-3)], setting())
    good, rough = result.measurements
    assert len(good.samples) == len(rough.samples) == 2
    assert good.is_exact
    assert not rough.is_exact
    assert good.reason is rough.reason is None


def test_a_wrong_output_is_not_timed() -> None:
    (wrong,) = measure_layer(SMALL, [fake_peer("wrong", 0.5)], setting()).measurements
    assert wrong.samples == ()
    assert wrong.reason is not None
    assert wrong.reason.startswith("wrong output, error")


def test_one_that_raises_gives_the_first_line_of_its_reason() -> None:
    result = measure_layer(SMALL, [broken_peer("broken"), fake_peer("good")], setting())
    broken, good = result.measurements
    assert broken.reason == "NotImplementedError: no 3x3 today"
    assert good.samples


def test_the_second_output_is_what_is_verified() -> None:
    """A library that spoils its own input or weights in the first run is found out."""

    def prepare(layer: Layer, operands: Operands, _threads: int) -> Prepared:
        outputs = iter([convolve(layer, operands), convolve(layer, operands) * 2])
        return Prepared(lambda: next(outputs), lambda output: output)

    (spoilt,) = measure_layer(SMALL, [Contestant("spoiler", (), prepare)], setting()).measurements
    assert spoilt.reason is not None


def test_one_that_breaks_down_later_keeps_its_error_and_has_a_reason() -> None:
    def prepare(layer: Layer, operands: Operands, _threads: int) -> Prepared:
        y, left = convolve(layer, operands), [1] * 4
        return Prepared(lambda: (left.pop(), y), lambda output: output[1])

    (tired,) = measure_layer(SMALL, [Contestant("tired", (), prepare)], setting()).measurements
    assert tired.samples == ()
    assert tired.is_exact
    assert tired.reason == "IndexError: pop from empty list"


def test_watchers_are_told_what_happens() -> None:
    steps: list[tuple[str, str]] = []
    measure_layer(SMALL, [fake_peer("good")], setting(), lambda *step: steps.append(step))
    assert steps == [
        ("reference in float64", ""),
        ("verifying good", "good"),
        ("timing, round 1", "good"),
        ("timing, round 2", "good"),
    ]
