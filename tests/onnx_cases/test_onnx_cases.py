"""onnx's backend cases for 2-D Conv and ConvTranspose pass.

With direct summation they pass with the tolerances that onnx grants. These are relative to each
value (1e-3, and 1e-7 for zeros), which no transform algorithm can promise: its errors are relative
to the largest value. What the planner chooses is held to this library's own, mostly far tighter
promise instead.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import numpy as np
import pytest

import nnpack
from tests.onnx_cases.adapter import run_conv, run_conv_transpose
from tests.onnx_cases.cases import OPERATORS, Array, Case, collect_cases

pytest.importorskip("onnx")

CASES = collect_cases()
APPLICABLE = [case for case in CASES if case.applicable]
BY_NAME = pytest.mark.parametrize("case", APPLICABLE, ids=lambda case: case.name)
PROMISES = {"fast": 5e-5, "exact": 2e-6}
"""Largest error allowed, over the largest value."""


def run(case: Case, **options: Any) -> Array:
    if case.operator == "Conv":
        return run_conv(case, partial(nnpack.conv2d, **options))
    return run_conv_transpose(case, partial(nnpack.conv_transpose2d, **options))


@BY_NAME
def test_direct_summation_gives_what_onnx_expects(case: Case) -> None:
    output = run(case, algorithm="implicit_gemm")
    assert output.shape == case.expected.shape
    assert output.dtype == case.expected.dtype
    np.testing.assert_allclose(output, case.expected, rtol=case.rtol, atol=case.atol)


@pytest.mark.parametrize(("accuracy", "limit"), PROMISES.items())
@BY_NAME
def test_the_planners_choice_keeps_its_promise(case: Case, accuracy: str, limit: float) -> None:
    output = run(case, accuracy=accuracy)
    assert output.shape == case.expected.shape
    assert np.abs(output - case.expected).max() <= limit * np.abs(case.expected).max()


def test_the_suite_has_not_shrunk(capsys: pytest.CaptureFixture[str]) -> None:
    """onnx may rename its cases or move its modules: then none would be left to fail."""
    total = Counter(case.operator for case in CASES)
    applicable = Counter(case.operator for case in APPLICABLE)
    with capsys.disabled():
        for operator in OPERATORS:
            other = total[operator] - applicable[operator]
            print(f"\nonnx {operator}: {applicable[operator]} cases run, {other} not 2-D", end="")
        print()
    assert applicable["Conv"] >= 18
    assert applicable["ConvTranspose"] >= 12
