"""Input gradients as problems of the other direction: the transpose in x of each convolution.

With weights held fixed, ``y = conv2d(x)`` is linear in x, and its gradient is the transposed
convolution of the gradient of y with the same weights; the gradient of a transposed convolution
is a convolution. Their extents are those of x, whatever the forward convolution left over.
"""

from __future__ import annotations

import functools

from nnpack.epilogue import Epilogue
from nnpack.geometry import dense_strides
from nnpack.problem import Problem, RowStrides, TransposedProblem

__all__ = ["conv2d_transpose_of", "conv_transpose2d_transpose_of"]


@functools.lru_cache(maxsize=256)
def conv2d_transpose_of(
    forward: Problem, grad_strides: RowStrides, epilogue: Epilogue
) -> TransposedProblem:
    """The problem ``(N, O, H', W') -> (N, C, H, W)`` the transpose of ``forward``.

    Rows and columns of x that no output reaches, at most stride - 1 of them beyond the last tap,
    come as output padding.
    """
    _, _, out_height, out_width = forward.y_shape
    (top, bottom, left, right), (extent_h, extent_w) = forward.padding, forward.extent
    reached_h = (out_height - 1) * forward.stride[0] + extent_h - top - bottom
    reached_w = (out_width - 1) * forward.stride[1] + extent_w - left - right
    return TransposedProblem(
        batch=forward.batch,
        in_channels=forward.out_channels,
        height=out_height,
        width=out_width,
        out_channels=forward.in_channels,
        kernel=forward.kernel,
        stride=forward.stride,
        padding=forward.padding,
        output_padding=(forward.height - reached_h, forward.width - reached_w),
        dilation=forward.dilation,
        groups=forward.groups,
        epilogue=epilogue,
        accuracy=forward.accuracy,
        x_strides=grad_strides,
        y_strides=dense_strides(forward.x_shape),
    )


@functools.lru_cache(maxsize=256)
def conv_transpose2d_transpose_of(
    forward: TransposedProblem, grad_strides: RowStrides, epilogue: Epilogue
) -> Problem:
    """The problem ``(N, O, H', W') -> (N, I, H, W)`` the transpose of ``forward``.

    Rows and columns that came of output padding belong to no input: they are cropped.
    """
    _, _, out_height, out_width = forward.y_shape
    (top, bottom, left, right), (more_h, more_w) = forward.padding, forward.output_padding
    return Problem(
        batch=forward.batch,
        in_channels=forward.out_channels,
        height=out_height,
        width=out_width,
        out_channels=forward.in_channels,
        kernel=forward.kernel,
        stride=forward.stride,
        padding=(top, bottom - more_h, left, right - more_w),
        dilation=forward.dilation,
        groups=forward.groups,
        epilogue=epilogue,
        accuracy=forward.accuracy,
        x_strides=grad_strides,
        y_strides=dense_strides(forward.x_shape),
    )
