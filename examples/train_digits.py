"""Train a small network on scikit-learn's digits: once plain PyTorch, once converted in one line.

    pip install "nnpack-jit[train]"
    python examples/train_digits.py --epochs 10 --plot digits.png

Both start from the same parameters and see the same batches in the same order; they take turns
epoch by epoch. Shown are losses, accuracies on images that neither has seen, and seconds an epoch.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import nn

import nnpack

SIZE = 32
"""Rows and columns to which the digits, 8x8 as they come, are magnified."""
TESTED = 360
"""Images, a fifth of all, that are kept for measuring the accuracy."""


def network() -> nn.Sequential:
    """(N, 1, 32, 32) -> (N, 10): strides, batch normalisation, pooling."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 5, padding=2, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(inplace=True),
        nn.Conv2d(32, 64, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
        nn.Conv2d(64, 64, 3, padding=1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(64, 128, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(128, 10),
    )


@dataclass
class Run:
    """One training: a model, its optimizer, and what was seen epoch by epoch."""

    name: str
    model: nn.Module
    epochs: int
    optimizer: Any = None
    schedule: Any = None
    losses: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05, momentum=0.9)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR
        self.schedule = schedule(self.optimizer, self.epochs)

    def epoch(self, images: Any, labels: Any, order: Any, batch: int) -> None:
        """See every image once, in ``order``; note the time and the mean loss."""
        self.model.train()
        start, total = time.perf_counter(), 0.0
        for chosen in order.split(batch):
            self.optimizer.zero_grad()
            loss = nn.functional.cross_entropy(self.model(images[chosen]), labels[chosen])
            loss.backward()
            self.optimizer.step()
            total += loss.item() * len(chosen)
        self.schedule.step()
        self.seconds.append(time.perf_counter() - start)
        self.losses.append(total / len(order))

    def test(self, images: Any, labels: Any) -> None:
        """Note the share of images whose label is found."""
        self.model.eval()
        with torch.no_grad():
            hits = self.model(images).argmax(1) == labels
        self.accuracies.append(hits.float().mean().item())


def load() -> tuple[Any, Any]:
    """The digits as (N, 1, SIZE, SIZE) from 0 to 1 in random order, and their labels."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(digits.images).float().unsqueeze(1) / 16
    order = torch.randperm(len(images))
    images = nn.functional.interpolate(images[order], size=(SIZE, SIZE), mode="bilinear")
    return images, torch.from_numpy(digits.target)[order]


def train(runs: list[Run], batch: int) -> None:
    """All runs, in turns."""
    images, labels = load()
    with Progress() as progress:
        task = progress.add_task("epochs", total=sum(run.epochs for run in runs))
        for _ in range(runs[0].epochs):
            order = torch.randperm(len(images) - TESTED)
            for run in runs:
                run.epoch(images[TESTED:], labels[TESTED:], order, batch)
                run.test(images[:TESTED], labels[:TESTED])
                progress.advance(task)


def table(runs: list[Run]) -> Table:
    """An epoch a row, the runs beside each other."""
    result = Table("epoch", title="scikit-learn's digits")
    for run in runs:
        for column in ("loss", "accuracy", "seconds"):
            result.add_column(f"{run.name}\n{column}", justify="right")
    for epoch in range(len(runs[0].losses)):
        cells = (
            (f"{r.losses[epoch]:.4f}", f"{r.accuracies[epoch]:.1%}", f"{r.seconds[epoch]:.2f}")
            for r in runs
        )
        result.add_row(str(epoch + 1), *(cell for three in cells for cell in three))
    return result


def plot(runs: list[Run], path: Path) -> None:
    """Losses on a logarithmic scale on the left, seconds an epoch on the right."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, (losses, seconds) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    for run, style in zip(runs, ("o-", "x--"), strict=True):
        epochs = range(1, len(run.losses) + 1)
        losses.semilogy(epochs, run.losses, style, label=run.name)
        seconds.plot(epochs[1:], run.seconds[1:], style, label=run.name)  # the first compiles
    losses.set(title="Loss", xlabel="epoch", ylabel="cross-entropy")
    seconds.set(title="Time", xlabel="epoch", ylabel="seconds an epoch", ylim=(0, None))
    for axes in (losses, seconds):
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", type=Path, help="where to draw losses and times")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    plain, converted = network(), network()
    converted.load_state_dict(plain.state_dict())
    converted = nnpack.torch.convert(converted)
    models = {"PyTorch": plain, "converted": converted}
    runs = [Run(name, model, options.epochs) for name, model in models.items()]
    train(runs, options.batch)
    Console().print(table(runs))
    if options.plot:
        plot(runs, options.plot)


if __name__ == "__main__":
    main()
