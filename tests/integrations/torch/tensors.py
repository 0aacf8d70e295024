"""Random tensors, gradients of calls on them, and closeness to what PyTorch computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

TOLERANCE = 5e-5
"""The error of ``accuracy="fast"``, relative to the greatest value."""


def randn(*shape: int, grad: bool = True, seed: int = 0) -> Any:
    """Normal numbers that are the same in every run."""
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(*shape, generator=generator).requires_grad_(grad)


def assert_close(got: Any, want: Any, tolerance: float = TOLERANCE) -> None:
    """``max|got - want| <= tolerance * max|want|``, and shapes and dtypes are equal."""
    assert got.shape == want.shape
    assert got.dtype == want.dtype
    if want.numel():
        bound = tolerance * max(1e-3, want.abs().max().item())
        assert (got - want).abs().max().item() <= bound


def gradients(function: Callable[..., Any], *tensors: Any) -> list[Any]:
    """The results of ``function`` and the gradients, under one random weighing of the results."""
    given = [
        t if t is None else t.detach().clone().requires_grad_(t.requires_grad) for t in tensors
    ]
    y = function(*given)
    generator = torch.Generator().manual_seed(5)
    y.backward(torch.randn(y.shape, generator=generator))
    return [y.detach(), *(t.grad for t in given if t is not None and t.requires_grad)]


def assert_same_gradients(
    ours: Callable[..., Any], theirs: Callable[..., Any], *tensors: Any
) -> None:
    """Both functions have the same results and the same gradients."""
    for got, want in zip(gradients(ours, *tensors), gradients(theirs, *tensors), strict=True):
        assert_close(got, want)


def recorded_calls(monkeypatch: pytest.MonkeyPatch, owner: object, *names: str) -> list[str]:
    """The list that will hold the name of each call of these functions of ``owner``."""
    calls: list[str] = []

    def recording(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def record(*arguments: Any, **words: Any) -> Any:
            calls.append(name)
            return function(*arguments, **words)

        return record

    for name in names:
        monkeypatch.setattr(owner, name, recording(name, getattr(owner, name)))
    return calls
