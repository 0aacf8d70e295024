"""Extents, paddings and strides of convolutions: pure formulae over ``(h, w)`` pairs."""

from __future__ import annotations

__all__ = [
    "Padding",
    "Pair",
    "Shape",
    "Strides",
    "conv_outputs",
    "dense_strides",
    "kernel_extent",
    "same_padding",
    "transposed_outputs",
    "transposed_same_padding",
]

Pair = tuple[int, int]
Padding = tuple[int, int, int, int]  # top, bottom, left, right
Shape = tuple[int, int, int, int]
Strides = tuple[int, int, int, int]  # in elements


def dense_strides(shape: Shape) -> Strides:
    """Return the strides in elements of a C-contiguous array of ``shape``."""
    _, c, h, w = shape
    return c * h * w, h * w, w, 1


def kernel_extent(kernel: Pair, dilation: Pair) -> Pair:
    """Return the rows and columns that one dilated kernel spans."""
    return (kernel[0] - 1) * dilation[0] + 1, (kernel[1] - 1) * dilation[1] + 1


def conv_outputs(image: Pair, extent: Pair, padding: Padding, stride: Pair) -> Pair:
    """Return ``(image + padding - extent) // stride + 1``, 0 where the kernel does not fit."""
    top, bottom, left, right = padding
    rows = (image[0] + top + bottom - extent[0]) // stride[0] + 1
    columns = (image[1] + left + right - extent[1]) // stride[1] + 1
    return max(0, rows), max(0, columns)


def transposed_outputs(
    image: Pair, extent: Pair, padding: Padding, stride: Pair, output_padding: Pair
) -> Pair:
    """Return ``(image - 1) * stride + extent + output_padding - padding``, at least 0."""
    top, bottom, left, right = padding
    rows = (image[0] - 1) * stride[0] + extent[0] + output_padding[0] - top - bottom
    columns = (image[1] - 1) * stride[1] + extent[1] + output_padding[1] - left - right
    return max(0, rows), max(0, columns)


def same_padding(image: Pair, extent: Pair, stride: Pair) -> Padding:
    """Return the least padding that gives ``ceil(image / stride)`` outputs."""
    rows = (-(-image[0] // stride[0]) - 1) * stride[0] + extent[0] - image[0]
    columns = (-(-image[1] // stride[1]) - 1) * stride[1] + extent[1] - image[1]
    return (*_halves(rows), *_halves(columns))


def transposed_same_padding(extent: Pair, stride: Pair) -> tuple[Padding, Pair]:
    """Return the padding and the output padding that give ``image * stride`` outputs."""
    rows, columns = extent[0] - stride[0], extent[1] - stride[1]
    return (*_halves(rows), *_halves(columns)), (max(0, -rows), max(0, -columns))


def _halves(total: int) -> Pair:
    # The surplus of an odd total goes to bottom and right, as in TensorFlow and ONNX's SAME_UPPER.
    total = max(0, total)
    return total // 2, total - total // 2
