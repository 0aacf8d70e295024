"""What is promised of long sums: errors do not grow with the number of terms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nnpack
from nnpack.algorithms.implicit_gemm import ImplicitGemm
from tests import oracle

# Channels, kernel, stride and groups; what is multiplied in a sum is more than 1536.
DEEP = ((4096, 1, 1, 1), (2048, 1, 2, 2), (300, 3, 2, 1), (40, 9, 1, 1))


@pytest.mark.parametrize(("channels", "kernel", "stride", "groups"), DEEP)
@pytest.mark.parametrize("algorithm", ["auto", "implicit_gemm"])
def test_exact_is_exact_at_any_depth(
    channels: int, kernel: int, stride: int, groups: int, algorithm: str
) -> None:
    rng = np.random.default_rng(0)
    x = rng.random((1, channels, 9, 9), np.float32) - np.float32(0.3)
    weight = rng.standard_normal((6, channels // groups, kernel, kernel), np.float32)
    words: dict[str, Any] = {"stride": stride, "padding": kernel // 2, "groups": groups}
    y = nnpack.conv2d(x, weight, **words, algorithm=algorithm, accuracy="exact")
    reference = oracle.conv2d(x, weight, **words)
    assert np.abs(y - reference).max() <= 2e-6 * np.abs(reference).max()
    assert np.linalg.norm(y - reference) <= 1e-6 * np.linalg.norm(reference)


def test_segments_are_as_exact_as_expected() -> None:
    layer = nnpack.Conv2d(np.ones((8, 4096, 1, 1), np.float32), accuracy="exact")
    explained = layer.explain((1, 4096, 7, 7))
    errors = {c.algorithm: c.error or 0.0 for c in explained.candidates}
    assert explained.chosen.startswith(ImplicitGemm().name)
    assert errors["pointwise"] > 2e-6 > 1.4 * errors["implicit_gemm"]


PLANES: dict[str, Callable[[Any], Any]] = {
    "global_avg_pool2d": nnpack.global_avg_pool2d,
    "conv2d_bias_gradient": lambda x: nnpack.conv2d_bias_gradient(x) / x.size,
    "conv2d_output_gradient": lambda x: (
        nnpack.conv2d_output_gradient(x, nnpack.Relu(), x)[1] / x.size
    ),
}


@pytest.mark.parametrize("name", PLANES)
def test_sums_over_large_planes_do_not_drift(name: str) -> None:
    """All terms the same: each addition may round the same way, 4e-3 of a chain of 500 000."""
    x = np.full((1, 1, 2048, 4096), 0.1, np.float32)
    found = PLANES[name](x).ravel()[0]
    assert abs(found / float(x[0, 0, 0, 0]) - 1) < 1e-4
