"""Arguments in the forms in which PyTorch takes them."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["Ints", "as_pair"]

Ints = Sequence[int]


def as_pair(value: int | Ints) -> tuple[int, ...]:
    """What PyTorch takes for a pair: one number, alone or in a sequence, stands for both."""
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * 2 if len(values) == 1 else values
