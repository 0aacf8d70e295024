"""Matrix products: every layout of the operands, every remainder, within their memory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nnpack
from nnpack.algorithms.product import plan_column_sums, plan_packed_product, plan_product
from nnpack.codegen.target import Target
from nnpack.epilogue import Epilogue
from nnpack.execution import Program
from nnpack.frozen import replace
from nnpack.linear_problem import ColumnSumProblem, ProductProblem
from nnpack.runtime.memory import address
from tests.guard import Side, guarded_array, guarded_copy
from tests.native import TARGETS, name_of
from tests.plans import UNTOUCHED, Operands, all_survive, integers, runner
from tests.problems import problem_count

BY_TARGET = pytest.mark.parametrize("target", TARGETS, ids=name_of)

# Beyond one chain of products, for few rows and for many.
DEEP = (513, 1100, 2065)


@dataclass(frozen=True)
class _Case:
    """A product of small integers, exact in float32."""

    rows: int
    columns: int
    depth: int
    a_turned: bool = False
    b_turned: bool = False
    packed: bool = False
    halves: bool = False
    scale: bool = False
    bias: bool = False
    relu: bool = False
    threads: int = 1

    @property
    def problem(self) -> ProductProblem:
        vector = (self.columns,)
        return ProductProblem.linear(
            (self.rows, self.depth),
            (self.columns, self.depth),
            scale_shape=vector if self.scale else None,
            bias_shape=vector if self.bias else None,
            activation=nnpack.Relu() if self.relu else None,
            weight_storage="float16" if self.halves else "float32",
            x_strides=(1, self.rows) if self.a_turned else None,
            weight_strides=(1, self.columns) if self.b_turned else None,
        )

    def check(self, target: Target, side: Side) -> None:
        rng = np.random.default_rng(self.rows + 100 * self.columns + 10_000 * self.depth)
        x, weight = (integers(rng, (n, self.depth)) for n in (self.rows, self.columns))
        scale, bias = (integers(rng, (self.columns,)) for _ in range(2))
        expected = x.astype(np.float64) @ weight.astype(np.float64).T
        expected = expected * (scale if self.scale else 1) + (bias if self.bias else 0)
        if self.relu:
            expected = np.maximum(expected, 0)
        operands = Operands(
            np.ascontiguousarray(x.T) if self.a_turned else x,
            np.ascontiguousarray(weight.T) if self.b_turned else weight,
            bias if self.bias else None,
            scale if self.scale else None,
        )
        plan = plan_packed_product if self.packed else plan_product
        run = runner(plan(self.problem, target, self.threads), self.problem, target)  # type: ignore[arg-type]
        np.testing.assert_array_equal(run(operands.guarded(side), side), expected)


@st.composite
def _cases(draw: st.DrawFn) -> _Case:
    packed = draw(st.booleans())
    return _Case(
        rows=draw(st.integers(1, 8) | st.integers(9, 70)),
        columns=draw(st.integers(1, 80)),
        depth=draw(st.integers(1, 70) | st.sampled_from(DEEP)),
        a_turned=draw(st.booleans()),
        b_turned=draw(st.booleans()) and not packed,
        packed=packed,
        halves=packed and draw(st.booleans()),
        scale=draw(st.booleans()),
        bias=draw(st.booleans()),
        relu=draw(st.booleans()),
        threads=draw(st.sampled_from([1, 3])),
    )


@BY_TARGET
@settings(max_examples=problem_count(0.1))
@given(cases=st.lists(_cases(), min_size=1, max_size=4))
def test_products_are_exact_and_stay_within_their_memory(
    target: Target, cases: list[_Case]
) -> None:
    sides: tuple[Side, Side] = ("before", "after")
    assert all_survive([partial(case.check, target, side) for case in cases for side in sides])


@BY_TARGET
@pytest.mark.parametrize("rows", [1, 2, 3, 5, 6, 7, 15, 29])
@pytest.mark.parametrize("packed", [True, False])
def test_every_number_of_rows_of_a_tile(target: Target, rows: int, packed: bool) -> None:
    _Case(rows, 35, 37, packed=packed).check(target, "after")


@BY_TARGET
@pytest.mark.parametrize("position", ["before", "after"])
@pytest.mark.parametrize("rows", [3, 20])
def test_a_result_may_be_written_over_its_residual(
    target: Target, position: str, rows: int
) -> None:
    """In every block of the depth but the last, sums are kept elsewhere."""
    rng = np.random.default_rng(3)
    x, weight = integers(rng, (rows, 1100)), integers(rng, (50, 1100))
    residual = integers(rng, (rows, 50))
    stated = ProductProblem.linear(x.shape, weight.shape, activation=nnpack.Relu())
    problem = replace(
        stated,
        epilogue=Epilogue(activation=nnpack.Relu(), residual=position),  # type: ignore[arg-type]
    )
    plan = plan_product(problem, target, 1)
    y = residual.copy()
    workspace = np.empty(plan.workspace_bytes // 4 + 1, np.float32)
    words = {"x": x, "weight": weight, "y": y, "residual": y, "workspace": workspace}
    Program(plan.stages, target, 1, 0).run({name: address(a) for name, a in words.items()})
    sums = x @ weight.T
    before, after = np.maximum(sums + residual, 0), np.maximum(sums, 0) + residual
    np.testing.assert_array_equal(y, before if position == "before" else after)


def _check_sums(target: Target, rows: int, columns: int, side: Side) -> None:
    a = guarded_copy(integers(np.random.default_rng(4), (rows, columns)), side)
    plan = plan_column_sums(ColumnSumProblem.bias_gradient(a.shape), target, 3)
    y = guarded_array(columns, side)
    y[...] = UNTOUCHED
    Program(plan.stages, target, 3, 0).run({"x": address(a), "y": address(y)})
    np.testing.assert_array_equal(y, a.sum(axis=0))


@BY_TARGET
@pytest.mark.parametrize("columns", [1, 15, 16, 63, 64, 65, 300])
def test_sums_of_columns_stay_within_their_memory(target: Target, columns: int) -> None:
    sides: tuple[Side, Side] = ("before", "after")
    checks = [
        partial(_check_sums, target, rows, columns, side)
        for rows in (0, 1, 7, 600)
        for side in sides
    ]
    assert all_survive(checks)
