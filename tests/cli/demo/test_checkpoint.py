"""The reader of checkpoints returns what was stored, refuses everything else, and runs nothing."""

from __future__ import annotations

import contextlib
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnpack.cli.demo.checkpoint import read_checkpoint
from nnpack.cli.demo.errors import CheckpointError
from tests.cli.demo.checkpoints import HEAD, checkpoint

ARRAYS: dict[str, Any] = {
    "a.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "a.steps": np.array(7, np.int64),
    "b.weight": np.arange(24, dtype=np.float32).reshape(4, 6).T,
    "c.bias": np.array([1.5], np.float32),
}
DATA = checkpoint(ARRAYS)


def test_tensors_are_read_as_they_were_written_and_counters_left_out() -> None:
    found = read_checkpoint(DATA)
    assert list(found) == ["a.weight", "b.weight", "c.bias"]
    for name, array in found.items():
        assert array.dtype == np.float32
        assert array.flags.c_contiguous
        np.testing.assert_array_equal(array, ARRAYS[name])


def test_it_reads_what_torch_writes(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    path = tmp_path / "a.pth"
    torch.save(module.state_dict(), path, _use_new_zipfile_serialization=False)
    found = read_checkpoint(path.read_bytes())
    state = {k: v for k, v in module.state_dict().items() if v.dtype == torch.float32}
    assert list(found) == list(state)
    for name, array in found.items():
        np.testing.assert_array_equal(array, state[name].numpy())


def test_a_file_that_ends_early_is_refused_wherever_it_ends() -> None:
    for size in range(len(DATA)):
        with pytest.raises(CheckpointError):
            read_checkpoint(DATA[:size])


def test_a_file_with_bytes_to_spare_is_refused() -> None:
    with pytest.raises(CheckpointError, match="4 bytes too many"):
        read_checkpoint(DATA + bytes(4))


@given(st.integers(0, len(DATA) - 1), st.integers(0, 255))
def test_a_changed_byte_is_read_or_refused_but_never_crashes(place: int, byte: int) -> None:
    damaged = bytearray(DATA)
    damaged[place] = byte
    with contextlib.suppress(CheckpointError):
        read_checkpoint(bytes(damaged))


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    for whole in (data, HEAD + data):
        with pytest.raises(CheckpointError):
            read_checkpoint(whole)


class _Danger:
    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("the pickle was run",)


@pytest.mark.parametrize("danger", [_Danger(), print, np.zeros(3), {1: 2}, 1.5, [b"bytes"]])
def test_nothing_that_a_pickle_asks_for_is_called_or_imported(danger: object) -> None:
    data = HEAD + pickle.dumps(danger, 2) + pickle.dumps([], 2)
    with pytest.raises(CheckpointError, match="the checkpoint (refers|uses|has|holds)"):
        read_checkpoint(data)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"FloatStorage", b"HalfStorage", "refers to 'torch HalfStorage'"),
        (b"X\x03\x00\x00\x00cpu", b"X\x03\x00\x00\x00gpu", "no storage of the CPU"),
        (b"little_endian", b"xittle_endian", "not written by a little-endian machine"),
        (struct.pack("<f", 1.5), struct.pack("<f", np.inf), "'c.bias' .* not all finite"),
        (struct.pack("<q", 24), struct.pack("<q", 23), "or it is another: 23 are stated"),
        (b"J" + struct.pack("<i", 24), b"J" + struct.pack("<i", 2**30), "or it is another"),
        (b"(J\x02\0\0\0J\x03\0\0\0", b"(J\x02\0\0\0J\xff\0\0\0", "reaches beyond its storage"),
        (b"(J\x02\0\0\0J\x03\0\0\0", b"(J\xfe\xff\xff\xffJ\x03\0\0\0", "only plain tensors"),
        (struct.pack("<h", 1001), struct.pack("<h", 1002), "does not begin as torch.save"),
    ],
)
def test_what_is_wrong_is_named(old: bytes, new: bytes, message: str) -> None:
    assert old in DATA
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(DATA.replace(old, new))


def test_a_pickle_of_endless_opcodes_is_given_up() -> None:
    with pytest.raises(CheckpointError, match="over 200000 opcodes"):
        read_checkpoint(HEAD + b"\x80\x02" + b"N" * 300_000 + b".")


def test_it_is_also_a_value_error() -> None:
    with pytest.raises(ValueError, match="checkpoint"):
        read_checkpoint(b"")
