"""Reader of what ``torch.save`` wrote of a state dict before PyTorch 1.6, without PyTorch.

The file is a row of pickles: a magic number, the version of the format, facts of the machine, the
state dict, and the keys of its storages; then the storages, each an int64 with the number of its
elements, and these (PyTorch, ``torch/serialization.py``, ``_legacy_save``).

A checkpoint is untrusted input, and unpickling would let it run any code. Nothing is unpickled
here: the standard library only tells opcodes apart, and a machine with a stack carries out those
that a state dict needs, on values that are inert. Whatever else comes is an error, and nothing is
allocated that the size of the file does not pay for.
"""

from __future__ import annotations

import io
import math
import pickletools
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nnpack.cli.demo.errors import CheckpointError

__all__ = ["read_checkpoint"]

Float32: TypeAlias = NDArray[np.float32]

_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001
_MOST_OPCODES = 200_000
_MOST_DIMENSIONS = 8
_STORAGES: Mapping[str, np.dtype[Any]] = {
    "torch FloatStorage": np.dtype("<f4"),
    "torch LongStorage": np.dtype("<i8"),
}
_DICT, _TENSOR = "collections OrderedDict", "torch._utils _rebuild_tensor_v2"
# What a pickle or a number within it may raise when it is damaged.
_DAMAGES = (ValueError, OverflowError, IndexError, struct.error)


@dataclass(frozen=True, slots=True)
class _Global:
    """The name of something that a pickle would import."""

    name: str


@dataclass(frozen=True, slots=True)
class _Storage:
    """A row of ``count`` numbers, found later in the file under ``key``."""

    kind: np.dtype[Any]
    key: str
    count: int


@dataclass(frozen=True, slots=True)
class _Tensor:
    """An array of ``shape`` from the element ``offset`` of a storage on; strides in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Mark:
    """What MARK leaves on the stack."""


def read_checkpoint(data: bytes) -> dict[str, Float32]:
    """The float32 tensors of the state dict in ``data``, by name; those of integers are left out.

    Raises CheckpointError when the file is malformed, of another format, holds anything but
    float32 and int64 tensors of the CPU, or a number that is not finite.
    """
    stream = io.BytesIO(data)
    try:
        if _read_pickle(stream) != _MAGIC or _read_pickle(stream) != _VERSION:
            raise CheckpointError(
                "the checkpoint does not begin as torch.save wrote it before PyTorch 1.6: save it "
                "with _use_new_zipfile_serialization=False"
            )
        machine, state, keys = (_read_pickle(stream) for _ in range(3))
        if not isinstance(machine, dict) or machine.get("little_endian") is not True:
            raise CheckpointError("the checkpoint was not written by a little-endian machine")
        tensors = _tensors(state)
        storages = dict(_read_storages(data, stream.tell(), tensors, keys))
    except _DAMAGES as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"the checkpoint is damaged: {error}") from error
    floats = {name: t for name, t in tensors.items() if t.storage.kind == np.float32}
    return {name: _array(name, tensor, storages) for name, tensor in floats.items()}


def _tensors(state: object) -> dict[str, _Tensor]:
    if not isinstance(state, dict):
        raise CheckpointError("the checkpoint holds no state dict")
    for name, value in state.items():
        if not isinstance(value, _Tensor):
            raise CheckpointError(f"{name!r} in the checkpoint is no tensor")
    return state


def _read_storages(
    data: bytes, start: int, tensors: Mapping[str, _Tensor], keys: object
) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the storages, which come in the order of ``keys``, as views of ``data``."""
    known = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(known):
        raise CheckpointError("the storages of the checkpoint are not those of its tensors")
    for key in keys:
        storage = known[key]
        (count,) = struct.unpack_from("<q", data, start)
        start += 8
        if count != storage.count or storage.count * storage.kind.itemsize > len(data) - start:
            raise CheckpointError(
                f"the checkpoint ends within a storage of {storage.count} numbers, or it is "
                f"another: {count} are stated, {len(data) - start} bytes left"
            )
        yield key, np.frombuffer(data, storage.kind, count, start)
        start += count * storage.kind.itemsize
    if start != len(data):
        raise CheckpointError(f"the checkpoint has {len(data) - start} bytes too many")


def _array(name: str, tensor: _Tensor, storages: Mapping[str, NDArray[Any]]) -> Float32:
    """A copy of the tensor, which may be a transposed view but no larger than its storage."""
    steps = zip(tensor.shape, tensor.strides, strict=True)
    last = tensor.offset + sum((extent - 1) * stride for extent, stride in steps)
    if math.prod(tensor.shape) > tensor.storage.count or last >= tensor.storage.count:
        raise CheckpointError(f"{name!r} in the checkpoint reaches beyond its storage")
    numbers = storages[tensor.storage.key][tensor.offset :]
    strides = [numbers.itemsize * stride for stride in tensor.strides]
    view = np.lib.stride_tricks.as_strided(numbers, tensor.shape, strides, writeable=False)
    if not np.isfinite(view).all():
        raise CheckpointError(f"{name!r} in the checkpoint is not all finite")
    return np.array(view, np.float32, order="C")


def _read_pickle(stream: io.BytesIO) -> object:
    """The value of the next pickle, as far as `_Machine` knows its opcodes."""
    machine = _Machine()  # which has no use for PROTO
    for _ in range(_MOST_OPCODES):
        opcode = _OPCODES.get(stream.read(1))
        name = "none at all" if opcode is None else opcode.name
        if opcode is None or name not in _KNOWN:
            raise CheckpointError(f"the checkpoint uses the opcode {name}: no state dict needs it")
        argument = _read_argument(opcode, stream)
        if name == "STOP":
            return machine.pop()
        if name in _CONSTANTS:
            machine.stack.append(_CONSTANTS[name])
        elif name in _LITERALS:
            machine.stack.append(argument)
        elif name in _ACTIONS:
            _ACTIONS[name](machine, argument)
    raise CheckpointError(f"a pickle of the checkpoint has over {_MOST_OPCODES} opcodes")


