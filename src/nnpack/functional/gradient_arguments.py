"""What gradients of any layer do with their arguments: compare shapes, make or check ``out``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nnpack.arguments import as_flag
from nnpack.arrays import Float32Array, check_out
from nnpack.errors import ProblemError
from nnpack.runtime.memory import empty_output

__all__ = ["check_gradient", "check_gradient_shape", "gradient_output"]


def check_gradient(name: str, gradient: Float32Array, shape: Sequence[int]) -> Float32Array:
    """``gradient`` if it has ``shape``, that of what it is the gradient in. Raises ProblemError."""
    check_gradient_shape(name, gradient.shape, shape)
    return gradient


def check_gradient_shape(name: str, given: Sequence[int], shape: Sequence[int]) -> None:
    """Raise ProblemError unless a gradient of the shape ``given`` is one in what has ``shape``."""
    if tuple(given) != tuple(shape):
        raise ProblemError(
            f"{name}.shape={tuple(given)} must be {tuple(shape)}, the shape of the forward result"
        )


def gradient_output(
    shape: Sequence[int],
    out: Float32Array | None,
    accumulate: bool,
    inputs: Mapping[str, Float32Array],
) -> Float32Array:
    """The array that a gradient of ``shape`` is written or added to, which no input overlaps.

    Raises ProblemError or DtypeError as `arrays.check_out` does, and when ``accumulate`` is no
    bool or has no ``out`` to add to.
    """
    accumulate = as_flag("accumulate", accumulate)
    if out is not None:
        return check_out(out, shape, inputs.items())
    if accumulate:
        raise ProblemError("accumulate=True needs out=, the gradient to add to")
    return empty_output(tuple(shape))
