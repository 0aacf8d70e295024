"""OpenVINO: one request, input and output in place, float32 throughout."""

from __future__ import annotations

import functools
import importlib
from typing import Any

from nnpack.cli.bench.contestant import Operands, Prepared
from nnpack.cli.bench.layers import Layer
from nnpack.cli.bench.peers.onnx_model import conv_model


@functools.cache
def _core() -> Any:
    return importlib.import_module("openvino").Core()


def prepare(layer: Layer, operands: Operands, threads: int) -> Prepared:
    """A compiled model with one stream of ``threads`` threads; lower precisions refused."""
    openvino = importlib.import_module("openvino")
    core = _core()
    options = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
    }
    model = core.read_model(conv_model(layer, operands), b"")
    request = core.compile_model(model, "CPU", options).create_infer_request()
    request.set_input_tensor(openvino.Tensor(operands.x, shared_memory=True))

    def run() -> None:
        request.start_async()
        request.wait()

    return Prepared(run, lambda _: request.get_output_tensor().data)
