"""A layer as an ONNX model, for the peers that read those."""

from __future__ import annotations

import importlib

from nnpack.cli.bench.contestant import Operands
from nnpack.cli.bench.layers import Layer

INPUT, OUTPUT = "x", "y"
# Old enough for every peer, new enough for nothing in Conv to have changed since.
OPSET, IR_VERSION = 13, 8


def conv_model(layer: Layer, operands: Operands) -> bytes:
    """The serialised model y = Conv(x, weight, bias), the weights inside, the batch fixed."""
    onnx = importlib.import_module("onnx")
    helper = importlib.import_module("onnx.helper")
    from_array = importlib.import_module("onnx.numpy_helper").from_array
    node = helper.make_node(
        "Conv",
        [INPUT, "weight", "bias"],
        [OUTPUT],
        kernel_shape=list(layer.window),
        strides=[layer.stride] * 2,
        pads=[*layer.margins, *layer.margins],
        dilations=[layer.dilation] * 2,
        group=layer.groups,
    )
    batch = len(operands.x)
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, list(shape))
        for name, shape in (
            (INPUT, layer.input_shape(batch)),
            (OUTPUT, layer.output_shape(batch)),
        )
    ]
    weights = [from_array(operands.weight, "weight"), from_array(operands.bias, "bias")]
    graph = helper.make_graph([node], "layer", ends[:1], ends[1:], weights)
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
    serialised: bytes = model.SerializeToString()
    return serialised
