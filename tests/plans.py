"""Plans run by hand, on arrays and scratch memory that end at forbidden pages."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nnpack.codegen.target import Target
from nnpack.execution import Program
from nnpack.plan import Plan
from nnpack.problem import Problem, TransposedProblem
from nnpack.runtime.memory import address
from tests.guard import Side, guarded_array, guarded_copy, run_guarded

Float32Array = npt.NDArray[np.float32]

# Where y is never written, it must still be this.
UNTOUCHED = np.float32(12345.0)


@dataclass(frozen=True)
class Operands:
    """What one convolution reads; ``x`` may be a view, with the strides that its problem states."""

    x: Float32Array
    weight: Float32Array
    bias: Float32Array | None = None
    scale: Float32Array | None = None
    residual: Float32Array | None = None
    slopes: Float32Array | None = None

    def guarded(self, side: Side) -> Operands:
        """The same values, each array beside a forbidden page."""
        return Operands(*(None if a is None else guarded_copy(a, side) for a in self._arrays))  # type: ignore[arg-type]

    @property
    def _arrays(self) -> tuple[Float32Array | None, ...]:
        return self.x, self.weight, self.bias, self.scale, self.residual, self.slopes

    @property
    def addresses(self) -> dict[str, int]:
        names = ("x", "weight", "bias", "scale", "residual", "slopes")
        named = zip(names, self._arrays, strict=True)
        return {name: address(array) for name, array in named if array is not None}


def runner(
    plan: Plan, problem: Problem | TransposedProblem, target: Target
) -> Callable[[Operands, Side], Float32Array]:
    """A function that packs the weights and runs ``plan``; everything it calls is compiled here.

    Packed weights, workspace and y have exactly the bytes that the plan says, beside a forbidden
    page. Packed weights and y start as NaN and `UNTOUCHED`, the workspace as NaN.
    """
    pack = Program(plan.weight_format.stages, target, 1, 0)
    main = Program(plan.stages, target, plan.threads, 0)

    def run(operands: Operands, side: Side) -> Float32Array:
        packed = guarded_array(plan.weight_format.nbytes, side, np.uint8)
        workspace = guarded_array(plan.workspace_bytes // 4, side)
        y = guarded_array(problem.y_shape, side)
        # All bits set: not a number as a float nor as a half.
        packed[...], workspace[...], y[...] = 0xFF, np.nan, UNTOUCHED
        pack.run({"weight": address(operands.weight), "packed": address(packed)})
        places = {"packed": packed, "workspace": workspace, "y": y}
        main.run(operands.addresses | {name: address(a) for name, a in places.items()})
        return y

    return run


def all_survive(checks: Iterable[Callable[[], object]], *, seconds: int = 120) -> bool:
    """Whether all ``checks`` return, in a child that may crash: none raises, none goes beyond."""
    return run_guarded(lambda: [check() for check in checks], seconds=seconds) == 0


def integers(rng: np.random.Generator, shape: tuple[int, ...]) -> Float32Array:
    """Small integers, whose sums of products float32 holds exactly."""
    return rng.integers(-4, 5, shape).astype(np.float32)
