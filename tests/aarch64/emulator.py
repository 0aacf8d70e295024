"""Plans for AArch64 run under user-mode emulation, on data of this machine."""

from __future__ import annotations

import pathlib
import shutil
import struct
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from nnpack.codegen.compiler import ENTRY, Specification, emit_object
from nnpack.codegen.target import Target
from nnpack.plan import Argument, Plan, Routine, Slot, Stage, kernels_of

PREFIX = "aarch64-linux-gnu-"
EMULATOR = "qemu-aarch64"
SLOTS = (
    *("x", "grad", "weight", "bias", "scale", "residual", "slopes", "packed", "workspace"),
    *("y", "mean", "variance"),
)
DRIVER = pathlib.Path(__file__).with_name("driver.c")
SECONDS = 300
# What words are that no slot stands in.
NUMBER, ROUTINE = -1, -2

Array = npt.NDArray[np.float32]


def missing_tools() -> list[str]:
    """What has to be installed first."""
    tools = (EMULATOR, f"{PREFIX}gcc", f"{PREFIX}objcopy")
    return [tool for tool in tools if shutil.which(tool) is None]


@dataclass
class Emulator:
    """Runs plans made for ``target``; ``folder`` is where objects and programs are kept."""

    folder: pathlib.Path
    target: Target
    _objects: dict[Specification, int] = field(default_factory=dict)
    _programs: dict[tuple[int, ...], pathlib.Path] = field(default_factory=dict)

    def run(
        self,
        plan: Plan,
        y_shape: Sequence[int],
        arrays: Mapping[str, Array],
        *,
        before: bool,
        result: str = "y",
    ) -> Array:
        """y of ``plan`` on ``arrays``, those that it reads by slot; or its mean or its variance.

        Every array stands beside a forbidden page, ``before`` or after it.
        """
        stages = (*plan.weight_format.stages, *plan.stages)
        numbers = sorted({self._object(kernel) for kernel in kernels_of(stages)})
        shapes = {"y": tuple(y_shape), "mean": tuple(y_shape[1:2]), "variance": tuple(y_shape[1:2])}
        sizes = {name: 4 * int(np.prod(shape)) for name, shape in shapes.items()}
        sizes |= {"packed": plan.weight_format.nbytes, "workspace": plan.workspace_bytes}
        words = [len(SLOTS), len(stages), SLOTS.index(result), int(before), plan.threads]
        case, output = self.folder / "case", self.folder / "output"
        with case.open("wb") as file:
            file.write(_packed(words))
            for name in SLOTS:
                content = _content(arrays.get(name))
                nbytes = sizes.get(name, len(content))
                file.write(_packed([nbytes, bool(content)]) + content)
            for stage in stages:
                kernel = numbers.index(self._object(stage.kernel))
                described = self._stage_words(stage, numbers)
                file.write(_packed([kernel, stage.tasks, *described]))
        program = self._program(tuple(numbers))
        _call(EMULATOR, str(program), str(case), str(output))
        return np.fromfile(output, np.float32).reshape(shapes[result])

    def _stage_words(self, stage: Stage, numbers: Sequence[int]) -> Iterator[int]:
        """The number of words, and two integers for each."""
        yield len(stage.kernel.fields)
        for name in stage.kernel.fields:
            argument = stage.arguments[name]
            if isinstance(argument, Slot):
                yield from (SLOTS.index(argument.name), argument.offset)
            elif isinstance(argument, Routine):
                yield from (ROUTINE, numbers.index(self._object(argument.kernel)))
            else:
                yield from (NUMBER, _number(argument))

    def _object(self, kernel: Specification) -> int:
        """The number of the object of ``kernel``, made when it is new."""
        if kernel not in self._objects:
            number = len(self._objects)
            path = self.folder / f"{number}.o"
            path.write_bytes(emit_object(kernel, self.target))
            _call(f"{PREFIX}objcopy", "--redefine-sym", f"{ENTRY}=kernel_{number}", str(path))
            self._objects[kernel] = number
        return self._objects[kernel]

    def _program(self, numbers: tuple[int, ...]) -> pathlib.Path:
        """The driver linked with these objects."""
        if numbers not in self._programs:
            path = self.folder / f"program{len(self._programs)}"
            table = path.with_suffix(".c")
            names = [f"kernel_{number}" for number in numbers]
            lines = [f"extern void {name}(void);" for name in names]
            lines.append(f"void (*const kernels[])(void) = {{{', '.join(names)}}};")
            table.write_text("\n".join(lines) + "\n", encoding="utf-8")
            objects = [str(self.folder / f"{number}.o") for number in numbers]
            sources = [str(DRIVER), str(table), *objects]
            _call(f"{PREFIX}gcc", "-O1", "-static", "-o", str(path), *sources, "-lm")
            self._programs[numbers] = path
        return self._programs[numbers]


def _content(values: Array | None) -> bytes:
    return b"" if values is None else np.ascontiguousarray(values).tobytes()


def _number(argument: Argument) -> int:
    """Floats travel in the low half of a word."""
    if isinstance(argument, float):
        return int(struct.unpack("<i", struct.pack("<f", argument))[0])
    assert isinstance(argument, int)
    return argument


def _packed(words: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(words)}q", *words)


def _call(*words: str) -> None:
    """Run a program. Raises RuntimeError with what it said, or how it ended."""
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=SECONDS)
    if done.returncode:
        raise RuntimeError(f"{words[0]} ended with {done.returncode}: {done.stderr[-2000:]}")
