"""Networks give what their layers give one by one, in one memory, whatever the shapes."""

from __future__ import annotations

import itertools
import pickle
import threading
from typing import Any

import numpy as np
import pytest

import nnpack
from nnpack.plan import place_values


def _values(*shape: int, seed: int = 1) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def _bottleneck(threads: int = 1) -> tuple[list[Any], dict[int, int]]:
    """A stem; 1x1, depthwise with a Prelu, 1x1 with the stem's result added; a pooled end."""
    words: dict[str, Any] = {"threads": threads}
    clip, slopes = nnpack.Clip(0, 6), nnpack.Prelu(_values(18))
    made = [
        nnpack.Conv2d(_values(6, 3, 3, 3), _values(6), stride=2, padding="same", **words),
        nnpack.Conv2d(_values(18, 6, 1, 1), _values(18), activation=clip, **words),
        nnpack.Conv2d(_values(18, 1, 5, 5), padding="same", groups=18, activation=slopes, **words),
        nnpack.Conv2d(_values(6, 18, 1, 1), scale=_values(6), residual_position="after", **words),
        nnpack.Conv2d(_values(9, 6, 3, 3), padding=1, pool=nnpack.MaxPool(2), **words),
        nnpack.ConvTranspose2d(_values(9, 4, 2, 2), stride=2, **words),
    ]
    return made, {3: 1}


def _one_by_one(
    layers: list[Any], residuals: dict[int, int], x: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    inputs = [x]
    for number, layer in enumerate(layers):
        added = inputs[residuals[number]] if number in residuals else None
        inputs.append(layer(inputs[-1], residual=added))
    return inputs[-1]


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_network_is_its_layers_one_by_one(threads: int) -> None:
    layers, residuals = _bottleneck(threads)
    network = nnpack.Network(layers, residuals, threads=threads)
    for shape in [(1, 3, 31, 18), (2, 3, 9, 40), (5, 3, 4, 4), (1, 3, 31, 18), (0, 3, 8, 8)]:
        x = _values(*shape)
        expected = _one_by_one(layers, residuals, x)
        out = np.full(expected.shape, np.nan, np.float32)
        assert network(x, out=out) is out
        np.testing.assert_array_equal(out, expected)
        np.testing.assert_array_equal(network(x), expected)


def test_threads_do_not_change_a_bit() -> None:
    layers, residuals = _bottleneck()
    x = _values(2, 3, 37, 50)
    one, *more = (nnpack.Network(layers, residuals, threads=n)(x) for n in (1, 2, 4))
    for other in more:
        np.testing.assert_array_equal(one, other)


def test_residuals_may_be_the_input_of_the_network_and_views_are_read() -> None:
    layer = nnpack.Conv2d(_values(4, 4, 3, 3), padding=1, activation=nnpack.Relu())
    last = nnpack.Conv2d(_values(4, 4, 1, 1))
    whole = _values(2, 8, 12, 12)
    residuals = {0: 0, 1: 0}
    network = nnpack.Network([layer, last], residuals)
    for x in (whole[:, ::2], whole[:, :4, ::-1], whole[:, 4:, :, ::2], whole[:, :4]):
        np.testing.assert_array_equal(network(x), _one_by_one([layer, last], residuals, x))


def test_fully_connected_layers_are_layers() -> None:
    first = nnpack.Linear(_values(20, 7), _values(20), activation=nnpack.Tanh())
    second = nnpack.Linear(_values(7, 20), weight_storage="float16")
    x = _values(6, 7)
    network = nnpack.Network([first, second], {1: 0})
    np.testing.assert_array_equal(network(x), second(first(x), residual=x))


def test_updated_layers_are_followed() -> None:
    layers, residuals = _bottleneck()
    network = nnpack.Network(layers, residuals)
    x = _values(1, 3, 16, 16)
    network(x)
    layers[1].update(_values(18, 6, 1, 1, seed=2), _values(18, seed=3))
    np.testing.assert_array_equal(network(x), _one_by_one(layers, residuals, x))


def test_networks_are_pickled_with_their_layers() -> None:
    layers, residuals = _bottleneck()
    network = nnpack.Network(layers, residuals, threads=1)
    x = _values(1, 3, 16, 16)
    expected = network(x)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(network))(x), expected)


