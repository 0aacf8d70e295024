"""Every script of benchmarks/ and examples/ runs to its end, at sizes that take no time."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnpack
from nnpack.cli.demo import picture
from nnpack.cli.demo.efficientnet import LITE0, read_network
from tests.cli.demo.checkpoints import checkpoint, random_weights

ROOT = Path(__file__).parents[1]

# What makes a script small, of its module, and the words it is called with.
SCRIPTS: dict[str, tuple[Callable[[Any], dict[str, Any]], str]] = {
    "elementwise": (
        lambda _: {"IMAGES": ((1, 2, 3, 4),), "TRAINED": ((2, 3),), "ROWS": ((2, 5),)},
        "--rounds 1 --only relu add batch_norm softmax",
    ),
    "epilogues": (
        lambda _: {
            "LAYERS": {"1x1": (2, 3, 4, 1, 1, 1)},
            "ACTIVATIONS": {"ReLU": (nnpack.Relu(), nnpack.relu)},
        },
        "--rounds 1",
    ),
    "fused_pooling": (lambda _: {"LAYERS": ((2, 3, 8),)}, "--rounds 2 --algorithm implicit_gemm"),
    "gradients": (
        lambda module: {"LAYERS": (module.Layer("1x1", 2, 3, 4, 1),)},
        "--rounds 1 --batch 1",
    ),
    "linear": (lambda _: {"LAYERS": ((8, 6),)}, "--rounds 1 --rows 1"),
    "linear --gradients": (
        lambda _: {"LAYERS": ((8, 6),)},
        "--rounds 1 --rows 3 --gradients",
    ),
    "merged_statistics": (
        lambda module: {"LAYERS": (module.Layer(2, 3, 6, 1),)},
        "--rounds 1 --batch 1",
    ),
    "pooling": (lambda _: {"CASES": {"VGG": (2, 4, 4, 2, 2, 0, "max")}}, "--rounds 1"),
    "resnet18_step": (
        lambda module: {"NETWORKS": {"resnet18": lambda: _small_network(module.nn)}},
        "--rounds 1 --batch 2 --size 4 --threads 1",
    ),
    "torch_calls": (lambda _: {"ROUNDS": 1}, "--size 4 --channels 2"),
    "train_digits": (
        lambda module: {"load": lambda: _images(module.torch), "TESTED": 8},
        "--epochs 1 --batch 8 --threads 1",
    ),
}


def _small_network(nn: Any) -> Any:
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 1000))


def _images(torch: Any) -> tuple[Any, Any]:
    """16 of them for `train_digits`, and their labels."""
    return torch.rand(16, 1, 8, 8), torch.arange(16) % 10


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Imports a script as Python would run it; one that needs what is not there is skipped."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.syspath_prepend(ROOT / "examples")

    def imported(name: str) -> Any:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            pytest.importorskip(error.name or name)
            raise

    threads = _torch_threads(None)
    yield imported
    _torch_threads(threads)


def _torch_threads(wanted: int | None) -> int | None:
    """How many threads PyTorch computes on, if it is there; from now on ``wanted``."""
    try:
        import torch
    except ModuleNotFoundError:
        return None
    if wanted is not None:
        torch.set_num_threads(wanted)
    count: int = torch.get_num_threads()
    return count


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_runs_to_its_end(
    name: str,
    script: Callable[[str], Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_small, words = SCRIPTS[name]
    module = script(name.partition(" ")[0])
    if "--gradients" in words:
        pytest.importorskip("torch")
    for constant, value in make_small(module).items():
        monkeypatch.setattr(module, constant, value)
    monkeypatch.setattr("sys.argv", [name, *words.split()])
    module.main()
    assert capsys.readouterr().out


def test_the_example_labels_a_picture(
    script: Callable[[str], Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    module = script("efficientnet_lite0")
    stages = LITE0[:1]
    monkeypatch.setattr(module, "read_network", lambda weights: read_network(weights, stages))
    weights, photograph = tmp_path / "weights.pth", tmp_path / "photograph.png"
    weights.write_bytes(checkpoint(random_weights(stages, features=20, classes=12)))
    picture.write_picture(photograph, np.zeros((9, 9, 3), np.uint8))
    module.main(str(photograph), str(weights))
    assert len(capsys.readouterr().out.splitlines()) == 5


def test_every_script_is_tested() -> None:
    scripts = {path.stem for path in (*ROOT.glob("benchmarks/*.py"), *ROOT.glob("examples/*.py"))}
    assert {name.partition(" ")[0] for name in SCRIPTS} == scripts - {"turns", "efficientnet_lite0"}
