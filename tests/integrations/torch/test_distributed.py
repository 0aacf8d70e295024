"""Data-parallel training gives the gradients of one process that sees all images."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

import nnpack
from tests.integrations.torch.tensors import assert_close, randn

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="torch without torch.distributed")

PROCESSES = 2


def _network() -> Any:
    """Without batch normalisation, whose moments are those of each process's images."""
    torch.manual_seed(0)
    return nnpack.torch.convert(
        nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 8, 3, stride=2, padding=1, bias=False),
            nn.ConvTranspose2d(8, 4, 2, stride=2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4, 2),
        )
    )


def _images() -> Any:
    return randn(4 * PROCESSES, 3, 16, 16, grad=False)


def _train(rank: int, folder: str) -> None:
    """One process: its share of the images, and the gradients it ends with written to a file."""
    torch.set_num_threads(1)
    rendezvous = f"file://{folder}/rendezvous"
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=PROCESSES)
    network = nn.parallel.DistributedDataParallel(_network())
    network(_images().chunk(PROCESSES)[rank]).square().mean().backward()
    gradients = [parameter.grad for parameter in network.module.parameters()]
    torch.save(gradients, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_have_the_gradients_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The interface by which gloo reaches this machine, whatever its name resolves to.
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", os.environ.get("GLOO_SOCKET_IFNAME", "lo"))
    network = _network()
    network(_images()).square().mean().backward()
    mp.start_processes(_train, (str(tmp_path),), nprocs=PROCESSES, start_method="spawn")
    for rank in range(PROCESSES):
        found = torch.load(tmp_path / f"{rank}.pt")
        for got, parameter in zip(found, network.parameters(), strict=True):
            assert_close(got, parameter.grad, 1e-4)
