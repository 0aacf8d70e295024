"""Times of pools against PyTorch and ONNX Runtime, in interleaved rounds: a table on stdout.

Run as ``python benchmarks/pooling.py [--threads 1] [--rounds 15]``. Each figure is the least of
the rounds, in microseconds, of the best of both peers and of ours; ONNX Runtime takes part when it
is there. Inputs are random and, like outputs, in cache where they fit.
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

# Channels, height, width; kernel, stride, padding; a kernel of 0 is global average pooling.
CASES = {
    "ResNet 3x3/2 max": (64, 112, 112, 3, 2, 1, "max"),
    "VGG 2x2/2 max": (64, 224, 224, 2, 2, 0, "max"),
    "VGG 2x2/2 max ": (128, 112, 112, 2, 2, 0, "max"),
    "VGG 2x2/2 max  ": (256, 56, 56, 2, 2, 0, "max"),
    "VGG 2x2/2 max   ": (512, 28, 28, 2, 2, 0, "max"),
    "VGG 2x2/2 max    ": (512, 14, 14, 2, 2, 0, "max"),
    "GoogLeNet 3x3/1 max": (192, 28, 28, 3, 1, 1, "max"),
    "GoogLeNet 3x3/1 max ": (512, 14, 14, 3, 1, 1, "max"),
    "GoogLeNet 3x3/1 max  ": (832, 7, 7, 3, 1, 1, "max"),
    "GoogLeNet 3x3/2 max": (480, 28, 28, 3, 2, 1, "max"),
    "DenseNet 2x2/2 average": (128, 56, 56, 2, 2, 0, "average"),
    "Inception 3x3/1 average": (288, 35, 35, 3, 1, 1, "average"),
    "ResNet global average": (2048, 7, 7, 0, 1, 0, "average"),
    "MobileNet global average": (1280, 7, 7, 0, 1, 0, "average"),
}


def _ours(case: tuple[Any, ...], x: np.ndarray, threads: int) -> Run:
    *_, k, s, p, kind = case
    out: np.ndarray
    if k == 0:
        out = np.empty((1, case[0], 1, 1), np.float32)
        return lambda: nnpack.global_avg_pool2d(x, threads=threads, out=out)
    pool = nnpack.max_pool2d if kind == "max" else nnpack.avg_pool2d
    out = np.empty_like(pool(x, k, s, p))
    return lambda: pool(x, k, s, p, threads=threads, out=out)


def _torch(case: tuple[Any, ...], x: np.ndarray) -> dict[str, Run]:
    *_, k, s, p, kind = case
    pool = F.max_pool2d if kind == "max" else F.avg_pool2d

    def pooled(tensor: Any) -> Run:
        if k == 0:
            return lambda: F.adaptive_avg_pool2d(tensor, 1)
        return lambda: pool(tensor, k, s, p)

    plain = torch.from_numpy(x)
    last = plain.to(memory_format=torch.channels_last)
    return {"torch": pooled(plain), "torch nhwc": pooled(last)}


def _onnxruntime(case: tuple[Any, ...], x: np.ndarray, threads: int) -> Run | None:
    try:
        import onnxruntime as ort
        from onnx import TensorProto, helper
    except ImportError:
        return None
    *_, k, s, p, kind = case
    if k == 0:
        node = helper.make_node("GlobalAveragePool", ["x"], ["y"])
    else:
        name = "MaxPool" if kind == "max" else "AveragePool"
        more = {} if kind == "max" else {"count_include_pad": 1}
        words = {"kernel_shape": [k] * 2, "strides": [s] * 2, "pads": [p] * 4}
        node = helper.make_node(name, ["x"], ["y"], **words, **more)
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [None] * 4) for n in "xy"]
    graph = helper.make_graph([node], "pool", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    binding = session.io_binding()
    binding.bind_cpu_input("x", x)
    binding.bind_output("y")
    return lambda: session.run_with_iobinding(binding)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", nargs="*", help="the first words of names")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rng = np.random.default_rng(0)
    gains: dict[str, list[float]] = {}
    title = f"pool, {options.threads} thread(s), us"
    print(f"| {title} | torch | channels last | onnxruntime | ours | gain |")
    print("|---|---|---|---|---|---|")
    for name, case in CASES.items():
        if options.only and name.split()[0] not in options.only:
            continue
        x = rng.standard_normal((1, *case[:3]), dtype=np.float32)
        runs = {"ours": _ours(case, x, options.threads), **_torch(case, x)}
        peer = _onnxruntime(case, x, options.threads)
        if peer is not None:
            runs["onnxruntime"] = peer
        found = least_times(runs, options.rounds, options.threads)
        best = min(value for key, value in found.items() if key != "ours")
        kind = "global average" if case[3] == 0 else f"{case[3]}x{case[3]}/{case[4]} {case[6]}"
        gains.setdefault(kind, []).append(best / found["ours"])
        shape = "x".join(map(str, case[:3]))
        columns = [
            found.get(key, math.nan) for key in ("torch", "torch nhwc", "onnxruntime", "ours")
        ]
        cells = " | ".join(f"{value:.1f}" for value in columns)
        print(f"| {name.strip()} {shape} | {cells} | {gains[kind][-1]:.2f} |")
    for kind, ratios in gains.items():
        print(f"| {kind}, geometric mean | | | | | {statistics.geometric_mean(ratios):.2f} |")
    total = statistics.geometric_mean([ratio for ratios in gains.values() for ratio in ratios])
    print(f"| all, geometric mean | | | | | {total:.2f} |")


if __name__ == "__main__":
    main()