def _read_argument(opcode: pickletools.OpcodeInfo, stream: io.BytesIO) -> Any:
    """What follows an opcode: of GLOBAL, a module and a name, each on a line."""
    if opcode.name == "GLOBAL":
        return " ".join(stream.readline().decode("ascii").rstrip("\n") for _ in range(2))
    return None if opcode.arg is None else opcode.arg.reader(stream)


@dataclass(slots=True)
class _Machine:
    """The stack and the memory of a pickle, whose values are numbers, texts and containers."""

    stack: list[Any] = field(default_factory=list)
    memory: dict[int, Any] = field(default_factory=dict)

    def pop(self, kind: type | None = None) -> Any:
        """Take the top of the stack, which must be of ``kind``."""
        value = self.stack.pop()
        if isinstance(value, _Mark) or (kind is not None and not isinstance(value, kind)):
            raise CheckpointError(f"the checkpoint has {value!r:.80} in the wrong place")
        return value

    def pop_to_mark(self) -> list[Any]:
        """Take all that stands above the last mark."""
        values: list[Any] = []
        while not isinstance(self.stack[-1], _Mark):
            values.append(self.stack.pop())
        self.stack.pop()
        return values[::-1]

    def top(self, kind: type) -> Any:
        """The top of the stack, left there."""
        value = self.pop(kind)
        self.stack.append(value)
        return value

    def tuple_of(self, count: int) -> None:
        """Make a tuple of the last ``count`` values."""
        values = [self.pop() for _ in range(count)]
        self.stack.append(tuple(values[::-1]))

    def put(self, place: int) -> None:
        """Remember the top of the stack."""
        self.memory[place] = self.stack[-1]

    def get(self, place: int) -> None:
        """Push what was remembered."""
        if place not in self.memory:
            raise CheckpointError(f"the checkpoint refers to {place}, which was never stored")
        self.stack.append(self.memory[place])

    def set_items(self, pairs: list[Any]) -> None:
        """Put keys and values, in turn, into the dictionary on top."""
        target = self.top(dict)
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if not isinstance(key, str):
                raise CheckpointError(f"the checkpoint has the key {key!r:.80}, which is no text")
            target[key] = value

    def set_item(self) -> None:
        """Put one key and its value into the dictionary below them."""
        value = self.pop()
        self.set_items([self.pop(), value])

    def extend(self, values: list[Any]) -> None:
        """Append to the list on top."""
        self.top(list).extend(values)

    def refer(self, name: str) -> None:
        """Push the name of one of the few things that may be called or referred to."""
        if name not in (*_STORAGES, _DICT, _TENSOR):
            raise CheckpointError(f"the checkpoint refers to {name!r:.80}, which is not allowed")
        self.stack.append(_Global(name))

    def find_storage(self) -> None:
        """Make a storage of the tuple that describes it."""
        match self.pop(tuple):
            case ("storage", _Global() as kind, str(key), "cpu", int(count), None) if (
                kind.name in _STORAGES and count >= 0
            ):
                self.stack.append(_Storage(_STORAGES[kind.name], key, count))
            case other:
                raise CheckpointError(f"the checkpoint has no storage of the CPU in {other!r:.80}")

    def call(self) -> None:
        """Make an empty dictionary, or a tensor of a storage, whichever is asked for."""
        arguments, function = self.pop(tuple), self.pop(_Global)
        match function.name, arguments:
            case (name, ()) if name == _DICT:
                self.stack.append({})
            case (name, (_Storage() as storage, int(offset), tuple(shape), tuple(strides), *_)) if (
                name == _TENSOR and offset >= 0 and _are_extents(shape, strides)
            ):
                self.stack.append(_Tensor(storage, offset, shape, strides))
            case _:
                raise CheckpointError(
                    f"the checkpoint calls {function.name}{arguments!r:.80}; only plain "
                    "tensors are read"
                )

    def build(self) -> None:
        """Drop what would become attributes: a state dict notes the versions of its modules."""
        self.pop(dict)
        self.top(dict)


def _are_extents(shape: tuple[Any, ...], strides: tuple[Any, ...]) -> bool:
    """Whether these can be the shape and the strides of an array that is not empty."""
    if len(shape) != len(strides) or len(shape) > _MOST_DIMENSIONS:
        return False
    return all(type(n) is int and n >= 1 for n in shape) and all(
        type(n) is int and n >= 0 for n in strides
    )


_OPCODES = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_LITERALS = {"BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1"}
_ACTIONS: Mapping[str, Callable[[_Machine, Any], None]] = {
    "MARK": lambda machine, _: machine.stack.append(_Mark()),
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.pop_to_mark())),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "BINPUT": lambda machine, place: machine.put(place),
    "LONG_BINPUT": lambda machine, place: machine.put(place),
    "BINGET": lambda machine, place: machine.get(place),
    "LONG_BINGET": lambda machine, place: machine.get(place),
    "SETITEM": lambda machine, _: machine.set_item(),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_to_mark()),
    "APPENDS": lambda machine, _: machine.extend(machine.pop_to_mark()),
    "GLOBAL": lambda machine, name: machine.refer(name),
    "BINPERSID": lambda machine, _: machine.find_storage(),
    "REDUCE": lambda machine, _: machine.call(),
    "BUILD": lambda machine, _: machine.build(),
}
_KNOWN = {"PROTO", "STOP", *_CONSTANTS, *_LITERALS, *_ACTIONS}
