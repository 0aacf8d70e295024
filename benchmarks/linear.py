"""Rates of fully connected layers and their gradients against PyTorch, ONNX Runtime and OpenVINO.

Run as ``python benchmarks/linear.py [--threads 1] [--rounds 15] [--rows 1 64 256]``: a table on
stdout, of GFLOP/s, the medians of interleaved rounds; for one row GB/s of weights, beside the rate
at which a plain loop reads as much memory. Peers hold their weights as constants, packed as they
like; those that are not installed are left out. ``--gradients`` times the gradients instead.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import nnpack
from nnpack.codegen.assembler import Assembler
from nnpack.codegen.compiler import ENTRY, compile_kernel
from nnpack.codegen.target import host_target
from nnpack.frozen import dataclass

Run = Callable[[], object]

# Inputs and outputs: classifiers of ResNet and GoogLeNet, a Transformer's layers, AlexNet's and
# VGG's fully connected layers.
LAYERS = ((1024, 1000), (2048, 1000), (768, 3072), (3072, 768), (4096, 4096), (25088, 4096))

LEAST_TURN = 2e-3


def _random(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).standard_normal(shape, dtype=np.float32)


def _ours(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, threads: int) -> dict[str, Run]:
    out = np.empty((len(x), len(weight)), np.float32)
    layer = nnpack.Linear(weight, bias, threads=threads)
    half = nnpack.Linear(weight, bias, threads=threads, weight_storage="float16")
    return {
        "Linear": lambda: layer(x, out=out),
        "float16": lambda: half(x, out=out),
        "linear": lambda: nnpack.linear(x, weight, bias, threads=threads, out=out),
    }


def _torch(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, threads: int) -> Run | None:
    try:
        import torch
    except ImportError:
        return None
    torch.set_num_threads(threads)
    tensors = [torch.from_numpy(a) for a in (x, weight, bias)]

    def run() -> object:
        with torch.inference_mode():
            return torch.nn.functional.linear(*tensors)

    return run


def _onnx_model(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    constants = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")]
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)
    shapes = {"x": x.shape, "y": (len(x), len(weight))}
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()]
    graph = helper.make_graph([node], "linear", ends[:1], ends[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    content: bytes = model.SerializeToString()
    return content


def _onnxruntime(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, threads: int) -> Run | None:
    try:
        import onnxruntime as ort

        content = _onnx_model(x, weight, bias)
    except ImportError:
        return None
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    binding.bind_cpu_input("x", x)
    binding.bind_output("y")
    return lambda: session.run_with_iobinding(binding)


def _openvino(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, threads: int) -> Run | None:
    try:
        import openvino as ov

        content = _onnx_model(x, weight, bias)
    except ImportError:
        return None
    words = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    core = ov.Core()
    request = core.compile_model(core.read_model(content, b""), "CPU", words).create_infer_request()
    request.set_input_tensor(ov.Tensor(x, shared_memory=True))
    run: Run = request.infer
    return run


PEERS = {"torch": _torch, "onnxruntime": _onnxruntime, "openvino": _openvino}


def _gradients(x: np.ndarray, weight: np.ndarray, threads: int) -> dict[str, Run]:
    """Ours and PyTorch's, both into arrays that are there."""
    import torch

    torch.set_num_threads(threads)
    grad = _random(len(x), len(weight))
    gx, gw = np.empty_like(x), np.empty_like(weight)
    tx, tw, tg, tgx, tgw = (torch.from_numpy(a) for a in (x, weight, grad, gx.copy(), gw.copy()))
    words: dict[str, Any] = {"threads": threads}
    return {
        "input": lambda: nnpack.linear_input_gradient(grad, weight, out=gx, **words),
        "input, torch": lambda: torch.mm(tg, tw, out=tgx),
        "weight": lambda: nnpack.linear_weight_gradient(x, grad, out=gw, **words),
        "weight, torch": lambda: torch.mm(tg.t(), tx, out=tgw),
    }


@dataclass(frozen=True)
class ReadFloats:
    """The sum of ``floats`` floats, 8 vectors at once: the rate of memory."""

    def emit(self, asm: Assembler) -> None:
        """Emit the function."""
        parameters = {"x": "pointer", "floats": "index", "out": "pointer"}
        with asm.function(ENTRY, exported=True, **parameters) as (x, floats, out):
            sums = {n: asm.zeros() for n in range(8)}
            with asm.loop(floats, step=8 * asm.lanes, carry=sums) as start:
                for n in range(8):
                    sums[n] = sums[n] + asm.load(x + start, n * asm.lanes)
            total = sums[0]
            for n in range(1, 8):
                total = total + sums[n]
            asm.store(total, out)


@functools.cache
def _read_kernel() -> Callable[[int, int, int], None]:
    words = ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p
    return ctypes.CFUNCTYPE(None, *words)(compile_kernel(ReadFloats(), host_target()))


def _reader(weight: np.ndarray) -> Run:
    out = np.empty(16, np.float32)
    kernel = _read_kernel()
    return lambda: kernel(weight.ctypes.data, weight.size // 128 * 128, out.ctypes.data)


def _measure(runs: dict[str, Run], rounds: int) -> dict[str, float]:
    """Medians of the seconds a call, the contestants taking turns.

    A turn is a call that does not count, which brings into cache what fits, and then some that do.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            repeats = max(1, int(LEAST_TURN / (time.perf_counter() - start)))
            start = time.perf_counter()
            for _ in range(repeats):
                run()
            times[name].append((time.perf_counter() - start) / repeats)
    return {name: statistics.median(found) for name, found in times.items()}


def _contestants(rows: int, layer: tuple[int, int], options: argparse.Namespace) -> dict[str, Run]:
    inputs, outputs = layer
    x, weight, bias = _random(rows, inputs), _random(outputs, inputs), _random(outputs)
    if options.gradients:
        return _gradients(x, weight, options.threads)
    runs = _ours(x, weight, bias, options.threads)
    for name, make in PEERS.items():
        run = make(x, weight, bias, options.threads)
        if run is not None:
            runs[name] = run
    return runs | ({"read": _reader(weight)} if rows == 1 else {})


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 64, 256])
    parser.add_argument("--gradients", action="store_true")
    options = parser.parse_args()
    head = ""
    for rows in options.rows:
        for layer in LAYERS:
            runs = _contestants(rows, layer, options)
            times = _measure(runs, options.rounds)
            names = "".join(f"{name:>15}" for name in times)
            if names != head:
                head = names
                print(f"{'GB/s' if 'read' in times else 'GFLOP/s':24}{names}", flush=True)
            amount = (4 if "read" in times else 2 * rows) * layer[0] * layer[1] / 1e9
            rates = "".join(f"{amount / seconds:15.1f}" for seconds in times.values())
            print(f"{f'{rows} x {layer[0]} -> {layer[1]}':24}{rates}", flush=True)


if __name__ == "__main__":
    main()
