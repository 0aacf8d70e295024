"""Small convolutions between guard pages, for algorithms that sum directly."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

import nnpack
from tests import oracle
from tests.guard import Side, guarded_array, guarded_copy, run_guarded


@dataclass(frozen=True)
class Case:
    """One call of ``nnpack.conv2d``, ``inputs`` and ``outputs`` being channels of one group."""

    image: tuple[int, int]
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    inputs: int = 1
    outputs: int = 1
    batch: int = 1

    @property
    def fits(self) -> bool:
        spans = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True)]
        top, bottom, left, right = self.padding
        padded = self.image[0] + top + bottom, self.image[1] + left + right
        return spans[0] <= padded[0] and spans[1] <= padded[1]

    @property
    def arguments(self) -> dict[str, Any]:
        names = ("stride", "padding", "dilation", "groups")
        return {name: getattr(self, name) for name in names}

    @property
    def depth(self) -> int:
        return self.inputs * self.kernel[0] * self.kernel[1]

    def arrays(self, rng: np.random.Generator) -> tuple[oracle.Array, oracle.Array]:
        channels = self.groups * self.inputs
        x = rng.standard_normal((self.batch, channels, *self.image), dtype=np.float32)
        shape = (self.groups * self.outputs, self.inputs, *self.kernel)
        return x, rng.standard_normal(shape, dtype=np.float32)


def summation_error(depth: int, magnitude: float) -> float:
    """How far a float32 sum of ``depth`` products may be, its epilogue included (Higham, 3.1)."""
    return (depth + 2) * 2.0**-24 * 1.01 * magnitude


def assert_right(
    case: Case, algorithm: str, side: Side | None = None, slack: float = 1.0, **more: Any
) -> None:
    """``algorithm`` is right on random data; with ``side``, between guard pages.

    ``slack``: how many times the error of direct summation it may make.
    """
    x, weight = case.arrays(np.random.default_rng(1))
    reference = oracle.conv2d(x, weight, **case.arguments, **more)
    out = np.full(reference.shape, np.nan, np.float32)
    if side is not None:
        x, weight = guarded_copy(x, side), guarded_copy(weight, side)
        out = guarded_array(reference.shape, side)
        out.fill(np.nan)
    y = nnpack.conv2d(x, weight, algorithm=algorithm, out=out, threads=1, **case.arguments, **more)
    limit = summation_error(case.depth, oracle.conv2d_magnitude(x, weight, **case.arguments))
    error = np.max(np.abs(y - reference), initial=0.0)
    assert error <= slack * limit, f"{case} {algorithm}: {error} > {limit}"


def assert_right_when_guarded(
    cases: Iterable[Case], algorithm: str, side: Side, slack: float = 1.0
) -> None:
    """``algorithm`` is right on all of ``cases`` and touches nothing outside the arrays."""

    def check() -> None:
        for case in cases:
            if case.fits:
                assert_right(case, algorithm, side, slack)

    assert run_guarded(check, seconds=120) == 0
