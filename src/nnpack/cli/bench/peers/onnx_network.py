"""A whole network as an ONNX model, and as a session of ONNX Runtime: the peer of the demo."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from nnpack.cli.bench.peers.onnx_model import INPUT, IR_VERSION, OPSET, OUTPUT
from nnpack.cli.bench.peers.onnxruntime import ERRORS_ONLY
from nnpack.cli.demo.efficientnet import Convolution, Float32, Network

__all__ = ["network_model", "network_session"]


def network_session(network: Network, x: Float32, threads: int) -> Callable[[], Float32]:
    """What runs ``network`` on ``x`` by ONNX Runtime; all graph optimisations on, nothing copied.

    Raises ModuleNotFoundError where onnx or onnxruntime is not installed.
    """
    ort = importlib.import_module("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = ERRORS_ONLY
    model = network_model(network, x.shape)
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    y = np.empty((len(x), len(network.bias)), np.float32)
    binding = session.io_binding()
    binding.bind_cpu_input(INPUT, x)
    binding.bind_output(OUTPUT, "cpu", 0, np.float32, y.shape, y.ctypes.data)

    def run() -> Float32:
        session.run_with_iobinding(binding)
        return y

    return run


def network_model(network: Network, x_shape: tuple[int, ...]) -> bytes:
    """The serialised model of ``network``, from pictures of ``x_shape`` to probabilities."""
    onnx = importlib.import_module("onnx")
    helper = importlib.import_module("onnx.helper")
    writer = _Writer(helper, importlib.import_module("onnx.numpy_helper").from_array)
    value, shape = INPUT, tuple(x_shape[2:])
    for block in network.blocks:
        begin = value
        for layer in block.layers:
            value, shape = writer.convolution(layer, value, shape)
        if block.residual:
            value = writer.node("Add", [value, begin])
    value = writer.node("Flatten", [writer.node("GlobalAveragePool", [value])])
    dense = [value, writer.constant("fc.weight", network.weight)]
    value = writer.node("Gemm", [*dense, writer.constant("fc.bias", network.bias)], transB=1)
    writer.node("Softmax", [value], output=OUTPUT, axis=1)
    y_shape = x_shape[0], len(network.bias)
    x, y = (
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, list(extents))
        for name, extents in ((INPUT, x_shape), (OUTPUT, y_shape))
    )
    graph = helper.make_graph(writer.nodes, "network", [x], [y], writer.constants)
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
    serialised: bytes = model.SerializeToString()
    return serialised


class _Writer:
    """Collects the nodes and the constants of a graph."""

    def __init__(self, helper: Any, from_array: Callable[[Any, str], Any]) -> None:
        self._helper = helper
        self._from_array = from_array
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, name: str, array: Float32) -> str:
        """Add a constant; return its name."""
        self.constants.append(self._from_array(array, name))
        return name

    def node(
        self, operator: str, inputs: list[str], *, output: str | None = None, **attributes: Any
    ) -> str:
        """Add a node with one output; return the name of that."""
        name = output or f"{operator}{len(self.nodes)}"
        self.nodes.append(self._helper.make_node(operator, inputs, [name], **attributes))
        return name

    def convolution(
        self, layer: Convolution, value: str, shape: tuple[int, ...]
    ) -> tuple[str, tuple[int, ...]]:
        """Add a convolution and its ReLU6; return the name and the extents of what it gives."""
        kernel = layer.weight.shape[2:]
        outputs = tuple(-(-extent // layer.stride) for extent in shape)
        totals = [
            max(0, (after - 1) * layer.stride + span - before)
            for before, after, span in zip(shape, outputs, kernel, strict=True)
        ]
        value = self.node(
            "Conv",
            [
                value,
                self.constant(f"{layer.name}.weight", layer.weight),
                self.constant(f"{layer.name}.bias", layer.bias),
            ],
            kernel_shape=list(kernel),
            strides=[layer.stride] * 2,
            pads=[total // 2 for total in totals] + [total - total // 2 for total in totals],
            group=layer.groups,
        )
        if not layer.clipped:
            return value, outputs
        bounds = [
            self.constant(f"{layer.name}.{name}", np.array(bound, np.float32))
            for name, bound in (("low", 0), ("high", 6))
        ]
        return self.node("Clip", [value, *bounds]), outputs
