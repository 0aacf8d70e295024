"""Malformed arguments of every kind of function: one error of this package, and nothing written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nnpack
from nnpack.errors import NnpackError

nn: Any = nnpack  # whose types would refuse what is tried here


def ones(*shape: int) -> Any:
    return np.ones(shape, np.float32)


X = ones(2, 3, 4, 4)
GRADIENT = ones(2, 5, 2, 2)
MOMENTS = {"mean": ones(2), "variance": ones(2)}

MALFORMED: dict[str, Callable[[], object]] = {
    "a flag that is a number": lambda: nn.max_pool2d(X, 2, ceil_mode=1),
    "a flag that is a word": lambda: nn.avg_pool2d(X, 2, count_include_pad="no"),
    "training as a word": lambda: nn.batch_norm(X, training="yes"),
    "corners as a number": lambda: nn.upsample2d(X, 2, "bilinear", align_corners=1),
    "transposed as a number": lambda: nn.fold_batch_norm(
        X, None, None, None, **MOMENTS, transposed=1
    ),
    "slopes that are words": lambda: nn.Prelu(("a", "b")),
    "a slope beyond float32": lambda: nn.Prelu((1e300,)),
    "no list of arrays": lambda: nn.concat(None),
    "no threads for nothing": lambda: nn.batch_norm_gradient(
        X[:0], X[:0], None, ones(3), ones(3), threads=0
    ),
    "no threads for no numbers": lambda: nn.activation_gradient(
        ones(0), ones(0), nn.Tanh(), threads=0
    ),
    "ragged labels": lambda: nn.cross_entropy(ones(2, 3), [[1], [1, 2]]),
    "a list as an algorithm": lambda: nn.conv2d_weight_gradient(
        X, GRADIENT, (5, 3, 3, 3), algorithm=["direct"]
    ),
}


@pytest.mark.parametrize("malformed", MALFORMED)
def test_it_is_an_error_of_this_package(malformed: str) -> None:
    with pytest.raises(NnpackError):
        MALFORMED[malformed]()


def test_running_statistics_share_memory_with_nothing() -> None:
    moment, other = ones(3), ones(3)
    for words in (
        {"mean": moment, "variance": moment},
        {"gamma": moment, "mean": moment, "variance": other},
        {"mean": other, "variance": X[0, 0, 0, :3]},
    ):
        before = X.copy()
        with pytest.raises(NnpackError, match="overlaps"):
            nn.batch_norm(X, training=True, **words)
        np.testing.assert_array_equal(moment, 1)
        np.testing.assert_array_equal(X, before)


def test_a_gradient_is_not_written_over_its_labels() -> None:
    memory = np.zeros(6, np.float32)
    labels = memory.view(np.int32)[:2]
    with pytest.raises(NnpackError, match="overlaps labels"):
        nn.cross_entropy_gradient(ones(2, 3), labels, out=memory.reshape(2, 3))
