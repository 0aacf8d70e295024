"""Times of element-wise functions, batch normalisation and softmax: a table on stdout.

Run as ``python benchmarks/elementwise.py [--threads 1] [--rounds 15] [--only relu add]``. Each
figure is the least of interleaved rounds, in microseconds a call: PyTorch, ONNX Runtime where it
is there, and ours. Every call makes its result anew, as users do; inputs are random and in cache
where they fit.
"""

from __future__ import annotations

import argparse
import math
import statistics
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from turns import Run, least_times

import nnpack

Shape = tuple[int, ...]

# What ResNet, VGG and GoogLeNet have between their convolutions, and what stands at their ends.
IMAGES: tuple[Shape, ...] = (
    (1, 64, 112, 112),
    (1, 256, 56, 56),
    (1, 128, 28, 28),
    (1, 512, 7, 7),
    (1, 64, 224, 224),
    (8, 64, 56, 56),
)
TRAINED: tuple[Shape, ...] = ((8, 64, 56, 56), (16, 256, 14, 14), (64, 512, 7, 7), (64, 512))
ROWS: tuple[Shape, ...] = ((1, 1000), (64, 10), (64, 1000), (256, 1000), (8, 64, 784))

# Our function, PyTorch's, and ONNX Runtime's operator with its attributes, of one array.
FUNCTIONS: dict[str, tuple[Any, Any, tuple[str, dict[str, Any]] | None]] = {
    "relu": (nnpack.relu, F.relu, ("Relu", {})),
    "clip": (
        lambda x, threads: nnpack.clip(x, 0.0, 6.0, threads=threads),
        lambda x: torch.clamp(x, 0.0, 6.0),
        ("Clip", {}),
    ),
    "sigmoid": (nnpack.sigmoid, torch.sigmoid, ("Sigmoid", {})),
    "tanh": (nnpack.tanh, torch.tanh, ("Tanh", {})),
    "silu": (nnpack.silu, F.silu, None),
    "gelu": (nnpack.gelu, F.gelu, ("Gelu", {})),
    "softmax": (nnpack.softmax, lambda x: torch.softmax(x, -1), ("Softmax", {"axis": -1})),
    "log_softmax": (
        nnpack.log_softmax,
        lambda x: torch.log_softmax(x, -1),
        ("LogSoftmax", {"axis": -1}),
    ),
}


def _cases() -> list[tuple[str, Shape]]:
    names = ("relu", "clip", "sigmoid", "tanh", "silu", "gelu", "add", "batch_norm")
    cases = [(name, shape) for name in names for shape in IMAGES]
    cases.append(("batch_norm", (64, 512)))
    cases += [("batch_norm, training", shape) for shape in TRAINED]
    return cases + [(name, shape) for name in ("softmax", "log_softmax") for shape in ROWS]


def _contestants(name: str, shape: Shape, threads: int) -> dict[str, Run]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape, dtype=np.float32)
    tensor = torch.from_numpy(x)
    operator: tuple[str, dict[str, Any]] | None
    inputs: dict[str, Any] = {"x": x}
    if name == "add":
        other = rng.standard_normal(shape, dtype=np.float32)
        second = torch.from_numpy(other)
        runs: dict[str, Run] = {
            "ours": lambda: nnpack.add(x, other, threads=threads),
            "torch": lambda: torch.add(tensor, second),
        }
        operator = "Add", {}
        inputs["other"] = other
    elif name == "batch_norm, training":
        ours_terms = [np.ones(shape[1], np.float32) for _ in range(4)]
        gamma, beta, mean, variance = (torch.from_numpy(term.copy()) for term in ours_terms)
        return {
            "ours": lambda: nnpack.batch_norm(x, *ours_terms, training=True, threads=threads),
            "torch": lambda: F.batch_norm(tensor, mean, variance, gamma, beta, training=True),
        }
    elif name == "batch_norm":
        terms = [rng.random(shape[1], dtype=np.float32) + 0.5 for _ in range(4)]
        gamma, beta, mean, variance = (torch.from_numpy(term) for term in terms)
        runs = {
            "ours": lambda: nnpack.batch_norm(x, *terms, threads=threads),
            "torch": lambda: F.batch_norm(tensor, mean, variance, gamma, beta),
        }
        operator = "BatchNormalization", {}
        inputs |= dict(zip(("gamma", "beta", "mean", "variance"), terms, strict=True))
    else:
        ours, theirs, operator = FUNCTIONS[name]
        runs = {"ours": lambda: ours(x, threads=threads), "torch": lambda: theirs(tensor)}
        if name == "clip":
            inputs |= {"low": np.float32(0.0), "high": np.float32(6.0)}
    peer = _onnxruntime(operator, inputs, threads) if operator else None
    return runs if peer is None else {**runs, "onnxruntime": peer}


def _onnxruntime(
    operator: tuple[str, dict[str, Any]], inputs: dict[str, Any], threads: int
) -> Run | None:
    try:
        import onnxruntime as ort
        from onnx import TensorProto, helper
    except ImportError:
        return None
    name, attributes = operator
    node = helper.make_node(name, list(inputs), ["y"], **attributes)
    ends = [
        helper.make_tensor_value_info(key, TensorProto.FLOAT, np.shape(value))
        for key, value in inputs.items()
    ]
    shape = np.shape(next(iter(inputs.values())))
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)
    graph = helper.make_graph([node], "operator", ends, [result])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    binding = session.io_binding()
    for key, value in inputs.items():
        binding.bind_cpu_input(key, np.asarray(value))
    binding.bind_output("y")
    return lambda: session.run_with_iobinding(binding)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", nargs="*")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    gains: dict[str, list[float]] = {}
    print(f"| {options.threads} thread(s), us | torch | onnxruntime | ours | gain |")
    print("|---|---|---|---|---|")
    for name, shape in _cases():
        if options.only and name not in options.only:
            continue
        found = least_times(
            _contestants(name, shape, options.threads), options.rounds, options.threads
        )
        best = min(value for key, value in found.items() if key != "ours")
        gains.setdefault(name, []).append(best / found["ours"])
        columns = [found.get(key, math.nan) for key in ("torch", "onnxruntime", "ours")]
        cells = " | ".join(f"{value:.1f}" for value in columns)
        extents = "x".join(map(str, shape))
        print(f"| {name} {extents} | {cells} | {gains[name][-1]:.2f} |", flush=True)
    for name, ratios in gains.items():
        print(f"| {name}, geometric mean | | | | {statistics.geometric_mean(ratios):.2f} |")
    total = statistics.geometric_mean([ratio for ratios in gains.values() for ratio in ratios])
    print(f"| all, geometric mean | | | | {total:.2f} |")


if __name__ == "__main__":
    main()
