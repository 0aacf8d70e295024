"""Arguments as arrays: what users pass becomes a float32 ndarray unconverted, or an error."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nnpack.arguments import as_number
from nnpack.errors import DtypeError, ProblemError

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = [
    "Float32Array",
    "WithMoments",
    "are_same",
    "as_float32",
    "as_halves",
    "check_out",
    "element_strides",
    "frozen_vector",
    "optional_vector",
    "slice_stride",
    "undefined_moments",
    "with_unit_column_stride",
]

# Of which NumPy has one object: comparing it with another or with a type takes longer.
_FLOAT32 = np.dtype(np.float32)
_NDARRAY = np.ndarray

Float32Array = np.ndarray[Any, np.dtype[np.float32]]

WithMoments = tuple[Float32Array, Float32Array, Float32Array]
"""A result with mean and variance of each of its channels."""

# DLPack's kDLCPU and kDLCUDAHost (dlpack.h): memory the processor can read.
_HOST_DEVICES = (1, 3)


def as_float32(name: str, value: object, ndim: int | None = None) -> Float32Array:
    """Return ``value`` as a float32 ndarray of ``ndim`` dimensions with any strides.

    An ndarray is returned as it is; an object with ``__dlpack__`` on the CPU or with the buffer
    protocol is wrapped without a copy. Only an array whose elements are not aligned is copied.

    Raises DtypeError for anything else, other dtypes and byte orders included, ProblemError when
    the number of dimensions is not ``ndim``.
    """
    array = value if type(value) is _NDARRAY else _wrap(name, value)
    if array.dtype is not _FLOAT32 and array.dtype != _FLOAT32:
        raise DtypeError(
            f"{name} has dtype {array.dtype.newbyteorder('=')!s}"
            f"{'' if array.dtype.isnative else ', byte-swapped'}; it must be float32, as nothing "
            f"is converted: pass {_conversion(name)}"
        )
    if ndim is not None and array.ndim != ndim:
        unit = "dimension" if ndim == 1 else "dimensions"
        raise ProblemError(f"{name}.shape={array.shape} must have {ndim} {unit}")
    # Strides are counted in elements from here on, and must be whole numbers of them.
    return array if array.flags.aligned else array.copy()


def as_halves(name: str, array: Float32Array) -> npt.NDArray[np.float16]:
    """Return ``array`` rounded to half precision, to nearest even.

    Raises ProblemError when a number is beyond the greatest half.
    """
    with np.errstate(over="ignore"):
        halves = array.astype(np.float16)
    lost = np.isinf(halves) & np.isfinite(array)
    if lost.any():
        raise ProblemError(
            f"{name} holds {array[lost][0]}, beyond the 65504 of half precision: "
            "scale it down, or use weight_storage='float32'"
        )
    return halves


def check_out(
    out: object,
    shape: Sequence[int],
    inputs: Iterable[tuple[str, npt.NDArray[Any]]],
    *,
    in_place: bool | str = False,
    slices: bool = False,
) -> Float32Array:
    """Return ``out``, into which a result of ``shape`` may be written while ``inputs`` are read.

    With ``in_place`` it may be an input itself, or the one of that name, element for element: for
    operations that read each element of an input before they write that of the result. With
    ``slices`` it may be some channels of a larger array, see `slice_stride`.

    Overlap is judged by the bounds of the memory, so that an input interleaved with ``out`` without
    sharing an element is refused as well, unless both are channels of one array.

    Raises DtypeError when it is no float32 ndarray; ProblemError when it has another shape, is
    read-only, misaligned or not C-contiguous, or overlaps an input.
    """
    masked = isinstance(out, np.ma.MaskedArray)
    if not isinstance(out, np.ndarray) or masked or out.dtype != np.float32:
        kind = f"of {out.dtype}" if isinstance(out, np.ndarray) else f"({type(out).__name__})"
        raise DtypeError(f"out {kind} must be a numpy.ndarray of float32, or None")
    if out.shape != tuple(shape):
        raise ProblemError(f"out.shape={out.shape} must be {tuple(shape)}")
    in_one_piece = out.flags.c_contiguous or (slices and slice_stride(out) is not None)
    if not (in_one_piece and out.flags.aligned and out.flags.writeable):
        raise ProblemError(
            "out must be C-contiguous, aligned and writeable; "
            f"pass numpy.empty({tuple(shape)}, numpy.float32)"
        )
    for name, array in inputs:
        allowed = (in_place is True or in_place == name) and array.shape == out.shape
        if not np.may_share_memory(out, array) or (slices and _are_other_channels(out, array)):
            continue
        if not (allowed and are_same(out, array)):
            itself = f", or {name} itself" if allowed else ""
            raise ProblemError(f"out overlaps {name}; pass memory of its own{itself}")
    return out


def slice_stride(array: object) -> int | None:
    """Floats from one image to the next of an array that is some channels of a larger one.

    None of anything else, dense arrays included: each image must be (C, H, W) in one piece.
    """
    if not isinstance(array, np.ndarray) or array.ndim != 4 or array.flags.c_contiguous:
        return None
    _, channels, height, width = array.shape
    item = array.itemsize
    stride, *inner = array.strides
    if tuple(inner) != (item * height * width, item * width, item) or stride % item:
        return None
    return stride // item if stride >= item * channels * height * width else None


def _are_other_channels(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> bool:
    """Whether two slices of channels of one array have no channel in common."""
    if slice_stride(a) is None or slice_stride(a) != slice_stride(b):
        return False
    places = [array.__array_interface__["data"][0] for array in (a, b)]
    sizes = [array[0].nbytes for array in (a, b)]
    ahead = (places[1] - places[0]) % a.strides[0]
    return bool(sizes[0] <= ahead <= a.strides[0] - sizes[1])


def are_same(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> bool:
    """Whether two arrays have the same elements in the same places."""
    return a is b or (
        a.shape == b.shape
        and a.strides == b.strides
        and a.__array_interface__["data"][0] == b.__array_interface__["data"][0]
    )


def optional_vector(name: str, value: object) -> Float32Array | None:
    """``value`` as a dense float32 vector, or None."""
    return None if value is None else np.ascontiguousarray(as_float32(name, value, 1))


def frozen_vector(name: str, value: object) -> Float32Array:
    """``value``, a vector of float32 or a tuple of numbers, as a dense array that none may write.

    Raises DtypeError or ProblemError when it is no vector of float32.
    """
    if isinstance(value, tuple):
        # What a description was made of before: its numbers are float32, NaN may be among them.
        numbers = [v if _is_nan(v) else as_number(name, v, infinite=True) for v in value]
        value = np.array(numbers, np.float32)
    array = as_float32(name, value, 1).copy()
    array.setflags(write=False)
    return array


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


def undefined_moments(channels: int) -> dict[str, Float32Array]:
    """Arrays for mean and variance of ``channels``: NaN, as they are where there are no numbers."""
    return {name: np.full(channels, np.nan, np.float32) for name in ("mean", "variance")}


def with_unit_column_stride(x: Float32Array) -> Float32Array:
    """``x``, copied if its columns are not consecutive."""
    return x if x.strides[3] == x.itemsize or x.shape[3] <= 1 else np.ascontiguousarray(x)


def element_strides(x: Float32Array) -> tuple[int, int, int]:
    """Strides of (n, c, h) in elements."""
    n, c, h, _ = x.strides
    return n // x.itemsize, c // x.itemsize, h // x.itemsize


def _wrap(name: str, value: object) -> npt.NDArray[Any]:
    if isinstance(value, np.ma.MaskedArray):
        raise DtypeError(
            f"{name} is a masked array, whose mask would be lost; pass {name}.filled()"
        )
    if isinstance(value, np.ndarray):
        return np.asarray(value)
    if hasattr(value, "__dlpack__"):
        return _from_dlpack(name, value)
    try:
        return np.asarray(memoryview(value))  # type: ignore[arg-type]
    except (TypeError, ValueError, BufferError) as error:
        raise DtypeError(
            f"{name} is of type {type(value).__name__}; it must be an array of float32 with the "
            f"buffer protocol or DLPack: pass {_conversion(name)}"
        ) from error


def _conversion(name: str) -> str:
    """What makes float32 of the argument ``name``, before which may stand whose argument it is."""
    return f"numpy.asarray({name.rpartition(' ')[2]}, dtype=numpy.float32)"


def _from_dlpack(name: str, value: Any) -> npt.NDArray[Any]:
    try:
        device, _ = value.__dlpack_device__()
        # PyTorch negates some views when they are read, which DLPack does not tell.
        if hasattr(value, "is_neg") and value.is_neg():
            raise BufferError("it is a view that negates; pass tensor.resolve_neg()")
        if device in _HOST_DEVICES:
            return np.from_dlpack(value)
    # Libraries refuse in their own ways: a tensor that needs a gradient, a dtype NumPy lacks.
    except (AttributeError, BufferError, RuntimeError, TypeError, ValueError) as error:
        raise DtypeError(f"{name} cannot be read through DLPack: {error}") from error
    raise DtypeError(f"{name} is on the DLPack device {device}; move it to the CPU")