def test_many_threads_may_call_one_network() -> None:
    network = nnpack.Network(*_bottleneck())
    inputs = [_values(1, 3, 20 + n % 3, 24, seed=n) for n in range(8)]
    expected = [network(x) for x in inputs]
    wrong = []

    def call() -> None:
        for _, (x, y) in itertools.product(range(10), zip(inputs, expected, strict=True)):
            wrong.extend([x] if (network(x) != y).any() else [])

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


def test_a_profile_has_the_seconds_of_every_layer() -> None:
    layers, residuals = _bottleneck()
    seconds = nnpack.Network(layers, residuals).profile(_values(1, 3, 16, 16), 3)
    assert len(seconds) == len(layers)
    assert min(seconds) > 0


@pytest.mark.parametrize(
    ("layers", "residuals", "message"),
    [
        ([], {}, "one or more layers"),
        ([_bottleneck()[0][0], len], {}, "one or more layers"),
        ([nnpack.Linear(_values(3, 3), statistics=True)], {}, "statistics"),
        (_bottleneck()[0], {3: 4}, "residuals has 3: 4"),
        (_bottleneck()[0], {6: 0}, "residuals has 6: 0; of 6 layers"),
        (_bottleneck()[0], {3: -1}, "residuals"),
        (_bottleneck()[0], {3: 0.5}, "residuals"),
    ],
)
def test_malformed_networks_are_refused(layers: Any, residuals: Any, message: str) -> None:
    with pytest.raises(nnpack.ProblemError, match=message):
        nnpack.Network(layers, residuals)


def test_shapes_that_do_not_chain_are_refused_and_nothing_written() -> None:
    layers, _ = _bottleneck()
    x, out = _values(1, 3, 16, 16), np.zeros((1, 4, 8, 8), np.float32)
    with pytest.raises(nnpack.ProblemError, match="the input of layer 0 has the shape"):
        nnpack.Network(layers, {3: 0})(x, out=out)
    with pytest.raises(nnpack.ProblemError, match="layer 1: "):
        nnpack.Network([layers[0], layers[2]])(x, out=out)
    network = nnpack.Network(layers, {3: 1})
    with pytest.raises(nnpack.ProblemError, match=r"out\.shape"):
        network(x, out=out[:, :3])
    with pytest.raises(nnpack.DtypeError, match="float64"):
        network(x.astype(np.float64))
    assert not out.any()


def test_values_that_live_at_one_time_do_not_overlap() -> None:
    rng = np.random.default_rng(5)
    for _ in range(200):
        firsts = sorted(rng.integers(0, 12, 10))
        spans = [(int(f), int(f + rng.integers(0, 5)), int(rng.integers(0, 300))) for f in firsts]
        offsets, total = place_values(spans)
        taken = [(o, o + s[2], s) for o, s in zip(offsets, spans, strict=True)]
        assert all(o % 64 == 0 and end <= total for o, end, _ in taken)
        for (a, a_end, s), (b, b_end, t) in itertools.combinations(taken, 2):
            together = s[0] <= t[1] and t[0] <= s[1]
            assert not together or a_end <= b or b_end <= a


def test_memory_is_used_again_as_soon_as_it_is_free() -> None:
    assert place_values([(n, n + 1, 64) for n in range(9)]) == ([0, 64] * 4 + [0], 128)


def test_weights_are_packed_once_for_all_batches_and_again_where_updated() -> None:
    rng = np.random.default_rng(8)
    weights = [rng.standard_normal((16, 16, 1, 1), np.float32) for _ in range(3)]
    layers = [nnpack.Conv2d(weight, threads=1) for weight in weights[:2]]
    network = nnpack.Network(layers, threads=1)
    images = [rng.standard_normal((batch, 16, 8, 8), np.float32) for batch in (1, 2, 1)]
    addresses = []
    for number, x in enumerate(images):
        if number == 2:
            layers[0].update(weights[2])
        np.testing.assert_array_equal(network(x), layers[1](layers[0](x)))
        _, prepared = network._find(x)
        addresses.append([packed.address for packed in prepared.packed if packed is not None])
    assert addresses[0] == addresses[1]
    assert addresses[2][1:] == addresses[1][1:]
    assert addresses[2][0] != addresses[1][0]
