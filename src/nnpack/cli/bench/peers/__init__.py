"""The other libraries, each in its best plain usage, those that reuse their output included.

They are optional and mostly untyped, so they are imported by name, inside functions.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

from nnpack.cli.bench.contestant import Contestant
from nnpack.cli.bench.peers import mnn, ncnn, onnxruntime, openvino, pytorch

PEERS = (
    Contestant("torch", ("torch",), pytorch.prepare_contiguous),
    Contestant("torch-cl", ("torch",), pytorch.prepare_channels_last),
    Contestant("onednn", ("torch",), pytorch.prepare_prepacked),
    Contestant("onednn-cl", ("torch",), pytorch.prepare_prepacked_channels_last),
    Contestant("onnxruntime", ("onnx", "onnxruntime"), onnxruntime.prepare),
    Contestant("openvino", ("onnx", "openvino"), openvino.prepare),
    Contestant("ncnn", ("ncnn",), ncnn.prepare),
    Contestant("mnn", ("onnx", "MNN", "_tools"), mnn.prepare),
)


def peer_versions(peers: Iterable[Contestant]) -> dict[str, str]:
    """Versions of the packages that ``peers`` come from, as far as they tell."""
    names = dict.fromkeys(package for peer in peers for package in peer.packages)
    found = {name: getattr(importlib.import_module(name), "__version__", None) for name in names}
    found = {name: value or _installed_version(name) for name, value in found.items()}
    return {name: str(value) for name, value in found.items() if value}


def _installed_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
