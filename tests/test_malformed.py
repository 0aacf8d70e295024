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
    "tuning as a word": lambda: nn.Conv2d(ones(5, 3, 3, 3), tune="yes"),
    "no layers": lambda: nn.Network(None),
    "a layer for a list": lambda: nn.Network(nn.Conv2d(ones(5, 3, 3, 3))),
    "pairs for a mapping": lambda: nn.Network([nn.Conv2d(ones(5, 3, 3, 3))], [(0, 0)]),
    "an axis of nothing": lambda: nn.prelu(ones(), ones(1)),
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


VECTOR = ones(4)
IMAGE, KERNEL = ones(1, 4, 4, 4), ones(4, 4, 1, 1)

# Calls with one argument and the result free, and the shape of that argument.
READING: dict[str, tuple[tuple[int, ...], Callable[[Any, Any], object]]] = {
    "prelu slope": ((4,), lambda a, y: nn.prelu(IMAGE, a, out=y)),
    "batch_norm gamma": (
        (4,),
        lambda a, y: nn.batch_norm(IMAGE, a, VECTOR, VECTOR, VECTOR, out=y),
    ),
    "batch_norm_training beta": (
        (4,),
        lambda a, y: nn.batch_norm(IMAGE, None, a, training=True, out=y),
    ),
    "batch_norm_gradient mean": (
        (4,),
        lambda a, y: nn.batch_norm_gradient(IMAGE, IMAGE, VECTOR, a, VECTOR, out=y),
    ),
    "conv2d x": ((1, 4, 4, 4), lambda a, y: nn.conv2d(a, KERNEL, out=y)),
    "conv2d weight": ((4, 4, 1, 1), lambda a, y: nn.conv2d(IMAGE, a, out=y)),
    "conv2d scale": ((4,), lambda a, y: nn.conv2d(IMAGE, KERNEL, scale=a, out=y)),
    "Conv2d x": ((1, 4, 4, 4), lambda a, y: nn.Conv2d(KERNEL)(a, out=y)),
    "Network x": ((1, 4, 4, 4), lambda a, y: nn.Network([nn.Conv2d(KERNEL)])(a, out=y)),
    "conv2d_input_gradient weight": (
        (4, 4, 1, 1),
        lambda a, y: nn.conv2d_input_gradient(IMAGE, a, IMAGE.shape, out=y),
    ),
    "max_pool2d x": ((1, 4, 8, 8), lambda a, y: nn.max_pool2d(a, 2, out=y)),
    "linear x": ((16, 3), lambda a, y: nn.linear(a, ones(4, 3), out=y.reshape(16, 4))),
    "linear bias": ((4,), lambda a, y: nn.linear(ones(16, 3), ones(4, 3), a, out=y.reshape(16, 4))),
    "linear_bias_gradient grad_output": (
        (3, 64),
        lambda a, y: nn.linear_bias_gradient(a, out=y.reshape(64)),
    ),
}


@pytest.mark.parametrize("name", READING)
@pytest.mark.parametrize("step", [1, 2])
def test_nothing_that_is_read_is_written_over_however_it_lies(name: str, step: int) -> None:
    """Neither an array that is read where it stands, nor one that is copied first."""
    shape, call = READING[name]
    count = int(np.prod(shape))
    memory = ones(64 + step * count)
    strides = [step * stride for stride in ones(*shape).strides]
    argument = np.lib.stride_tricks.as_strided(memory[60:], shape, strides)
    with pytest.raises(NnpackError, match=f"out overlaps {name.split()[1]}"):
        call(argument, memory[:64].reshape(1, 4, 4, 4))
    np.testing.assert_array_equal(memory, 1)
