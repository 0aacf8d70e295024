"""What was found for plain arguments is kept: a call seen before is not stated or planned again."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from nnpack.epilogue import (
    AveragePool,
    Clip,
    Elu,
    Gelu,
    HardSigmoid,
    HardSwish,
    MaxPool,
    Mish,
    Relu,
    Sigmoid,
    Silu,
    Tanh,
)

__all__ = ["are_plain", "kept", "kept_plain", "stated"]

_Found = TypeVar("_Found")
_PLAIN_TYPES = frozenset(
    (
        *(int, float, str, bool, type(None)),
        # Descriptions, whose numbers are checked; a Prelu takes longer to look up than to state.
        *(Relu, Elu, Clip, Sigmoid, Tanh, Silu, HardSigmoid, HardSwish, Gelu, Mish),
        *(MaxPool, AveragePool),
    )
)
_INTEGERS = {int}


def kept(make: Callable[..., _Found], known: tuple[Any, ...], *values: object) -> _Found:
    """``make(*known, *values)``; of plain ``values`` the same object every time.

    ``known`` can be looked up as it is: shapes and strides of arrays, the number of threads. Plain
    are numbers, names, None, descriptions of activations, and tuples of integers: equal ones mean
    the same. Everything else (lists, NumPy's integers, arrays of one number, which may change) is
    made something of anew.
    """
    if values and not are_plain(values):
        return make(*known, *values)
    found: _Found = _kept(make, *known, *values)
    return found


def kept_plain(make: Callable[..., _Found], *values: Any) -> _Found:
    """`kept` of ``values`` that are known to be plain, which takes half the time."""
    found: _Found = _kept(make, *values)
    return found


# With typed=True, 1, True and 1.0, which are equal, are different arguments.
@functools.lru_cache(maxsize=1024, typed=True)
def _kept(make: Callable[..., Any], *values: Any) -> Any:
    return make(*values)


def stated(statement: Callable[..., _Found], **words: object) -> _Found:
    """``statement(**words)``, kept as in `kept`: takes 4 us instead of 17 then."""
    found: _Found = kept(_by_name, (statement, tuple(words)), *words.values())
    return found


def _by_name(statement: Callable[..., Any], names: tuple[str, ...], *values: Any) -> Any:
    return statement(**dict(zip(names, values, strict=True)))


def are_plain(values: Iterable[object]) -> bool:
    """Whether these can be looked up, if 1 and True are told apart outside tuples."""
    for value in values:
        kind = type(value)
        if kind not in _PLAIN_TYPES and (kind is not tuple or not _is_plain_tuple(value)):  # type: ignore[arg-type]
            return False
    return True


def _is_plain_tuple(items: tuple[object, ...]) -> bool:
    return {*map(type, items)} <= _INTEGERS
