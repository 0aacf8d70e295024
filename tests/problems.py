"""Well-formed random convolutions over every parameter, small enough for the oracle.

``@given(conv_problems())`` tries as many as ``pytest --problems N`` says; a dearer test takes a
share of them with ``@settings(max_examples=problem_count(0.2))``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import hypothesis
import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

import nnpack
from nnpack.problem import Activation, Problem, ResidualPosition, TransposedProblem
from tests import oracle

Float32Array = npt.NDArray[np.float32]
Pair = tuple[int, int]

# Multiplications of one image: a few milliseconds of the oracle.
_MAX_WORK = 2_000_000

# Round every width of a vector register and of a register tile, odd ones included.
_CHANNELS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 15, 16, 17, 24, 31, 32, 33, 48)

_EPILOGUE_NAMES = ("scale", "activation", "residual", "residual_position")

_LAYOUTS = ("dense", "dense", "channel slice", "crop", "channels last", "flipped", "every second")

_ACTIVATIONS: tuple[Activation | Literal["prelu"] | None, ...] = (
    None,
    nnpack.Relu(),
    nnpack.Relu(slope=0.1),
    nnpack.Relu(slope=-0.5),
    nnpack.Elu(),
    nnpack.Elu(alpha=0.3),
    nnpack.Clip(0, 6),
    nnpack.Clip(-0.5, math.inf),
    nnpack.Silu(),
    nnpack.Gelu(),
    nnpack.HardSwish(),
    "prelu",
)


def problem_count(share: float = 1.0) -> int:
    """How many examples are this share of what ``--problems`` asks for, at least one."""
    return max(1, round(share * hypothesis.settings().max_examples))


@dataclass(frozen=True)
class ConvCase:
    """One call ``nnpack.conv2d(x, weight, bias, **arguments)``."""

    x: Float32Array
    weight: Float32Array
    bias: Float32Array | None
    scale: Float32Array | None
    stride: Pair
    padding: Any
    dilation: Pair
    groups: int
    activation: Activation | None
    residual: Float32Array | None = None
    residual_position: ResidualPosition = "before"

    @property
    def arguments(self) -> dict[str, Any]:
        names = ("stride", "padding", "dilation", "groups", *_EPILOGUE_NAMES)
        return {name: getattr(self, name) for name in names}

    @property
    def slopes(self) -> Float32Array | None:
        return self.activation.array if isinstance(self.activation, nnpack.Prelu) else None

    def reference(self) -> oracle.Float64Array:
        return oracle.conv2d(self.x, self.weight, self.bias, **self.arguments)

    def problem(self, **changes: Any) -> Problem:
        return Problem.conv2d(self.x.shape, self.weight.shape, **_stated(self), **changes)

    def __repr__(self) -> str:
        return _described(self)


@dataclass(frozen=True)
class TransposedCase:
    """One call ``nnpack.conv_transpose2d(x, weight, bias, **arguments)``."""

    x: Float32Array
    weight: Float32Array
    bias: Float32Array | None
    scale: Float32Array | None
    stride: Pair
    padding: Any
    output_padding: Pair
    dilation: Pair
    groups: int
    activation: Activation | None
    residual: Float32Array | None = None
    residual_position: ResidualPosition = "before"

    @property
    def arguments(self) -> dict[str, Any]:
        names = ("stride", "padding", "output_padding", "dilation", "groups", *_EPILOGUE_NAMES)
        return {name: getattr(self, name) for name in names}

    @property
    def slopes(self) -> Float32Array | None:
        return self.activation.array if isinstance(self.activation, nnpack.Prelu) else None

    def reference(self) -> oracle.Float64Array:
        return oracle.conv_transpose2d(self.x, self.weight, self.bias, **self.arguments)

    def problem(self, **changes: Any) -> TransposedProblem:
        return TransposedProblem.conv_transpose2d(
            self.x.shape, self.weight.shape, **_stated(self), **changes
        )

    def __repr__(self) -> str:
        return _described(self)


def layer_arguments(case: ConvCase | TransposedCase) -> tuple[dict[str, Any], dict[str, Any]]:
    """What of a case the constructor of a layer takes, and what its call takes."""
    arguments = case.arguments
    return arguments, {"residual": arguments.pop("residual")}


@st.composite
def conv_problems(draw: st.DrawFn, *, epilogues: bool = True) -> ConvCase:
    """Any convolution: empty batches, odd channels, any groups, borders and spacings, any views."""
    kernel, stride, dilation = _draw_kernel(draw)
    extent = _extent(kernel, dilation)
    padding, borders = _draw_padding(draw, extent)
    image = tuple(
        max(1, span - border) + draw(_surplus_pixels())
        for span, border in zip(extent, borders, strict=True)
    )
    pixels = math.prod(
        (size + border - span) // step + 1 if padding != "same" else -(-size // step)
        for size, border, span, step in zip(image, borders, extent, stride, strict=True)
    )
    groups, inputs, outputs, batch = _draw_channels(draw, pixels * math.prod(kernel))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    out_channels = groups * outputs
    bias, scale, activation = _draw_epilogue(draw, rng, out_channels, epilogues)
    case = ConvCase(
        x=_draw_array(draw, rng, (batch, groups * inputs, *image)),
        weight=_draw_array(draw, rng, (out_channels, inputs, *kernel)),
        bias=bias,
        scale=scale,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        activation=activation,
    )
    return _with_residual(draw, rng, case) if epilogues else case


@st.composite
def conv_transpose_problems(draw: st.DrawFn, *, epilogues: bool = True) -> TransposedCase:
    """Any transposed convolution: the same variety, and output padding."""
    kernel, stride, dilation = _draw_kernel(draw)
    extent = _extent(kernel, dilation)
    padding, borders = _draw_padding(draw, extent)
    # At least one row and one column must be left: (in - 1) * stride + extent - borders >= 1.
    image = tuple(
        max(1, 1 + -(-(1 + border - span) // step)) + draw(st.integers(0, 9))
        for span, border, step in zip(extent, borders, stride, strict=True)
    )
    limits = [max(step, d) - 1 for step, d in zip(stride, dilation, strict=True)]
    surplus = (draw(st.integers(0, limits[0])), draw(st.integers(0, limits[1])))
    groups, inputs, outputs, batch = _draw_channels(draw, math.prod(image) * math.prod(kernel))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    bias, scale, activation = _draw_epilogue(draw, rng, groups * outputs, epilogues)
    case = TransposedCase(
        x=_draw_array(draw, rng, (batch, groups * inputs, *image)),
        weight=_draw_array(draw, rng, (groups * inputs, outputs, *kernel)),
        bias=bias,
        scale=scale,
        stride=stride,
        padding=padding,
        output_padding=(0, 0) if padding == "same" else surplus,
        dilation=dilation,
        groups=groups,
        activation=activation,
    )
    return _with_residual(draw, rng, case) if epilogues else case


def _pairs(least: int, most: int) -> st.SearchStrategy[Pair]:
    return st.tuples(st.integers(least, most), st.integers(least, most))


def _surplus_pixels() -> st.SearchStrategy[int]:
    # Mostly a few; sometimes more than two of the widest vectors.
    return st.integers(0, 14) | st.integers(15, 40)


def _draw_kernel(draw: st.DrawFn) -> tuple[Pair, Pair, Pair]:
    """Kernel, stride and dilation; half of each plain, as most of the world's are."""
    kernel = draw(st.sampled_from([(1, 1), (3, 3), (5, 5)]) | _pairs(1, 7))
    if draw(st.booleans()):
        return kernel, (1, 1), (1, 1)
    return kernel, draw(_pairs(1, 4)), draw(_pairs(1, 3))


