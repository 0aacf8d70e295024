"""onnx's backend cases of every operator that is here pass.

With direct summation convolutions pass with the tolerances that onnx grants. These are relative to
each value (1e-3, and 1e-7 for zeros), which no transform algorithm can promise: its errors are
relative to the largest value. What the planner chooses is held to this library's own, mostly far
tighter promise instead.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from tests.onnx_cases.cases import OPERATORS, Case, collect_cases
from tests.onnx_cases.operators import NotApplicableError, run

pytest.importorskip("onnx")

CONVOLUTIONS = ("Conv", "ConvTranspose")
PROMISES = {"fast": 5e-5, "exact": 2e-6}
"""Largest error allowed, over the largest value."""


def _is_applicable(case: Case) -> bool:
    if case.operator in CONVOLUTIONS:  # which take long to compile
        floats = all(array is not None and array.dtype == np.float32 for array in case.inputs)
        return floats and all(array.ndim == 4 for array in case.inputs[:1] if array is not None)
    try:
        run(case)
    except NotApplicableError:
        return False
    except Exception:  # a failure, which its test reports
        return True
    return True


CASES = collect_cases()
APPLICABLE = [case for case in CASES if _is_applicable(case)]


@pytest.mark.parametrize("case", APPLICABLE, ids=lambda case: case.name)
def test_the_node_gives_what_onnx_expects(case: Case) -> None:
    options = {"algorithm": "implicit_gemm"} if case.operator in CONVOLUTIONS else {}
    outputs = run(case, **options)
    assert outputs
    for output, expected in zip(outputs, case.expected, strict=False):
        assert output.shape == expected.shape
        assert output.dtype == expected.dtype
        # A sum of many terms next to zero has no more digits than its terms.
        slack = 1e-6 * np.abs(expected).max(initial=0) if case.operator in ("Gemm", "MatMul") else 0
        np.testing.assert_allclose(output, expected, rtol=case.rtol, atol=case.atol + slack)


@pytest.mark.parametrize(("accuracy", "limit"), PROMISES.items())
@pytest.mark.parametrize(
    "case",
    [case for case in APPLICABLE if case.operator in CONVOLUTIONS],
    ids=lambda case: case.name,
)
def test_the_planners_choice_keeps_its_promise(case: Case, accuracy: str, limit: float) -> None:
    (output,) = run(case, accuracy=accuracy)
    (expected,) = case.expected
    assert output.shape == expected.shape
    assert np.abs(output - expected).max() <= limit * np.abs(expected).max()


def test_the_suite_has_not_shrunk(capsys: pytest.CaptureFixture[str]) -> None:
    """onnx may rename its cases or move its modules: then none would be left to fail."""
    total = Counter(case.operator for case in CASES)
    applicable = Counter(case.operator for case in APPLICABLE)
    with capsys.disabled():
        print()
        for operator in OPERATORS:
            other = total[operator] - applicable[operator]
            print(f"onnx {operator}: {applicable[operator]} cases run, {other} not applicable")
        print(f"onnx: {applicable.total()} cases run, {total.total()} in all")
    for operator, least in {
        "Add": 1,
        "Clip": 8,
        "Elu": 3,
        "Gelu": 4,
        "HardSigmoid": 3,
        "HardSwish": 1,
        "LeakyRelu": 4,
        "Mish": 1,
        "Relu": 2,
        "Sigmoid": 3,
        "Tanh": 3,
        "AveragePool": 10,
        "BatchNormalization": 4,
        "Concat": 12,
        "Conv": 18,
        "ConvTranspose": 12,
        "Gemm": 10,
        "LogSoftmax": 7,
        "MaxPool": 10,
        "Pad": 2,
        "Softmax": 7,
    }.items():
        assert applicable[operator] >= least, operator
