"""One training step of ResNet-18 on random images: plain PyTorch against the converted module.

    python benchmarks/resnet18_step.py --batch 16 --size 224 --threads 2 --rounds 7 --compile
    python benchmarks/resnet18_step.py --network mobilenet_v2

Contestants are eager PyTorch with contiguous and with channels-last images, `torch.compile` (with
``--compile``: its compilation takes minutes, its step is timed only afterwards), and the module
after `nnpack.torch.convert`. Each has a model of its own with the same parameters; a step is
forward, cross-entropy, backward and SGD with momentum. All take turns in every round, and the
median of the rounds is shown, with the milliseconds of forward and backward of each.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import nn

import nnpack


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a way round them (He et al., 2016, figure 5 on the left)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, x: Any) -> Any:
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + self.downsample(x))


def resnet18(classes: int = 1000) -> nn.Sequential:
    """ResNet-18 (He et al., "Deep residual learning for image recognition", 2016, table 1)."""
    layers: list[nn.Module] = [
        nn.Conv2d(3, 64, 7, 2, 3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, 1),
    ]
    inputs = 64
    for outputs, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [BasicBlock(inputs, outputs, stride), BasicBlock(outputs, outputs, 1)]
        inputs = outputs
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes)]
    return nn.Sequential(*layers)


class InvertedResidual(nn.Module):
    """1x1, depthwise 3x3 and 1x1 convolutions, and a way round (Sandler et al., 2018, figure 4)."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        layers: list[nn.Module] = [] if expansion == 1 else [*normalized(inputs, inner, 1)]
        layers += normalized(inner, inner, 3, stride, groups=inner)
        layers += [nn.Conv2d(inner, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
        self.body = nn.Sequential(*layers)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Any) -> Any:
        return x + self.body(x) if self.adds else self.body(x)


def normalized(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
) -> tuple[nn.Module, ...]:
    """A convolution, batch normalisation and ReLU6."""
    words: Any = {"padding": kernel // 2, "groups": groups, "bias": False}
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, **words)
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU6(inplace=True)


def mobilenet_v2(classes: int = 1000) -> nn.Sequential:
    """MobileNet-v2 (Sandler et al., "Inverted residuals and linear bottlenecks", 2018, table 2)."""
    layers, inputs = [*normalized(3, 32, 3, 2)], 32
    for expansion, outputs, times, stride in (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ):
        for number in range(times):
            layers.append(InvertedResidual(inputs, outputs, 1 if number else stride, expansion))
            inputs = outputs
    layers += [*normalized(320, 1280, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(1280, classes))


NETWORKS: dict[str, Callable[[], nn.Sequential]] = {
    "resnet18": resnet18,
    "mobilenet_v2": mobilenet_v2,
}


@dataclass
class Contestant:
    """A model with its images; ``seconds`` are those of forward, backward and the whole step."""

    name: str
    model: Callable[[Any], Any]
    optimizer: Any
    images: Any
    labels: Any
    seconds: list[tuple[float, float, float]] = field(default_factory=list)

    def step(self) -> None:
        """Train once, and note how long that took."""
        start = time.perf_counter()
        self.optimizer.zero_grad()
        loss = nn.functional.cross_entropy(self.model(self.images), self.labels)
        middle = time.perf_counter()
        loss.backward()
        end = time.perf_counter()
        self.optimizer.step()
        self.seconds.append((middle - start, end - middle, time.perf_counter() - start))

    def medians(self) -> list[float]:
        """Milliseconds of forward, backward and step."""
        return [1e3 * statistics.median(phase) for phase in zip(*self.seconds, strict=True)]


def contestants(
    batch: int, size: int, compiled: bool, network: str = "resnet18"
) -> list[Contestant]:
    """All of them, with the same parameters and images, not run yet."""
    images, labels = torch.randn(batch, 3, size, size), torch.randint(1000, (batch,))
    last = torch.channels_last
    build = NETWORKS[network]
    start = build().state_dict()

    def make(name: str, change: Callable[[Any], Any], inputs: Any) -> Contestant:
        model = build()
        model.load_state_dict(start)
        model = change(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        return Contestant(name, model, optimizer, inputs, labels)

    found = [
        make("PyTorch", lambda model: model, images),
        make(
            "PyTorch, channels last",
            lambda m: m.to(memory_format=last),
            images.to(memory_format=last),
        ),
        make("converted", nnpack.torch.convert, images),
    ]
    if compiled:
        found.append(make("torch.compile", torch.compile, images))
    return found


def table(found: list[Contestant], network: str) -> Table:
    """Medians, and how much faster the step is than the better eager one."""
    medians = {contestant.name: contestant.medians() for contestant in found}
    eager = min(medians["PyTorch"][2], medians["PyTorch, channels last"][2])
    result = Table("contestant", title=f"{network}, milliseconds")
    for column in ("forward", "backward", "step", "times eager"):
        result.add_column(column, justify="right")
    for name, values in medians.items():
        ratio = f"{eager / values[2]:.2f}"
        result.add_row(name, *(f"{value:.0f}" for value in values), ratio)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--network", choices=NETWORKS, default="resnet18")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--compile", action="store_true", help="torch.compile competes too")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    found = contestants(options.batch, options.size, options.compile, options.network)
    for _ in range(1):  # kernels are compiled, memory is found
        for contestant in found:
            contestant.step()
            contestant.seconds.clear()
    for _ in track(range(options.rounds), "rounds"):
        for contestant in found:
            contestant.step()
    Console().print(table(found, options.network))


if __name__ == "__main__":
    main()
