"""Arguments become float32 arrays without a conversion, or one clear error."""

from __future__ import annotations

import array
import ctypes
from typing import Any

import numpy as np
import pytest

from nnpack.arrays import as_float32, check_out
from nnpack.errors import DtypeError, ProblemError


class _Exported:
    """Something that is no ndarray and speaks DLPack, as other libraries' tensors do."""

    def __init__(self, values: Any, device: tuple[int, int] = (1, 0)) -> None:
        self._values, self._device = values, device

    def __dlpack__(self, **_: Any) -> Any:
        if self._values is None:
            raise BufferError("it needs a gradient")
        return self._values.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._device


def test_an_ndarray_is_returned_as_it_is_whatever_its_strides() -> None:
    dense = np.zeros((2, 3, 4, 5), np.float32)
    for view in (dense, dense[:, ::-1, :, ::2], dense.T, dense[:0]):
        assert as_float32("x", view, 4) is view


@pytest.mark.parametrize(
    "value",
    [
        array.array("f", [1, 2, 3]),
        memoryview(array.array("f", [1, 2, 3])),
        (ctypes.c_float * 3)(1, 2, 3),
        _Exported(np.array([1, 2, 3], np.float32)),
    ],
)
def test_buffers_and_dlpack_are_wrapped(value: Any) -> None:
    wrapped = as_float32("x", value, 1)
    assert type(wrapped) is np.ndarray
    np.testing.assert_array_equal(wrapped, [1, 2, 3])


def test_wrapping_copies_nothing() -> None:
    for values in (array.array("f", [1, 2, 3]), np.array([1, 2, 3], np.float32)):
        exported = _Exported(values) if isinstance(values, np.ndarray) else values
        wrapped = as_float32("x", exported)
        values[1] = 7
        assert wrapped[1] == 7


def test_a_subclass_becomes_a_plain_ndarray_over_the_same_memory() -> None:
    class Named(np.ndarray[Any, Any]):
        pass

    named = np.zeros(3, np.float32).view(Named)
    plain = as_float32("x", named)
    assert type(plain) is np.ndarray
    assert np.shares_memory(plain, named)


@pytest.mark.parametrize(
    "value",
    [
        np.zeros(3),
        np.zeros(3, np.float16),
        np.zeros(3, np.int32),
        np.zeros(3, np.complex64),
        np.zeros(3, object),
        np.zeros(3, bool),
        b"abcd",
        array.array("d", [1]),
        _Exported(np.zeros(3)),
    ],
)
def test_other_dtypes_are_never_converted(value: Any) -> None:
    with pytest.raises(DtypeError, match=r"x has dtype .* pass numpy.asarray\(x, dtype="):
        as_float32("x", value)


def test_foreign_byte_order_is_refused() -> None:
    swapped = np.zeros(3, np.dtype(np.float32).newbyteorder())
    with pytest.raises(DtypeError, match="weight has dtype float32, byte-swapped"):
        as_float32("weight", swapped)


@pytest.mark.parametrize("value", [[1.0, 2.0], 1.0, None, "abc", object()])
def test_what_is_no_array_is_refused(value: Any) -> None:
    with pytest.raises(DtypeError, match="bias is of type .* pass numpy.asarray"):
        as_float32("bias", value)


def test_a_mask_is_never_lost() -> None:
    with pytest.raises(DtypeError, match="x is a masked array"):
        as_float32("x", np.ma.zeros(3, np.float32))


def test_memory_of_another_device_is_refused() -> None:
    with pytest.raises(DtypeError, match="x is on the DLPack device 2; move it to the CPU"):
        as_float32("x", _Exported(np.zeros(3, np.float32), device=(2, 0)))


def test_what_cannot_be_exported_says_why() -> None:
    with pytest.raises(DtypeError, match="x cannot be read through DLPack: it needs a gradient"):
        as_float32("x", _Exported(None))


def test_the_number_of_dimensions_is_checked() -> None:
    with pytest.raises(ProblemError, match=r"x.shape=\(2, 3\) must have 4 dimensions"):
        as_float32("x", np.zeros((2, 3), np.float32), 4)


def test_only_unaligned_elements_are_copied() -> None:
    record = np.zeros(4, np.dtype([("flag", "u1"), ("value", "<f4")]))
    record["value"] = [1, 2, 3, 4]
    copy = as_float32("x", record["value"])
    assert copy.flags.aligned
    np.testing.assert_array_equal(copy, [1, 2, 3, 4])


def test_a_good_out_is_returned_as_it_is() -> None:
    out = np.zeros((2, 3), np.float32)
    assert check_out(out, (2, 3), [("x", np.zeros(6, np.float32))]) is out
    empty = np.zeros((0, 3), np.float32)
    assert check_out(empty, (0, 3), [("x", empty)]) is empty


@pytest.mark.parametrize("out", [np.zeros((2, 3)), np.zeros((2, 3), ">f4"), [[0.0]], b"abcd"])
def test_an_out_of_another_kind_is_a_type_error(out: Any) -> None:
    with pytest.raises(DtypeError, match="out .* must be a numpy.ndarray of float32"):
        check_out(out, (2, 3), [])


def _read_only() -> Any:
    out = np.zeros((2, 3), np.float32)
    out.flags.writeable = False
    return out


def _misaligned() -> Any:
    return np.frombuffer(bytearray(25), np.float32, 6, offset=1).reshape(2, 3)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (np.zeros((3, 2), np.float32), r"out.shape=\(3, 2\) must be \(2, 3\)"),
        (np.zeros((1, 2, 3), np.float32), "out.shape="),
        (np.zeros((3, 2), np.float32).T, "C-contiguous"),
        (np.zeros((2, 6), np.float32)[:, ::2], "C-contiguous"),
        (np.zeros((2, 3), np.float32)[::-1], "C-contiguous"),
        (_read_only(), "writeable"),
        (_misaligned(), "aligned"),
    ],
)
def test_an_out_that_cannot_be_written_in_place_is_refused(out: Any, message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        check_out(out, (2, 3), [])


def test_an_out_overlapping_an_input_is_refused_by_name() -> None:
    memory = np.zeros(12, np.float32)
    out = memory[:6].reshape(2, 3)
    assert check_out(out, (2, 3), [("x", memory[6:])]) is out
    with pytest.raises(ProblemError, match="out overlaps weight; pass memory of its own"):
        check_out(out, (2, 3), [("x", memory[6:]), ("weight", memory[5:])])


def test_only_an_input_of_the_same_shape_is_offered_as_out() -> None:
    memory = np.zeros(12, np.float32)
    out = memory[:6].reshape(2, 3)
    with pytest.raises(ProblemError, match="memory of its own, or x itself$"):
        check_out(out, (2, 3), [("x", memory[3:9].reshape(2, 3))], in_place=True)
    with pytest.raises(ProblemError, match="overlaps gamma; pass memory of its own$"):
        check_out(out, (2, 3), [("gamma", memory[:3])], in_place=True)
