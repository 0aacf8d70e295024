"""Programs of transforms, emitted, compute what their matrices say."""

from __future__ import annotations

import numpy as np
import pytest

from nnpack.codegen.assembler import Assembler, Value
from nnpack.codegen.target import Target
from nnpack.kernels.transform import emit_program
from nnpack.maths.cook_toom import cook_toom
from nnpack.maths.program import linear_program
from tests.native import TARGETS, name_of, run

pytestmark = pytest.mark.parametrize("target", TARGETS, ids=name_of)


@pytest.mark.parametrize("part", ["input", "kernel", "output"])
@pytest.mark.parametrize(("m", "r"), [(1, 3), (2, 3), (4, 3), (6, 3), (2, 5), (4, 4), (5, 2)])
def test_a_transform_is_its_matrix_lane_by_lane(target: Target, part: str, m: int, r: int) -> None:
    matrix = getattr(cook_toom(m, r), part)
    coefficients = np.array([[float(c) for c in row] for row in matrix])
    x = np.random.default_rng(m * r).standard_normal((coefficients.shape[1], target.lanes))
    x = x.astype(np.float32)
    y = np.full((coefficients.shape[0], target.lanes), np.nan, np.float32)

    def body(asm: Assembler, source: Value, out: Value) -> None:
        inputs = [asm.load(source, n * asm.lanes) for n in range(len(x))]
        for n, value in enumerate(emit_program(asm, linear_program(matrix), inputs)):
            asm.store(value, out, n * asm.lanes)

    run(target, body, x, y)
    bound = 1e-6 * (np.abs(coefficients) @ np.abs(x)).max()
    np.testing.assert_allclose(y, coefficients @ x.astype(np.float64), rtol=0, atol=bound)
