"""Arguments in the forms in which PyTorch takes them."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

__all__ = ["Ints", "are_pairs", "as_hashable", "as_pair"]

Ints = Sequence[int]


def as_pair(value: int | Ints) -> tuple[int, ...]:
    """What PyTorch takes for a pair: one number, alone or in a sequence, stands for both."""
    if type(value) is tuple and len(value) == 2:
        return value
    try:
        values = (value,) if isinstance(value, int) else tuple(value)
    except TypeError:  # an integer of NumPy, a tensor of one number
        values = (operator.index(value),)  # type: ignore[arg-type]
    return values * 2 if len(values) == 1 else values


def are_pairs(values: tuple[tuple[int, ...], ...]) -> bool:
    """Whether each has two numbers; the library knows four borders too, and PyTorch does not."""
    return set(map(len, values)) == {2}


def as_hashable(value: Any) -> Any:
    """``value``, but a tuple in place of the lists that the dispatcher passes."""
    return tuple(value) if isinstance(value, list) else value
