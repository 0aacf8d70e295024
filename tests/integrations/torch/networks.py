"""Small networks of the kinds that people convert."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class Residual(nn.Module):
    """Two 3x3 convolutions beside a 1x1 one, normalised; stride 2."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride=2, bias=False)
        self.norm3 = nn.BatchNorm2d(outputs)

    def forward(self, x: Any) -> Any:
        y = torch.relu_(self.norm1(self.first(x)))
        y = self.norm2(self.second(y))
        return torch.relu_(y + self.norm3(self.shortcut(x)))


def small_resnet() -> Any:
    """(N, 3, 32, 32) -> (N, 5)."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 7, stride=2, padding=3),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2, padding=1),
        Residual(8, 16),
        Residual(16, 32),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 5),
    )


def autoencoder() -> Any:
    """(N, 3, 32, 32) -> the same; grouped, dilated and transposed convolutions."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 5, padding="same"),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=8, padding=2, dilation=2),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3, padding=1, padding_mode="reflect"),
        nn.LeakyReLU(0.1),
        nn.ConvTranspose2d(12, 3, 4, stride=2, padding=1),
    )


NETWORKS = {"small_resnet": small_resnet, "autoencoder": autoencoder}


def make(name: str, seed: int = 0) -> Any:
    """The network of that name with the same parameters every time."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return NETWORKS[name]()
