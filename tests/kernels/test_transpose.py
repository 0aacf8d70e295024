"""Rows become columns in registers and columns rows, at every width."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from nnpack.codegen.assembler import Assembler, Value
from nnpack.codegen.target import Target
from nnpack.kernels.transpose import emit_load_transposed, emit_rows, padded_columns
from tests.native import TARGETS, name_of, run

pytestmark = pytest.mark.parametrize("target", TARGETS, ids=name_of)


def _matrix(rows: int, columns: int) -> npt.NDArray[np.float32]:
    return np.arange(rows * columns, dtype=np.float32).reshape(rows, columns)


@pytest.mark.parametrize("width", [4, 8, 16])
def test_loaded_rows_become_vectors_of_columns(target: Target, width: int) -> None:
    lanes = target.lanes
    if width > lanes:
        return
    rows = _matrix(lanes, width)
    columns = np.full((width, lanes), np.nan, np.float32)

    def body(asm: Assembler, source: Value, out: Value) -> None:
        def load_row(row: int, count: int) -> Value:
            return asm.load(source, row * width, lanes=count)

        for p, vector in enumerate(emit_load_transposed(asm, width, load_row)):
            asm.store(vector, out, p * lanes)

    run(target, body, rows, columns)
    np.testing.assert_array_equal(columns, rows.T)


@pytest.mark.parametrize("count", range(1, 17))
def test_vectors_of_columns_become_rows(target: Target, count: int) -> None:
    lanes = target.lanes
    if count > lanes:
        return
    columns = _matrix(count, lanes)
    rows = np.full((lanes, count), np.nan, np.float32)
    order: list[int] = []

    def body(asm: Assembler, source: Value, out: Value) -> None:
        vectors = [asm.load(source, n * lanes) for n in range(count)]
        for row, values in emit_rows(asm, vectors):
            order.append(row)
            asm.store_first(values, count, out, row * count)

    run(target, body, columns, rows)
    np.testing.assert_array_equal(rows, columns.T)
    assert order == list(range(lanes))


@pytest.mark.parametrize("columns", range(1, 20))
def test_padded_columns_are_what_the_shuffles_can(target: Target, columns: int) -> None:
    padded = padded_columns(columns, target.lanes)
    assert padded in (4, 8, 16)
    assert padded <= target.lanes
    assert padded >= min(columns, target.lanes)
