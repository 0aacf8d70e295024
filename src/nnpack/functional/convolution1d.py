"""Convolutions along one dimension: those of images one row high."""

from __future__ import annotations

from typing import SupportsIndex

from nnpack.arguments import PaddingLike, as_integer, as_pair
from nnpack.arrays import Float32Array, as_float32, check_out
from nnpack.errors import ProblemError
from nnpack.functional.convolution import conv2d, conv_transpose2d
from nnpack.problem import Accuracy, Activation, ResidualPosition

__all__ = ["conv1d", "conv_transpose1d"]


def conv1d(
    x: object,
    weight: object,
    bias: object = None,
    *,
    stride: SupportsIndex = 1,
    padding: PaddingLike = 0,
    dilation: SupportsIndex = 1,
    groups: SupportsIndex = 1,
    scale: object = None,
    activation: Activation | None = None,
    residual: object = None,
    residual_position: ResidualPosition = "before",
    algorithm: str = "auto",
    accuracy: Accuracy = "fast",
    threads: SupportsIndex | None = None,
    out: Float32Array | None = None,
) -> Float32Array:
    """``activation(scale * conv(x, weight) + bias + residual)`` along one dimension.

    (N, C, L), (O, C/groups, k) -> (N, O, L'): `conv2d` of images one row high. ``padding`` is an
    int, (left, right), "valid" or "same"; everything else is as in `conv2d`.

    Raises as `conv2d` does.
    """
    y = conv2d(
        _as_image("x", x),
        _as_image("weight", weight),
        bias,
        stride=(1, as_integer("stride", stride, least=1)),
        padding=_as_borders(padding),
        dilation=(1, as_integer("dilation", dilation, least=1)),
        groups=groups,
        scale=scale,
        activation=activation,
        residual=None if residual is None else _as_image("residual", residual),
        residual_position=residual_position,
        algorithm=algorithm,
        accuracy=accuracy,
        threads=threads,
        out=None if out is None else _as_out(out),
    )
    return y[:, :, 0] if out is None else out


def conv_transpose1d(
    x: object,
    weight: object,
    bias: object = None,
    *,
    stride: SupportsIndex = 1,
    padding: PaddingLike = 0,
    output_padding: SupportsIndex = 0,
    dilation: SupportsIndex = 1,
    groups: SupportsIndex = 1,
    scale: object = None,
    activation: Activation | None = None,
    residual: object = None,
    residual_position: ResidualPosition = "before",
    algorithm: str = "auto",
    accuracy: Accuracy = "fast",
    threads: SupportsIndex | None = None,
    out: Float32Array | None = None,
) -> Float32Array:
    """The transpose of `conv1d` in x: (N, I, L), (I, O/groups, k) -> (N, O, L').

    L' = (L - 1) * stride - left - right + dilation * (k - 1) + 1 + output_padding: the
    `conv_transpose2d` of images one row high. Everything else is as in `conv1d`.

    Raises as `conv2d` does.
    """
    y = conv_transpose2d(
        _as_image("x", x),
        _as_image("weight", weight),
        bias,
        stride=(1, as_integer("stride", stride, least=1)),
        padding=_as_borders(padding),
        output_padding=(0, as_integer("output_padding", output_padding, least=0)),
        dilation=(1, as_integer("dilation", dilation, least=1)),
        groups=groups,
        scale=scale,
        activation=activation,
        residual=None if residual is None else _as_image("residual", residual),
        residual_position=residual_position,
        algorithm=algorithm,
        accuracy=accuracy,
        threads=threads,
        out=None if out is None else _as_out(out),
    )
    return y[:, :, 0] if out is None else out


def _as_image(name: str, value: object) -> Float32Array:
    """``value`` with a row of height 1."""
    return as_float32(name, value, 3)[:, :, None]


def _as_out(out: Float32Array) -> Float32Array:
    """A view of ``out`` with a row of height 1, not judged yet. Raises as `check_out` does."""
    checked = check_out(out, getattr(out, "shape", ()), ())
    if checked.ndim != 3:
        raise ProblemError(f"out.shape={checked.shape} must have 3 dimensions")
    return checked[:, :, None]


def _as_borders(padding: PaddingLike) -> PaddingLike:
    """Of an image one row high: nothing above and below."""
    if isinstance(padding, str):
        return padding
    left, right = as_pair("padding", padding, least=0, axes="left, right")
    return 0, 0, left, right
