"""Results written into some channels of a larger array."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nnpack
from nnpack.algorithms.table import ALGORITHMS
from nnpack.errors import AlgorithmError, ProblemError

RNG = np.random.default_rng(9)


def random(*shape: int) -> Any:
    return RNG.standard_normal(shape, dtype=np.float32)


def channels(array: Any, first: int, count: int) -> Any:
    return array[:, first : first + count]


# Tiles between the least and the greatest store as those do.
BETWEEN = ("winograd_3", "winograd_5", "cook_toom_3")
NAMES = ("auto", *(a.name for a in ALGORITHMS if a.name not in BETWEEN))


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("algorithm", NAMES)
def test_every_algorithm_writes_them_in_place(algorithm: str, kernel: int) -> None:
    for groups, stride in ((1, 1), (1, 2), (20, 1), (2, 1)):
        x, weight = random(3, 20, 13, 11), random(20, 20 // groups, kernel, kernel)
        words: dict[str, Any] = {"groups": groups, "stride": stride, "padding": kernel // 2}
        try:
            expected = nnpack.conv2d(x, weight, algorithm=algorithm, **words)
        except AlgorithmError:
            continue
        whole = np.full((3, 29, *expected.shape[2:]), 7, np.float32)
        out = channels(whole, 4, 20)
        assert nnpack.conv2d(x, weight, algorithm=algorithm, out=out, **words) is out
        np.testing.assert_array_equal(out, expected)
        assert (whole[:, :4] == 7).all()
        assert (whole[:, 24:] == 7).all()


EPILOGUES: dict[str, dict[str, Any]] = {
    "pool": {"pool": nnpack.MaxPool(2), "activation": nnpack.Relu()},
    "statistics": {"statistics": True},
    "residual": {"activation": nnpack.Relu()},
    "out as residual": {},
}


@pytest.mark.parametrize("layer", [False, True], ids=["function", "layer"])
@pytest.mark.parametrize("transposed", [False, True], ids=["forward", "transposed"])
@pytest.mark.parametrize("epilogue", EPILOGUES)
def test_with_every_epilogue(epilogue: str, transposed: bool, layer: bool) -> None:
    x, weight = random(2, 8, 9, 7), random(8, 8, 3, 3)
    options = {**EPILOGUES[epilogue], "stride": 2, "padding": 1}
    function: Any = nnpack.conv_transpose2d if transposed else nnpack.conv2d
    given = [x, weight]
    if layer:
        function = (nnpack.ConvTranspose2d if transposed else nnpack.Conv2d)(weight, **options)
        given, options = [x], {}
    expected = function(*given, **options)
    shape = (expected[0] if isinstance(expected, tuple) else expected).shape
    whole = random(shape[0], 11, *shape[2:])
    before, out = whole.copy(), channels(whole, 2, 8)
    if "residual" in epilogue:
        options["residual"] = random(*shape) if epilogue == "residual" else out
        copied = {**options, "residual": options["residual"].copy()}
        expected = function(*given, **copied)
    result = function(*given, **options, out=out)
    if isinstance(expected, tuple):
        for moment, other in zip(result[1:], expected[1:], strict=True):
            np.testing.assert_array_equal(moment, other)
        result, expected = result[0], expected[0]
    assert result is out
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(whole[:, [0, 1, 10]], before[:, [0, 1, 10]])


def test_a_block_of_a_dense_network_reads_and_writes_one_array() -> None:
    features = random(4, 24, 10, 10)
    weights = [random(4, n, 3, 3) for n in (16, 20)]
    expected = features[:, :16].copy()
    layers = [nnpack.Conv2d(weight, padding=1, activation=nnpack.Relu()) for weight in weights]
    for layer in layers:
        expected = np.concatenate([expected, layer(expected)], axis=1)
    for n, layer in zip((16, 20), layers, strict=True):
        layer(channels(features, 0, n), out=channels(features, n, 4))
    np.testing.assert_array_equal(features, expected)


def test_channels_that_are_read_are_not_written() -> None:
    features, weight = random(2, 24, 10, 10), random(4, 16, 3, 3)
    before = features.copy()
    for first in (0, 13, 15):
        x, out = channels(features, 0, 16), channels(features, first, 4)
        with pytest.raises(ProblemError, match="out overlaps x"):
            nnpack.conv2d(x, weight, padding=1, out=out)
    for out in (features[:, :8:2], features[:, :4, :, ::-1], features[::-1, 20:]):
        with pytest.raises(ProblemError):
            nnpack.conv2d(random(2, 16, 10, 10), weight, padding=1, out=out)
    np.testing.assert_array_equal(features, before)
