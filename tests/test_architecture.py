"""The arrows of docs/architecture.md hold, and functions and files keep their size."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "nnpack"
MAX_FUNCTION_LINES = 60
MAX_FILE_LINES = 500

# Vocabulary: anyone may import it but maths and codegen, which have their own row below.
VOCABULARY = {
    "errors": set(),
    "frozen": set(),
    "geometry": set(),
    "arguments": {"errors"},
    "arrays": {"arguments", "errors"},
    "elementwise_problem": {"epilogue", "frozen"},
    "epilogue": {"arguments", "arrays", "errors", "frozen"},
    "batch_norm_problem": {"arguments", "epilogue", "errors", "frozen"},
    "problem": {"arguments", "epilogue", "errors", "frozen", "geometry"},
    "pool_problem": {"arguments", "epilogue", "errors", "frozen", "geometry"},
    "reshaping_problem": {"arguments", "errors", "frozen", "geometry"},
    "resampling": {"frozen", "pool_problem", "reshaping_problem"},
    "settings": {"errors", "frozen"},
    "output_gradient_problem": {"epilogue", "errors", "frozen", "geometry"},
    "gradient_problem": {"frozen", "geometry", "output_gradient_problem", "problem"},
    "linear_problem": {"arguments", "epilogue", "errors", "frozen", "problem"},
    "input_gradient": {"epilogue", "geometry", "problem"},
    "softmax_problem": {"arguments", "errors", "frozen"},
}

# Each part and those directly below it; it may import all that can be reached.
ARROWS = {
    "__main__": {"cli"},
    "cli": {"layers"},
    "integrations": {"layers"},
    "layers": {"functional", "tuning"},
    "tuning": {"planner", "execution"},
    "functional": {"gradient_planner", "planner", "execution"},
    "gradient_planner": {"admission", "planner"},
    "planner": {"admission", "algorithms", "explanation", "transposed", "verbose", "wisdom"},
    "admission": {"algorithms"},
    "explanation": set(),
    "verbose": set(),
    "wisdom": {"codegen"},
    "algorithms": {"plan", "transposed"},
    "transposed": set(),
    "execution": {"plan"},
    "plan": {"kernels", "runtime"},
    "kernels": {"codegen", "maths"},
    "runtime": {"codegen"},
    "codegen": {"errors", "frozen", "settings"},
    "maths": set(),
}
WITHOUT_VOCABULARY = {"codegen", "maths"}

# Those who use the package as its users do, through the names of its root.
USERS = {"__main__", "cli", "integrations"}

INTERFACE = {"PIL", "imageio", "matplotlib", "numpy", "rich", "skimage", "typer"}
ANYTHING = {"integrations", "cli.bench"}
LIBRARIES = {
    **{name: set() for name in ("maths", *VOCABULARY)},
    "arrays": {"numpy"},
    "resampling": {"numpy"},
    "codegen": {"numpy", "llvmlite"},
    "cli": INTERFACE,
}


def _reachable(part: str) -> set[str]:
    direct = ARROWS[part]
    return direct.union(*(_reachable(below) for below in direct if below in ARROWS))


def _allowed(part: str) -> set[str]:
    """The parts of the package that ``part`` may import, itself among them."""
    if part in VOCABULARY:
        return VOCABULARY[part] | {part}
    words = set() if part in WITHOUT_VOCABULARY else set(VOCABULARY)
    return _reachable(part) | words | {part}


def _imports(source: str) -> Iterator[str]:
    """Every imported module or name, dotted; those named in a call of import_module too."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(module), level=0, names=names):
                yield from (f"{module}.{alias.name}" for alias in names)
            case ast.ImportFrom():
                yield "nnpack.a_relative_import"
            case ast.Call(
                func=ast.Attribute(attr="import_module") | ast.Name(id="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield name


def breaches(module: str, source: str, algorithms: frozenset[str] = frozenset()) -> list[str]:
    """What ``source``, the text of ``nnpack.<module>``, imports and may not."""
    part = module.partition(".")[0]
    found = []
    for name in sorted(set(_imports(source))):
        root, _, rest = name.partition(".")
        if root == "nnpack":
            bad = not _may_import_ours(module, rest, algorithms)
        else:
            bad = root not in sys.stdlib_module_names and not _may_import_library(module, root)
        if bad:
            found.append(f"{part}: {module} imports {name}")
    return found


def _may_import_ours(module: str, imported: str, algorithms: frozenset[str]) -> bool:
    part, target = module.partition(".")[0], imported.partition(".")[0]
    if target not in ARROWS and target not in VOCABULARY:
        return part in USERS
    # An algorithm is known to the table and to nobody else; what two share is no algorithm.
    to_algorithm = any(imported.startswith(f"algorithms.{name}.") for name in algorithms)
    if to_algorithm and part == "algorithms" and module != "algorithms.table":
        return False
    return target in _allowed(part)


def _may_import_library(module: str, root: str) -> bool:
    if any(f"{module}.".startswith(f"{place}.") for place in ANYTHING):
        return True
    return root in LIBRARIES.get(module.partition(".")[0], {"numpy"})


def _module(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def _algorithms() -> frozenset[str]:
    """The modules that the table of algorithms lists."""
    table = (PACKAGE / "algorithms" / "table.py").read_text(encoding="utf-8")
    listed = {name.split(".")[2] for name in _imports(table) if ".algorithms." in name}
    return frozenset(listed - {"base"})


def _sources(*folders: Path) -> list[Path]:
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


MODULES = [path for path in _sources(PACKAGE) if path != PACKAGE / "__init__.py"]
EVERYTHING = _sources(*(ROOT / name for name in ("src", "tests", "benchmarks", "examples")))


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_arrows_go_down_only(path: Path) -> None:
    assert breaches(_module(path), path.read_text(encoding="utf-8"), _algorithms()) == []


def test_every_part_has_its_place() -> None:
    parts = {_module(path).partition(".")[0] for path in MODULES}
    assert parts <= set(ARROWS) | set(VOCABULARY)


@pytest.mark.parametrize("path", EVERYTHING, ids=_name)
def test_functions_and_files_keep_their_size(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    lines = source.count("\n")
    assert lines <= MAX_FILE_LINES, f"the file has {lines} lines"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            lines = node.end_lineno - node.lineno + 1
            assert lines <= MAX_FUNCTION_LINES, f"{node.name} has {lines} lines"


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("maths.dft", "import numpy"),
        ("maths.dft", "from nnpack.errors import ProblemError"),
        ("codegen.cache", "from nnpack.problem import Problem"),
        ("codegen.cache", "from nnpack.kernels import gemm"),
        ("kernels.gemm", "import llvmlite.ir"),
        ("kernels.gemm", "from nnpack.runtime.memory import trim"),
        ("kernels.gemm", "from nnpack.plan import Plan"),
        ("runtime.workers", "import nnpack.kernels.gemm"),
        ("runtime.workers", "from nnpack.maths import dft"),
        ("runtime.workers", "def f():\n    import torch"),
        ("algorithms.direct", "from nnpack.algorithms.winograd import tiles"),
        ("algorithms.base", "from nnpack.algorithms.winograd import tiles"),
        ("algorithms.direct", "from nnpack.planner import make_plan"),
        ("planner", "from nnpack.functional import conv2d"),
        ("planner", "from nnpack import conv2d"),
        ("functional", "from nnpack.layers import Conv2d"),
        ("functional", "from .planner import make_plan"),
        ("layers", "from nnpack.cli import main"),
        ("layers", "import importlib\nimportlib.import_module('onnx')"),
        ("problem", "import numpy"),
        ("problem", "from nnpack.settings import get_settings"),
        ("cli.demo", "import torch"),
        ("cli.info", "import llvmlite"),
        ("cli.benchmark", "import onnxruntime"),
        ("plan", "import rich"),
    ],
)
def test_an_arrow_that_goes_up_is_reported(module: str, source: str) -> None:
    assert len(breaches(module, source, frozenset({"winograd", "direct"}))) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("maths.dft", "from fractions import Fraction\nfrom nnpack.maths import cook_toom"),
        ("codegen.cache", "import llvmlite.binding\nfrom nnpack.settings import get_settings"),
        ("kernels.gemm", "from nnpack.maths.dft import x\nfrom nnpack.problem import EpilogueKind"),
        ("algorithms.direct", "from nnpack.algorithms.base import Algorithm"),
        ("algorithms.table", "from nnpack.algorithms.winograd import Winograd"),
        ("planner", "from nnpack.codegen.target import Target\nimport numpy"),
        ("cli.info", "import nnpack\nimport rich\nfrom nnpack.codegen.target import host_target"),
        ("cli.bench.peers", "import torch, onnxruntime"),
        ("integrations.onnx", "import onnx\nfrom nnpack import Conv2d"),
    ],
)
def test_an_arrow_that_goes_down_is_not(module: str, source: str) -> None:
    assert breaches(module, source, frozenset({"winograd", "direct"})) == []