def _extent(kernel: Pair, dilation: Pair) -> Pair:
    return (kernel[0] - 1) * dilation[0] + 1, (kernel[1] - 1) * dilation[1] + 1


def _draw_padding(draw: st.DrawFn, extent: Pair) -> tuple[Any, Pair]:
    """A padding in any of its forms, and the rows and the columns it adds; ``same``: at most."""
    rows, columns = st.integers(0, extent[0] + 2), st.integers(0, extent[1] + 2)
    match draw(st.sampled_from(["four", "four", "pair", "integer", "same", "valid"])):
        case "four":
            top, bottom, left, right = draw(st.tuples(rows, rows, columns, columns))
            return (top, bottom, left, right), (top + bottom, left + right)
        case "pair":
            h, w = draw(st.tuples(rows, columns))
            return (h, w), (2 * h, 2 * w)
        case "integer":
            p = draw(st.integers(0, max(extent) + 2))
            return p, (2 * p, 2 * p)
        case "same":
            return "same", (extent[0] - 1, extent[1] - 1)
        case _:
            return "valid", (0, 0)


def _draw_channels(draw: st.DrawFn, taps: int) -> tuple[int, int, int, int]:
    """Groups, channels in and out of each, and batch; each pair of channels takes ``taps``."""
    budget = max(1, _MAX_WORK // taps)
    kind = draw(st.sampled_from(["dense", "dense", "grouped", "depthwise"]))
    groups = 1
    if kind == "grouped":
        groups = draw(st.integers(2, 4))
    elif kind == "depthwise":
        groups = draw(st.sampled_from([c for c in _CHANNELS if c <= budget]))
    budget = max(1, budget // groups)
    inputs = 1 if kind == "depthwise" else draw(_channels_within(budget))
    outputs = draw(_channels_within(min(3, budget) if kind == "depthwise" else budget // inputs))
    batch = draw(st.sampled_from([n for n in (1, 1, 1, 2, 2, 3, 4, 0) if n <= budget]))
    return groups, inputs, outputs, batch


def _channels_within(most: int) -> st.SearchStrategy[int]:
    return st.sampled_from([c for c in _CHANNELS if c <= most])


def _draw_epilogue(
    draw: st.DrawFn, rng: np.random.Generator, out_channels: int, epilogues: bool
) -> tuple[Float32Array | None, Float32Array | None, Activation | None]:
    if not epilogues:
        return None, None, None
    vectors = rng.standard_normal((2, out_channels), dtype=np.float32)
    bias = vectors[0] if draw(st.booleans()) else None
    scale = vectors[1] if draw(st.booleans()) else None
    activation = draw(st.sampled_from(_ACTIVATIONS))
    if activation == "prelu":
        activation = nnpack.Prelu(rng.uniform(-1, 1, out_channels).astype(np.float32))
    return bias, scale, activation


_Case = TypeVar("_Case", ConvCase, TransposedCase)


def _with_residual(draw: st.DrawFn, rng: np.random.Generator, case: _Case) -> _Case:
    """One case in three with a residual in any layout, added before or after the activation."""
    positions: list[ResidualPosition | None] = [None, None, None, None, "before", "after"]
    position = draw(st.sampled_from(positions))
    if position is None:
        return case
    residual = _draw_array(draw, rng, case.problem().y_shape)
    return replace(case, residual=residual, residual_position=position)


def _draw_array(draw: st.DrawFn, rng: np.random.Generator, shape: tuple[int, ...]) -> Float32Array:
    values = rng.standard_normal(shape, dtype=np.float32)
    sign = draw(st.sampled_from(["either", "either", "positive", "negative"]))
    if sign != "either":
        values = np.abs(values) * np.float32(1 if sign == "positive" else -1)
    return laid_out(values, draw(st.sampled_from(_LAYOUTS)))


def laid_out(values: Float32Array, layout: str) -> Float32Array:
    """A view with these values in the named layout; memory between its elements is NaN."""
    n, c, h, w = values.shape
    match layout:
        case "channel slice":
            view = _nans(n, c + 3, h, w)[:, 2:-1]
        case "crop":
            view = _nans(n, c, h + 3, w + 5)[:, :, 1:-2, 3:-2]
        case "channels last":
            view = _nans(n, h, w, c).transpose(0, 3, 1, 2)
        case "flipped":
            view = _nans(n, c, h, w)[:, ::-1, ::-1, ::-1]
        case "every second":
            view = _nans(n, c, h, 2 * w)[..., ::2]
        case _:
            view = _nans(n, c, h, w)
    view[...] = values
    return view


def _nans(*shape: int) -> Float32Array:
    return np.full(shape, np.nan, np.float32)


def _stated(case: ConvCase | TransposedCase) -> dict[str, Any]:
    """The arguments as a problem takes them: shapes in place of arrays."""
    arguments = case.arguments
    scale, residual = arguments.pop("scale"), arguments.pop("residual")
    return {
        **arguments,
        "residual_shape": None if residual is None else residual.shape,
        "bias_shape": None if case.bias is None else case.bias.shape,
        "scale_shape": None if scale is None else scale.shape,
    }


def _described(case: ConvCase | TransposedCase) -> str:
    arrays = ", ".join(
        f"{name}={getattr(case, name).shape}" + _strides(getattr(case, name))
        for name in ("x", "weight", "bias")
        if getattr(case, name) is not None
    )
    rest = {
        **case.arguments,
        "scale": case.scale is not None,
        "residual": case.residual is not None,
    }
    return f"{type(case).__name__}({arrays}, {', '.join(f'{k}={v}' for k, v in rest.items())})"


def _strides(array: Float32Array) -> str:
    return "" if array.flags.c_contiguous else f" strides {tuple(s // 4 for s in array.strides)}"
