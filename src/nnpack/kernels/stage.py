"""The shape of every stage: ``void stage(arguments, first_task, last_task, worker)``.

``arguments`` is a block of i64 words; a kernel names its words in ``fields`` and the plan fills
them in by name. Floats travel in the low half of a word.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from nnpack.codegen.compiler import ENTRY

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Value

Fields = Mapping[str, str]


class Kernel(Protocol):
    """The specification of a stage: what it is compiled from, and what it is passed."""

    def __hash__(self) -> int: ...

    @property
    def fields(self) -> Fields:
        """Name and kind of every argument word, in order.

        Kinds: "pointer" to floats, "halves" (a pointer to them), "index", "float".
        """

    def emit(self, asm: Assembler) -> None:
        """Emit the stage function."""


class Arguments:
    """Reads the words of an argument block by name, where they are asked for."""

    def __init__(self, asm: Assembler, block: Value, fields: Fields) -> None:
        self.asm = asm
        self.block = block
        self._words = {name: (n, kind) for n, (name, kind) in enumerate(fields.items())}

    def __getitem__(self, name: str) -> Value:
        word, kind = self._words[name]
        if kind in ("pointer", "halves"):
            return self.asm.load_pointer(self.block, word, halves=kind == "halves")
        if kind == "float":
            return self.asm.load_float(self.block, 2 * word)
        return self.asm.load_index(self.block, word)

    def __contains__(self, name: str) -> bool:
        return name in self._words

    def load(self, *names: str) -> tuple[Value, ...]:
        """Several words at once."""
        return tuple(self[name] for name in names)


@contextmanager
def emit_stage(asm: Assembler, fields: Fields) -> Iterator[tuple[Arguments, Value, Value, Value]]:
    """Define the stage function: yields (arguments, first_task, last_task, worker)."""
    with asm.function(
        ENTRY, exported=True, block="pointer", first="index", last="index", worker="index"
    ) as (block, first, last, worker):
        yield Arguments(asm, block, fields), first, last, worker


PHASES = ("input transform", "packing", "multiplication", "output transform")


class PhaseTimer:
    """Adds the cycles of each phase to the words of the ``profile`` argument, if there is one.

    In a kernel that is not profiled nothing at all is emitted.
    """

    def __init__(self, args: Arguments, enabled: bool) -> None:
        self._args = args
        self._enabled = enabled

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time the body as the phase ``name`` of `PHASES`."""
        if not self._enabled:
            yield
            return
        asm = self._args.asm
        start = asm.cycle_counter()
        yield
        asm.atomic_add(asm.cycle_counter() - start, self._args["profile"], PHASES.index(name))


def profile_fields(enabled: bool) -> dict[str, str]:
    """The argument word of a profiled kernel."""
    return {"profile": "pointer"} if enabled else {}
