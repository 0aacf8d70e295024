"""MNN: a module in the highest of its precisions, which still is Winograd with errors of 1e-3."""

from __future__ import annotations

import importlib
import pathlib
import tempfile
from typing import Any

from nnpack.cli.bench.contestant import Operands, Prepared
from nnpack.cli.bench.layers import Layer
from nnpack.cli.bench.peers.onnx_model import INPUT, OUTPUT, conv_model
from nnpack.cli.bench.quiet import quiet

CPU = 0


def prepare(layer: Layer, operands: Operands, threads: int) -> Prepared:
    """A module, NCHW in and out.

    The older sessions recycle the memory of their input, which would have to be copied in again
    for every run; a module leaves its input alone.
    """
    with quiet():  # it greets everybody who imports it
        nn, expr = importlib.import_module("MNN.nn"), importlib.import_module("MNN.expr")
    options = {"backend": CPU, "precision": "high", "numThread": threads}
    with tempfile.TemporaryDirectory() as folder, quiet():
        model = _convert(layer, operands, pathlib.Path(folder))
        runtime = nn.create_runtime_manager((options,))
        module = nn.load_module_from_file(model, [INPUT], [OUTPUT], runtime_manager=runtime)
    x = expr.const(operands.x, list(operands.x.shape), expr.NCHW)

    def run() -> Any:
        (y,) = module.forward([x])
        return y

    return Prepared(run, lambda y: y.read())


def _convert(layer: Layer, operands: Operands, folder: pathlib.Path) -> str:
    """The path of the layer as an MNN model.

    Models built with ``MNN.expr`` take their weights as inputs and never become Winograd. The
    converter's own wrapper, ``MNN.tools.mnnconvert``, runs ``pip install`` when it is imported,
    hence the extension module beneath it.
    """
    source, target = folder / "layer.onnx", folder / "layer.mnn"
    source.write_bytes(conv_model(layer, operands))
    words = ["mnnconvert", "-f", "ONNX", "--bizCode", "bench"]
    words += ["--modelFile", str(source), "--MNNModel", str(target)]
    importlib.import_module("_tools").mnnconvert(words)
    return str(target)
