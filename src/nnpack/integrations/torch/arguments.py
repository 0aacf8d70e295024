"""Arguments in the forms in which PyTorch takes them."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import Any

import torch

__all__ = ["Ints", "as_hashable", "as_pair", "as_pairs"]

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


def as_pairs(*values: int | Ints) -> tuple[tuple[int, ...], ...] | None:
    """`as_pair` of each, or None where one has not two numbers.

    The library knows four borders too, and PyTorch does not.
    """
    if not torch.compiler.is_compiling():
        try:
            return _kept_pairs(*values)
        except TypeError:  # a list, say, which cannot be looked up
            pass
    return _pairs(*values)


def _pairs(*values: int | Ints) -> tuple[tuple[int, ...], ...] | None:
    pairs = tuple(map(as_pair, values))
    return pairs if set(map(len, pairs)) == {2} else None


# A look at a table takes 0.4 us, four pairs 1.5.
_kept_pairs = functools.lru_cache(maxsize=1024, typed=True)(_pairs)


def as_hashable(value: Any) -> Any:
    """``value``, but a tuple in place of the lists that the dispatcher passes."""
    return tuple(value) if isinstance(value, list) else value
