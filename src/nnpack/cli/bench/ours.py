"""The library itself, in the three ways it can be called."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

import nnpack
from nnpack.cli.bench.contestant import Contestant, Operands, Prepared
from nnpack.cli.bench.layers import Layer
from nnpack.problem import Problem


def layer_options(layer: Layer, threads: int) -> dict[str, Any]:
    """What ``layer`` is to `nnpack.conv2d`, beside its arrays."""
    return {
        "stride": layer.stride,
        "padding": layer.padding,
        "dilation": layer.dilation,
        "groups": layer.groups,
        "threads": threads,
    }


def layer_problem(layer: Layer, batch: int) -> Problem:
    """``layer`` as planners know it: the problem of the same arguments."""
    return Problem.conv2d(
        layer.input_shape(batch),
        layer.weight_shape,
        bias_shape=(layer.out_channels,),
        stride=layer.stride,
        padding=layer.margins,
        dilation=layer.dilation,
        groups=layer.groups,
    )


def prepare_packed(layer: Layer, operands: Operands, threads: int) -> Prepared:
    """A layer object: weights packed once, a fresh output every call."""
    packed = nnpack.Conv2d(operands.weight, operands.bias, **layer_options(layer, threads))
    return Prepared(partial(packed, operands.x), np.asarray)


def prepare_out(layer: Layer, operands: Operands, threads: int) -> Prepared:
    """A layer object that writes into the same array every call."""
    packed = nnpack.Conv2d(operands.weight, operands.bias, **layer_options(layer, threads))
    y = np.empty(layer.output_shape(len(operands.x)), np.float32)
    return Prepared(partial(packed, operands.x, out=y), np.asarray)


def prepare_cold(layer: Layer, operands: Operands, threads: int) -> Prepared:
    """The function: weights packed again in every call."""
    run = partial(
        nnpack.conv2d, operands.x, operands.weight, operands.bias, **layer_options(layer, threads)
    )
    return Prepared(run, np.asarray)


PACKED = Contestant("nnpack", (), prepare_packed, is_ours=True)
OURS = (
    PACKED,
    Contestant("nnpack-out", (), prepare_out, is_ours=True),
    Contestant("nnpack-cold", (), prepare_cold, is_ours=True),
)
