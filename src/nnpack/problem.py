"""Problems: what is to be computed, validated here, once, and frozen.

A ``Problem`` is one forward convolution, a ``TransposedProblem`` one transposed convolution.
Planner, algorithms and kernels trust every field. What a user passes is checked by
``Problem.conv2d`` and ``TransposedProblem.conv_transpose2d``, and nowhere else.

Activations are ``NCHW``, weights ``OIHW`` (transposed: ``(I, O/groups, kh, kw)``), all float32.
Pairs are ``(h, w)``, padding is ``(top, bottom, left, right)``, strides of arrays are in elements.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, SupportsIndex

from nnpack.arguments import (
    MAX_INTEGER,
    IntOrPair,
    PaddingLike,
    as_integer,
    as_paddings,
    as_pair,
    as_shape,
    check_one_of,
)
from nnpack.epilogue import (
    Activation,
    ActivationKind,
    Clip,
    Elu,
    Epilogue,
    EpilogueKind,
    Pooling,
    Relu,
    ResidualPosition,
    Terms,
)
from nnpack.errors import ProblemError
from nnpack.frozen import dataclass, field
from nnpack.geometry import (
    Padding,
    Pair,
    Shape,
    Strides,
    conv_outputs,
    dense_strides,
    kernel_extent,
    same_padding,
    transposed_outputs,
    transposed_same_padding,
)

__all__ = [
    "MAX_ARRAY_BYTES",
    "Accuracy",
    "Activation",
    "ActivationKind",
    "Clip",
    "Elu",
    "Epilogue",
    "EpilogueKind",
    "Pooling",
    "Problem",
    "Relu",
    "ResidualPosition",
    "TransposedProblem",
    "WeightLayout",
    "WeightStorage",
    "dense_strides",
]

Accuracy = Literal["fast", "exact"]
WeightStorage = Literal["float32", "float16"]
RowStrides = tuple[int, int, int]

# Offsets in bytes stay far within 64 bits whatever a kernel adds to them, and user space ends here.
MAX_ARRAY_BYTES = 2**47

_IMAGE = ("N", "C", "H", "W")
_WEIGHT = ("O", "I/groups", "kh", "kw")
_TRANSPOSED_WEIGHT = ("I", "O/groups", "kh", "kw")


@dataclass(frozen=True)
class WeightLayout:
    """Where weights stand in their array, in elements: any view that strides can express.

    ``weight[g, k, c, p, q]`` is at ``offset + g*group + k*out + c*channel + p*row + q*column``,
    k and c counted inside group g.
    """

    offset: int
    group: int
    out: int
    channel: int
    row: int
    column: int

    @classmethod
    def dense(cls, shape: Shape, groups: int) -> WeightLayout:
        """The layout of a C-contiguous ``(O, I/groups, kh, kw)`` array."""
        out, channel, row, column = dense_strides(shape)
        return cls(0, shape[0] // groups * out, out, channel, row, column)


@dataclass(frozen=True, kw_only=True)
class _Convolution:
    """The fields that forward and transposed convolutions share; a subclass says how large y is.

    ``x_strides`` are those of (n, c, h), w has stride 1; ``y_strides`` those of (n, c, h, w). Both
    may be zero or negative. Padding may be negative in problems built inside this package.
    ``weight_storage`` says how packed weights are kept; those that are packed are float32 always.
    """

    batch: int
    in_channels: int
    height: int
    width: int
    out_channels: int
    kernel: Pair
    stride: Pair = (1, 1)
    padding: Padding = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    epilogue: Epilogue = Epilogue()
    accuracy: Accuracy = "fast"
    weight_storage: WeightStorage = "float32"
    x_strides: RowStrides
    y_strides: Strides
    # Planning asks for the outputs a thousand times.
    _outputs: Pair = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_extents(self)
        object.__setattr__(self, "_outputs", self._count_outputs())
        _check_groups(self.groups, self.in_channels, self.out_channels)
        check_one_of("accuracy", self.accuracy, ("fast", "exact"))
        check_one_of("weight_storage", self.weight_storage, ("float32", "float16"))
        _check_sizes(x=self.x_shape, weight=self.weight_shape, y=self.y_shape)

    @property
    def extent(self) -> Pair:
        """Rows and columns that one dilated kernel spans."""
        return kernel_extent(self.kernel, self.dilation)

    @property
    def group_in_channels(self) -> int:
        """Channels of x that one output channel sums over."""
        return self.in_channels // self.groups

    @property
    def group_out_channels(self) -> int:
        """Channels of y that share their input channels."""
        return self.out_channels // self.groups

    @property
    def out_height(self) -> int:
        """Rows of outputs: those of y, before a pool."""
        return self._outputs[0]

    @property
    def out_width(self) -> int:
        """Columns of outputs, likewise."""
        return self._outputs[1]

    @property
    def x_shape(self) -> Shape:
        """``(N, C, H, W)``."""
        return self.batch, self.in_channels, self.height, self.width

    @property
    def weight_shape(self) -> Shape:
        """The shape of the weights."""
        raise NotImplementedError

    @property
    def y_shape(self) -> Shape:
        """``(N, O, out_height, out_width)``, the extents halved by a pool."""
        return self.batch, self.out_channels, *self.epilogue.stored(self._outputs)

    @property
    def conv_shape(self) -> Shape:
        """``(N, O, out_height, out_width)``, what a residual has."""
        return self.batch, self.out_channels, *self._outputs

    def _count_outputs(self) -> Pair:
        """Rows and columns of y."""
        raise NotImplementedError

    @property
    def is_empty(self) -> bool:
        """Whether y has no elements, so that there is nothing to compute."""
        return 0 in self.y_shape


@dataclass(frozen=True, kw_only=True)
class Problem(_Convolution):
    """One forward convolution, everything a planner needs to know of it.

    ``y[n,k,i,j] = epilogue(sum x[n, c, i*sh + p*dh - top, j*sw + q*dw - left] * weight[k,c,p,q])``
    over the channels c of k's group and the taps (p, q), where x is 0 outside ``height x width``.
    Negative padding crops. An output extent is 0 when the kernel does not fit; the class method
    ``conv2d`` refuses that.

    ``weight_layout`` says where the weights stand when not in a dense OIHW array.

    Raises ProblemError when a field is out of its range.
    """

    weight_layout: WeightLayout | None = None

    @property
    def weights(self) -> WeightLayout:
        """Where the weights stand."""
        return self.weight_layout or WeightLayout.dense(self.weight_shape, self.groups)

    @classmethod
    def conv2d(
        cls,
        x_shape: Sequence[SupportsIndex],
        weight_shape: Sequence[SupportsIndex],
        *,
        bias_shape: Sequence[SupportsIndex] | None = None,
        scale_shape: Sequence[SupportsIndex] | None = None,
        residual_shape: Sequence[SupportsIndex] | None = None,
        stride: IntOrPair = 1,
        padding: PaddingLike = 0,
        dilation: IntOrPair = 1,
        groups: SupportsIndex = 1,
        activation: Activation | None = None,
        residual_position: ResidualPosition = "before",
        pool: Pooling | None = None,
        statistics: bool = False,
        accuracy: Accuracy = "fast",
        weight_storage: WeightStorage = "float32",
        x_strides: RowStrides | None = None,
        y_strides: Strides | None = None,
    ) -> Problem:
        """Return the problem that the arguments of ``nnpack.conv2d`` state.

        Strides of None are those of a C-contiguous array. ``padding="same"`` gives
        ``ceil(in / stride)`` outputs, the surplus at bottom and right. A direction with a single
        tap has dilation 1, whatever was asked for.

        Raises ProblemError or DtypeError when the arguments state no well-formed convolution.
        """
        batch, in_channels, height, width = as_shape("x", x_shape, _IMAGE)
        out_channels, depth, kh, kw = as_shape("weight", weight_shape, _WEIGHT)
        group_count = as_integer("groups", groups, least=1)
        _check_groups(group_count, in_channels, out_channels)
        _check_weight_inputs(depth, in_channels // group_count, axis=1, layout=_WEIGHT)
        step = as_pair("stride", stride, least=1)
        spacing = _as_dilation(dilation, (kh, kw))
        extent = kernel_extent((kh, kw), spacing)
        borders = _as_padding(padding, (height, width), extent, step)
        _check_kernel_fits((height, width), extent, borders)
        outputs = conv_outputs((height, width), extent, borders, step)
        terms = Terms(scale_shape, bias_shape, residual_shape, residual_position, statistics)
        epilogue = terms.epilogue(activation, (batch, out_channels, *outputs), pool=pool)
        return cls(
            batch=batch,
            in_channels=in_channels,
            height=height,
            width=width,
            out_channels=out_channels,
            kernel=(kh, kw),
            stride=step,
            padding=borders,
            dilation=spacing,
            groups=group_count,
            epilogue=epilogue,
            accuracy=accuracy,
            weight_storage=weight_storage,
            x_strides=x_strides or dense_strides((batch, in_channels, height, width))[:3],
            y_strides=y_strides or dense_strides((batch, out_channels, *epilogue.stored(outputs))),
        )

    @property
    def weight_shape(self) -> Shape:
        """``(O, I/groups, kh, kw)``."""
        return self.out_channels, self.group_in_channels, *self.kernel

    def _count_outputs(self) -> Pair:
        image = (self.height, self.width)
        return conv_outputs(image, self.extent, self.padding, self.stride)

    @property
    def flops(self) -> int:
        """Multiplications and additions of the direct sum, the taps that meet padding included."""
        return 2 * math.prod(self.conv_shape) * math.prod(self.weight_shape[1:])


@dataclass(frozen=True, kw_only=True)
class TransposedProblem(_Convolution):
    """One transposed convolution: each pixel of x adds its multiple of the kernel to y.

    ``y[n, k, i*sh + p*dh - top, j*sw + q*dw - left] += x[n, c, i, j] * weight[c, k', p, q]`` over
    the channels c of k's group, k' being k's place in it; then the epilogue. y has
    ``(height - 1)*sh + extent + output_padding - top - bottom`` rows: padding cuts rows off,
    output_padding adds some at the bottom.

    Raises ProblemError when a field is out of its range.
    """

    output_padding: Pair = (0, 0)

    @classmethod
    def conv_transpose2d(
        cls,
        x_shape: Sequence[SupportsIndex],
        weight_shape: Sequence[SupportsIndex],
        *,
        bias_shape: Sequence[SupportsIndex] | None = None,
        scale_shape: Sequence[SupportsIndex] | None = None,
        residual_shape: Sequence[SupportsIndex] | None = None,
        stride: IntOrPair = 1,
        padding: PaddingLike = 0,
        output_padding: IntOrPair = 0,
        dilation: IntOrPair = 1,
        groups: SupportsIndex = 1,
        activation: Activation | None = None,
        residual_position: ResidualPosition = "before",
        pool: Pooling | None = None,
        statistics: bool = False,
        accuracy: Accuracy = "fast",
        weight_storage: WeightStorage = "float32",
        x_strides: RowStrides | None = None,
        y_strides: Strides | None = None,
    ) -> TransposedProblem:
        """Return the problem that the arguments of ``nnpack.conv_transpose2d`` state.

        ``padding="same"`` gives ``in * stride`` outputs, the surplus cut off at bottom and right.
        ``output_padding`` is less than stride or dilation. The rest is as in ``Problem.conv2d``,
        errors too.
        """
        batch, in_channels, height, width = as_shape("x", x_shape, _IMAGE)
        depth, group_channels, kh, kw = as_shape("weight", weight_shape, _TRANSPOSED_WEIGHT)
        group_count = as_integer("groups", groups, least=1)
        out_channels = group_channels * group_count
        _check_groups(group_count, in_channels, out_channels)
        _check_weight_inputs(depth, in_channels, axis=0, layout=_TRANSPOSED_WEIGHT)
        step = as_pair("stride", stride, least=1)
        spacing = _as_dilation(dilation, (kh, kw))
        extent = kernel_extent((kh, kw), spacing)
        surplus = _as_output_padding(output_padding, step, as_pair("dilation", dilation, least=1))
        borders, surplus = _as_transposed_padding(padding, surplus, extent, step)
        outputs = _transposed_outputs((height, width), extent, borders, step, surplus)
        terms = Terms(scale_shape, bias_shape, residual_shape, residual_position, statistics)
        epilogue = terms.epilogue(activation, (batch, out_channels, *outputs), pool=pool)
        return cls(
            batch=batch,
            in_channels=in_channels,
            height=height,
            width=width,
            out_channels=out_channels,
            kernel=(kh, kw),
            stride=step,
            padding=borders,
            output_padding=surplus,
            dilation=spacing,
            groups=group_count,
            epilogue=epilogue,
            accuracy=accuracy,
            weight_storage=weight_storage,
            x_strides=x_strides or dense_strides((batch, in_channels, height, width))[:3],
            y_strides=y_strides or dense_strides((batch, out_channels, *epilogue.stored(outputs))),
        )

    @property
    def weight_shape(self) -> Shape:
        """``(I, O/groups, kh, kw)``."""
        return self.in_channels, self.group_out_channels, *self.kernel

    def _count_outputs(self) -> Pair:
        image = (self.height, self.width)
        return transposed_outputs(
            image, self.extent, self.padding, self.stride, self.output_padding
        )

    @property
    def flops(self) -> int:
        """Multiplications and additions of the direct sum, those cut off by padding included."""
        return 2 * math.prod(self.x_shape) * math.prod(self.weight_shape[1:])


def _as_dilation(dilation: IntOrPair, kernel: Pair) -> Pair:
    # One spelling for one problem: a 1x1 kernel is pointwise whatever the distance of its taps.
    dh, dw = as_pair("dilation", dilation, least=1)
    return dh if kernel[0] > 1 else 1, dw if kernel[1] > 1 else 1


def _as_padding(padding: PaddingLike, image: Pair, extent: Pair, stride: Pair) -> Padding:
    if not isinstance(padding, str):
        return as_paddings("padding", padding)
    return same_padding(image, extent, stride) if _is_same(padding) else (0, 0, 0, 0)


def _as_transposed_padding(
    padding: PaddingLike, output_padding: Pair, extent: Pair, stride: Pair
) -> tuple[Padding, Pair]:
    if not isinstance(padding, str):
        return as_paddings("padding", padding), output_padding
    if not _is_same(padding):
        return (0, 0, 0, 0), output_padding
    if output_padding != (0, 0):
        raise ProblemError(
            f"output_padding={output_padding} must be 0 with padding='same', which decides it"
        )
    return transposed_same_padding(extent, stride)


def _is_same(padding: str) -> bool:
    if padding not in ("same", "valid"):
        raise ProblemError(f"padding={padding!r} must be 'same', 'valid' or numbers")
    return padding == "same"


def _as_output_padding(output_padding: IntOrPair, stride: Pair, dilation: Pair) -> Pair:
    pair = as_pair("output_padding", output_padding, least=0)
    bound = max(stride[0], dilation[0]), max(stride[1], dilation[1])
    if pair[0] >= bound[0] or pair[1] >= bound[1]:
        raise ProblemError(
            f"output_padding={output_padding!r} must be less than stride={stride} or "
            f"dilation={dilation}; rows beyond belong to no input of the convolution it transposes"
        )
    return pair


def _check_extents(problem: _Convolution) -> None:
    positive = {
        "in_channels": (problem.in_channels,),
        "height": (problem.height,),
        "width": (problem.width,),
        "out_channels": (problem.out_channels,),
        "kernel": problem.kernel,
        "stride": problem.stride,
        "dilation": problem.dilation,
        "groups": (problem.groups,),
    }
    for name, extents in positive.items():
        if min(extents) < 1:
            raise ProblemError(f"{name}={extents} must be at least 1")
    if problem.batch < 0:
        raise ProblemError(f"batch={problem.batch} must be at least 0")
    steps = (*problem.stride, *problem.dilation, *problem.padding)
    if max(map(abs, steps)) > MAX_INTEGER:
        raise ProblemError(f"stride, dilation and padding {steps} must be within {MAX_INTEGER}")


def _check_groups(groups: int, in_channels: int, out_channels: int) -> None:
    if in_channels % groups or out_channels % groups:
        raise ProblemError(
            f"groups={groups} must divide the {in_channels} channels of x and "
            f"the {out_channels} output channels of weight"
        )


def _check_sizes(**shapes: Shape) -> None:
    for name, shape in shapes.items():
        if 4 * math.prod(shape) >= MAX_ARRAY_BYTES:
            raise ProblemError(
                f"{name} would have the shape {shape}, {4 * math.prod(shape)} bytes; it must have "
                f"less than {MAX_ARRAY_BYTES}: make the problem smaller"
            )


def _check_weight_inputs(actual: int, expected: int, *, axis: int, layout: Sequence[str]) -> None:
    if actual != expected:
        raise ProblemError(
            f"weight.shape[{axis}]={actual} must be {expected}, what the channels of x and groups "
            f"ask for; weight is ({', '.join(layout)})"
        )


def _check_kernel_fits(image: Pair, extent: Pair, padding: Padding) -> None:
    top, bottom, left, right = padding
    padded = image[0] + top + bottom, image[1] + left + right
    if extent[0] > padded[0] or extent[1] > padded[1]:
        raise ProblemError(
            f"weight spans {extent[0]}x{extent[1]} pixels (kernel and dilation), more than "
            f"the {padded[0]}x{padded[1]} of x with padding={padding}; pad more, or dilate less"
        )


def _transposed_outputs(
    image: Pair, extent: Pair, padding: Padding, stride: Pair, output_padding: Pair
) -> Pair:
    outputs = transposed_outputs(image, extent, padding, stride, output_padding)
    if 0 in outputs:
        raise ProblemError(
            f"padding={padding} leaves {outputs[0]}x{outputs[1]} of the output; pad less"
        )
    return outputs
