"""One ONNX Conv or ConvTranspose node as a call of this library.

All that differs is the words: ONNX writes pads as (top, left, bottom, right), can have them chosen
(``auto_pad``), and can state a transposed convolution by the shape of its output (ONNX operator
specification, Conv-11 and ConvTranspose-11).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from tests.onnx_cases.cases import Array, Case

Pair: TypeAlias = tuple[int, int]
Convolution: TypeAlias = Callable[..., Array]


@dataclass(frozen=True)
class Node:
    """The attributes of a node with ONNX's defaults in place; pairs are (height, width)."""

    image: Pair
    kernel: Pair
    strides: Pair
    dilations: Pair
    group: int
    pads: tuple[int, ...]
    auto_pad: str
    output_padding: Pair
    output_shape: Pair | None

    @classmethod
    def of(cls, case: Case) -> Node:
        """Read the attributes of ``case``."""
        attributes = case.attributes
        x, weight = case.inputs[:2]
        assert x is not None
        assert weight is not None
        kernel = _pair(weight.shape[2:])
        if tuple(attributes.get("kernel_shape", kernel)) != kernel:
            raise ValueError(f"{case.name}: kernel_shape differs from the weights' {kernel}")
        shape = attributes.get("output_shape")
        return cls(
            image=_pair(x.shape[2:]),
            kernel=kernel,
            strides=_pair(attributes.get("strides", (1, 1))),
            dilations=_pair(attributes.get("dilations", (1, 1))),
            group=attributes.get("group", 1),
            pads=tuple(attributes.get("pads", (0, 0, 0, 0))),
            auto_pad=attributes.get("auto_pad", b"NOTSET").decode(),
            output_padding=_pair(attributes.get("output_padding", (0, 0))),
            output_shape=None if shape is None else _pair(shape[-2:]),
        )

    def extent(self, axis: int) -> int:
        """How many pixels the dilated kernel spans."""
        return (self.kernel[axis] - 1) * self.dilations[axis] + 1

    def options(self) -> dict[str, Any]:
        """The arguments that both kinds of convolution take."""
        return {"stride": self.strides, "dilation": self.dilations, "groups": self.group}

    def explicit_padding(self) -> tuple[int, int, int, int]:
        """``pads`` in this library's order: top, bottom, left, right."""
        top, left, bottom, right = self.pads
        return (top, bottom, left, right)


def run_conv(case: Case, conv2d: Convolution) -> Array:
    """The output of a Conv node."""
    node = Node.of(case)
    return conv2d(*case.inputs, padding=_conv_padding(node), **node.options())


def run_conv_transpose(case: Case, conv_transpose2d: Convolution) -> Array:
    """The output of a ConvTranspose node."""
    node = Node.of(case)
    padding, output_padding = _transposed_padding(node)
    return conv_transpose2d(
        *case.inputs, padding=padding, output_padding=output_padding, **node.options()
    )


def _conv_padding(node: Node) -> str | tuple[int, int, int, int]:
    if node.auto_pad == "NOTSET":
        return node.explicit_padding()
    if node.auto_pad == "VALID":
        return "valid"
    if node.auto_pad == "SAME_UPPER":
        return "same"
    totals = [_same_total(node, axis) for axis in (0, 1)]
    return _share(totals, surplus_first=node.auto_pad == "SAME_LOWER")


def _same_total(node: Node, axis: int) -> int:
    """Pixels to add along ``axis`` so that the output has ceil(image / stride)."""
    image, stride = node.image[axis], node.strides[axis]
    return max(0, (-(-image // stride) - 1) * stride + node.extent(axis) - image)


def _transposed_padding(node: Node) -> tuple[tuple[int, int, int, int], Pair]:
    """Pixels to take off each side, and rows and columns to add at the bottom and right."""
    wanted = node.output_shape
    if wanted is None and node.auto_pad.startswith("SAME"):
        wanted = (node.image[0] * node.strides[0], node.image[1] * node.strides[1])
    if wanted is None:
        return node.explicit_padding(), node.output_padding
    totals = [_full(node, axis) - wanted[axis] for axis in (0, 1)]
    # An output larger than the whole result is filled up at the bottom and right.
    missing = _pair([max(0, -total) for total in totals])
    added = (node.output_padding[0] + missing[0], node.output_padding[1] + missing[1])
    kept = [max(0, total) for total in totals]
    return _share(kept, surplus_first=node.auto_pad != "SAME_UPPER"), added


def _full(node: Node, axis: int) -> int:
    """The output without padding, with the output padding that the node states."""
    spread = node.strides[axis] * (node.image[axis] - 1)
    return spread + node.extent(axis) + node.output_padding[axis]


def _share(totals: Sequence[int], *, surplus_first: bool) -> tuple[int, int, int, int]:
    """Both totals in halves; an odd one has its surplus at the beginning or at the end."""
    (top, bottom), (left, right) = (
        (-(-total // 2), total // 2) if surplus_first else (total // 2, -(-total // 2))
        for total in totals
    )
    return (top, bottom, left, right)


def _pair(values: Sequence[int]) -> Pair:
    height, width = values
    return (height, width)
