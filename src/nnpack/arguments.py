"""The forms in which users may write integers, pairs, paddings, shapes and numbers.

Each function returns plain Python numbers, or raises one error that names the argument, its value,
the bound and the way out. NumPy's and PyTorch's integers and small arrays count as integers; bool
does not.
"""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Sequence
from typing import Any, SupportsIndex

from nnpack.errors import DtypeError, ProblemError

__all__ = [
    "MAX_INTEGER",
    "IntOrPair",
    "PaddingLike",
    "as_axis",
    "as_flag",
    "as_integer",
    "as_number",
    "as_paddings",
    "as_pair",
    "as_shape",
    "check_one_of",
]

IntOrPair = SupportsIndex | Sequence[SupportsIndex]
PaddingLike = SupportsIndex | Sequence[SupportsIndex] | str

# Index arithmetic in the kernels is 64-bit: the product of two such numbers cannot overflow it.
MAX_INTEGER = 2**31 - 1

# From here on a double rounds to infinity in float32.
_FLOAT32_OVERFLOW = (2 - 2**-24) * 2.0**127


def as_integer(name: str, value: object, *, least: int) -> int:
    """Return ``value``, an integer from ``least`` to ``MAX_INTEGER``. Raises ProblemError."""
    try:
        number = _index(value)
    except TypeError:
        raise ProblemError(f"{name}={value!r} must be an integer") from None
    _check_range(name, value, (number,), least)
    return number


def as_axis(name: str, value: object, ndim: int) -> int:
    """Return the axis ``value`` of ``ndim``, counted from the end if negative, as one from 0.

    Raises ProblemError.
    """
    try:
        number = _index(value)
    except TypeError:
        raise ProblemError(f"{name}={value!r} must be an integer") from None
    if not ndim:
        raise ProblemError(f"{name}={value!r} is of an array without dimensions, which has none")
    if not -ndim <= number < ndim:
        raise ProblemError(f"{name}={value!r} must be from {-ndim} to {ndim - 1}")
    return number % ndim


def as_flag(name: str, value: object) -> bool:
    """Return ``value``, a bool of Python or NumPy. Raises DtypeError for anything else."""
    if type(value) is bool:
        return value
    plain = _plain(value)
    if isinstance(plain, bool):
        return plain
    raise DtypeError(f"{name}={value!r} must be True or False")


def as_pair(name: str, value: object, *, least: int, axes: str = "h, w") -> tuple[int, int]:
    """Return ``(h, w)`` of an integer, which stands for both, or of a pair. Raises ProblemError."""
    form = f"an integer or a pair ({axes})"
    items = _integers(name, value, form)
    if len(items) != 2:
        raise ProblemError(f"{name}={value!r} has {len(items)} numbers; it must be {form}")
    _check_range(name, value, items, least)
    return items[0], items[1]


def as_paddings(name: str, value: object) -> tuple[int, int, int, int]:
    """Return ``(top, bottom, left, right)`` of an integer, ``(h, w)`` or all four.

    Raises ProblemError, for negative numbers as well.
    """
    form = 'an integer, (h, w), (top, bottom, left, right), "valid" or "same"'
    items = _integers(name, value, form)
    if len(items) not in (2, 4):
        raise ProblemError(f"{name}={value!r} has {len(items)} numbers; it must be {form}")
    if min(items) < 0:
        raise ProblemError(
            f"{name}={value!r} must be at least 0; to crop, slice the array: x[:, :, 1:-1, 1:-1]"
        )
    _check_range(name, value, items, 0)
    top, bottom, left, right = items if len(items) == 4 else (items[0],) * 2 + (items[1],) * 2
    return top, bottom, left, right


def as_shape(name: str, value: object, axes: Sequence[str]) -> tuple[int, ...]:
    """Return the shape ``value`` of the argument ``name``, whose dimensions are ``axes``.

    The axis called N, the batch, may be 0; every other is at least 1. Raises ProblemError.
    """
    layout = f"({', '.join(axes)})"
    shape = _integers(f"{name}.shape", value, f"{len(axes)} integers {layout}")
    if not isinstance(_plain(value), tuple | list) or len(shape) != len(axes):
        raise ProblemError(f"{name}.shape={value!r} must have {len(axes)} dimensions {layout}")
    for axis, extent in zip(axes, shape, strict=True):
        if extent < (0 if axis == "N" else 1):
            raise ProblemError(
                f"{name}.shape={shape} {layout}: {axis} must be at least 1; only N may be 0"
            )
    return shape


def as_number(name: str, value: object, *, infinite: bool = False) -> float:
    """Return ``value`` as a float that float32 can hold, infinite only where allowed; -0 as 0.

    Plans are kept by such numbers, and equal ones must do the same.

    Raises DtypeError when it is no real number, ProblemError when it is NaN or out of range.
    """
    plain = _plain(value)
    if isinstance(plain, bool) or not isinstance(plain, numbers.Real):
        raise DtypeError(f"{name}={value!r} must be a real number")
    try:
        number = float(plain)
    except OverflowError:
        number = _FLOAT32_OVERFLOW
    if math.isnan(number) or (math.isinf(number) and not infinite):
        bound = "a number or infinite" if infinite else "finite"
        raise ProblemError(f"{name}={value!r} must be {bound}")
    if _FLOAT32_OVERFLOW <= abs(number) < math.inf:
        raise ProblemError(f"{name}={value!r} is beyond float32, whose largest is 3.4028235e38")
    return number + 0.0


def check_one_of(name: str, value: object, allowed: Sequence[str]) -> None:
    """Raise ProblemError unless ``value`` is one of these words."""
    if not isinstance(value, str) or value not in allowed:
        words = ", ".join(f'"{word}"' for word in allowed[:-1])
        raise ProblemError(f'{name}={value!r} must be {words} or "{allowed[-1]}"')


def _plain(value: Any) -> Any:
    """Return the Python number or list of a NumPy or PyTorch one, anything else as it is."""
    if isinstance(value, int | tuple):
        return value
    tolist = getattr(value, "tolist", None)
    return tolist() if callable(tolist) else value


def _index(value: Any) -> int:
    if type(value) is int:  # nearly always: the rest costs a microsecond for each number of a shape
        return value
    plain = _plain(value)
    if isinstance(plain, bool):
        raise TypeError
    return operator.index(plain)


def _integers(name: str, value: object, form: str) -> tuple[int, ...]:
    """Return the integers of a tuple or list, or a single integer twice."""
    plain = _plain(value)
    try:
        if isinstance(plain, tuple | list):
            return tuple(_index(item) for item in plain)
        return (_index(plain),) * 2
    except TypeError:
        raise ProblemError(f"{name}={value!r} must be {form}") from None


def _check_range(name: str, value: object, items: Sequence[int], least: int) -> None:
    if min(items) < least:
        raise ProblemError(f"{name}={value!r} must be at least {least}")
    if max(items) > MAX_INTEGER:
        raise ProblemError(f"{name}={value!r} must be at most {MAX_INTEGER}")
