"""Numbers added to places of a plane: the gradient of a maximum."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnpack.frozen import dataclass
from nnpack.kernels.stage import emit_stage
from nnpack.kernels.vectors import emit_vectors

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler


@dataclass(frozen=True)
class ScatterPlanes:
    """The stage ``y[n, indices[n, k]] += grad[n, k]``, y zero before; a task is a plane.

    ``indices`` are i64; those outside 0 .. ``pixels`` are places that are nowhere. What goes to one
    place is added in the order of k.
    """

    @property
    def fields(self) -> dict[str, str]:
        """The argument words; a plane of grad has ``count`` numbers, one of y ``pixels``."""
        pointers = dict.fromkeys(("grad", "indices", "y"), "pointer")
        return {**pointers, "count": "index", "pixels": "index"}

    def emit(self, asm: Assembler) -> None:
        """Emit the stage."""
        with emit_stage(asm, self.fields) as (args, first, last, _):
            with asm.loop(last, start=first) as plane:
                y, start = args["y"] + plane * args["pixels"], plane * args["count"]
                zeros = asm.zeros()
                emit_vectors(
                    asm,
                    args["pixels"],
                    lambda offset, mask, _, y=y: asm.store(zeros, y, offset, mask=mask),  # type: ignore[misc]
                    unroll=4,
                )
                with asm.loop(args["count"]) as number:
                    place = asm.load_index(args["indices"], start + number)
                    with asm.when((place >= 0) & (place < args["pixels"])):
                        added = asm.load_float(args["grad"], start + number)
                        asm.store(asm.load_float(y, place) + added, y, place)
