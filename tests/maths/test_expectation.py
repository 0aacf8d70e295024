"""Expected errors in floats are those of the exact matrices."""

from __future__ import annotations

import pytest

from nnpack.maths.cook_toom import cook_toom
from nnpack.maths.expectation import output_amplifications, root_mean_square


@pytest.mark.parametrize("r", range(1, 8))
@pytest.mark.parametrize("m", range(1, 9))
def test_amplifications_are_those_of_the_exact_matrices(m: int, r: int) -> None:
    exact = cook_toom(m, r)
    found = output_amplifications(m, r)
    assert found == pytest.approx(exact.output_amplifications, rel=1e-9)
    assert root_mean_square(found) == pytest.approx(exact.amplification, rel=1e-9)
