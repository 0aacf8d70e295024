"""ONNX Runtime: input and output bound ahead, so that a run copies nothing."""

from __future__ import annotations

import importlib
from functools import partial

import numpy as np

from nnpack.cli.bench.contestant import Operands, Prepared
from nnpack.cli.bench.layers import Layer
from nnpack.cli.bench.peers.onnx_model import INPUT, OUTPUT, conv_model

ERRORS_ONLY = 3


def prepare(layer: Layer, operands: Operands, threads: int) -> Prepared:
    """A session of one node on the CPU provider, all graph optimisations on (the default)."""
    ort = importlib.import_module("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = ERRORS_ONLY
    session = ort.InferenceSession(
        conv_model(layer, operands), options, providers=["CPUExecutionProvider"]
    )
    y = np.empty(layer.output_shape(len(operands.x)), np.float32)
    binding = session.io_binding()
    binding.bind_cpu_input(INPUT, operands.x)
    binding.bind_output(OUTPUT, "cpu", 0, np.float32, y.shape, y.ctypes.data)
    return Prepared(partial(session.run_with_iobinding, binding), lambda _: y)
