"""Calibration: kernels that compute what they claim, and rates that a machine can have."""

from __future__ import annotations

import ctypes
import dataclasses

import numpy as np
import pytest

from nnpack.codegen.compiler import compile_kernel
from nnpack.codegen.target import CacheSizes, Target, runnable_targets
from nnpack.runtime import calibration
from nnpack.runtime.calibration import ACCUMULATORS, AddChain, CopyFloats, MultiplyAddPeak
from tests.native import name_of

KIB = 1024

targets = pytest.mark.parametrize("target", runnable_targets(), ids=name_of)


@targets
def test_the_chain_adds_each_sum_to_the_one_before(target: Target) -> None:
    word = ctypes.c_int64(1)
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)
    function(compile_kernel(AddChain(), target))(ctypes.addressof(word), 1)
    a, b = 1, 1
    for _ in range(calibration.UNROLLED_ADDS):
        a, b = b, a + b
    assert word.value == b


@targets
def test_the_peak_multiplies_and_adds_in_every_lane(target: Target) -> None:
    out = np.full(target.lanes, 0.5, np.float32)
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)
    function(compile_kernel(MultiplyAddPeak(), target))(out.ctypes.data, 2)
    expected = sum((n * 0.5 + 0.5) * 0.5 + 0.5 for n in range(1, ACCUMULATORS + 1))
    np.testing.assert_allclose(out, expected)


@targets
def test_the_copy_copies(target: Target) -> None:
    x = np.arange(3 * calibration.UNROLLED_COPIES * target.lanes, dtype=np.float32)
    y = np.zeros_like(x)
    function = ctypes.CFUNCTYPE(
        None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64
    )
    function(compile_kernel(CopyFloats(), target))(x.ctypes.data, y.ctypes.data, len(x), 2)
    np.testing.assert_array_equal(x, y)


@targets
def test_rates_are_positive(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CHAIN_PASSES", "PEAK_PASSES", "COPIED_BYTES", "LEAST_MEMORY_BYTES"):
        monkeypatch.setattr(calibration, name, 4 * KIB)
    small = dataclasses.replace(target, caches=CacheSizes(4 * KIB, 8 * KIB, 16 * KIB))
    rates = calibration.measure_rates(small, runs=1)
    assert all(rate > 0 for rate in dataclasses.astuple(rates))
