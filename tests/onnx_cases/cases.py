"""The backend test cases of the onnx package whose model is a single node of what is here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]

_NODE_MODULES = {
    "Add": "add",
    "AveragePool": "averagepool",
    "BatchNormalization": "batch_normalization",
    "Clip": "clip",
    "Concat": "concat",
    "Conv": "conv",
    "ConvTranspose": "convtranspose",
    "Elu": "elu",
    "Gelu": "gelu",
    "Gemm": "gemm",
    "GlobalAveragePool": "globalaveragepool",
    "GlobalMaxPool": "globalmaxpool",
    "HardSigmoid": "hardsigmoid",
    "HardSwish": "hardswish",
    "LeakyRelu": "leakyrelu",
    "LogSoftmax": "logsoftmax",
    "MatMul": "matmul",
    "MaxPool": "maxpool",
    "Mish": "mish",
    "PRelu": "prelu",
    "Pad": "pad",
    "Relu": "relu",
    "Resize": "resize",
    "Sigmoid": "sigmoid",
    "Softmax": "softmax",
    "Sum": "sum",
    "Swish": "swish",
    "Tanh": "tanh",
    "Upsample": "upsample",
}
OPERATORS = tuple(_NODE_MODULES)
_CONVERTED_FAMILIES = ("pytorch-converted", "pytorch-operator")


@dataclass(frozen=True)
class Case:
    """One node with its inputs, the outputs that onnx expects, and the tolerances it grants.

    An optional input that is left out, with others behind it, is None.
    """

    name: str
    operator: str
    opset: int
    attributes: dict[str, Any]
    inputs: tuple[Array | None, ...]
    expected: tuple[Array, ...]
    rtol: float
    atol: float


def collect_cases() -> tuple[Case, ...]:
    """Every case of a single node of ``OPERATORS``, by name."""
    return tuple(sorted([*_node_cases(), *_converted_cases()], key=lambda case: case.name))


def _node_cases() -> Iterator[Case]:
    """Yield the cases that onnx makes in memory while their modules are imported.

    onnx's own loader would make those of all its 200 operators, which takes 5 s.
    """
    package = "onnx.backend.test.case.node"
    for module in _NODE_MODULES.values():
        import_module(f"{package}.{module}")
    for case in import_module(package)._NodeTestCases:
        for inputs, outputs in case.data_sets:
            yield from _single_node(case.name, case.model, inputs, outputs, case)


def _converted_cases() -> Iterator[Case]:
    """Yield the cases that were converted from PyTorch's tests and are kept as files."""
    import onnx

    loader = import_module("onnx.backend.test.loader")
    for family in _CONVERTED_FAMILIES:
        for case in loader.load_model_tests(kind=family):
            folder = Path(case.model_dir)
            model = onnx.load(folder / "model.onnx")
            for data in sorted(folder.glob("test_data_set_*")):
                inputs, outputs = _arrays(data, "input"), _arrays(data, "output")
                yield from _single_node(case.name, model, inputs, outputs, case)


def _arrays(folder: Path, kind: str) -> list[Array]:
    from onnx import TensorProto, numpy_helper

    files = sorted(folder.glob(f"{kind}_*.pb"), key=lambda path: int(path.stem.split("_")[1]))
    return [numpy_helper.to_array(TensorProto.FromString(path.read_bytes())) for path in files]


def _single_node(
    name: str, model: Any, inputs: list[Array], outputs: list[Array], tolerances: Any
) -> Iterator[Case]:
    """Yield the case unless the model is something else than one node of ``OPERATORS``."""
    from onnx import helper, numpy_helper

    graph = model.graph
    if len(graph.node) != 1 or graph.node[0].op_type not in OPERATORS:
        return
    (node,) = graph.node
    values = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    given = [each.name for each in graph.input if each.name not in values]
    values |= dict(zip(given, inputs, strict=True))
    yield Case(
        name=name,
        operator=node.op_type,
        attributes={each.name: helper.get_attribute_value(each) for each in node.attribute},
        opset=max(each.version for each in model.opset_import if not each.domain),
        inputs=tuple(np.asarray(values[each]) if each else None for each in node.input),
        expected=tuple(np.asarray(output) for output in outputs),
        rtol=tolerances.rtol,
        atol=tolerances.atol,
    )
