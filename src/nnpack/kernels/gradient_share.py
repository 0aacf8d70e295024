"""What stages of weight gradients have in common: their words, and the sums a task adds to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnpack.frozen import dataclass
from nnpack.kernels.stage import Arguments

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Value

PRODUCT_FIELDS = {
    **dict.fromkeys(("x", "grad", "sums", "scratch"), "pointer"),
    **dict.fromkeys(
        (
            "scratch_stride",
            "groups",
            "channels",
            "group_out_channels",
            "height",
            "width",
            "out_height",
            "out_width",
            "kernel_h",
            "kernel_w",
            "stride_h",
            "stride_w",
            "dilation_h",
            "dilation_w",
            "pad_top",
            "pad_left",
            "x_n",
            "x_c",
            "x_h",
            "grad_n",
            "grad_c",
            "depth",
            "chunks",
            "chunk_blocks",
            "row_panels",
            "task_panels",
            "out_panels",
        ),
        "index",
    ),
}


def row_floats(block: int, lanes: int) -> int:
    """Floats from one row of a panel of patches to the next; rows overrun by up to a vector."""
    return block + 2 * lanes


@dataclass(frozen=True)
class Share:
    """A task's group and chunk of depth: its arrays, sums, and row panels first .. last."""

    chunk: Value
    x: Value
    grad: Value
    sums: Value
    first_panel: Value
    last_panel: Value

    def depth(self, asm: Assembler, args: Arguments, block: int) -> tuple[Value, Value]:
        """Where the depth of the chunk starts and stops, in blocks of ``block`` steps."""
        start = self.chunk * args["chunk_blocks"] * block
        return start, asm.minimum(start + args["chunk_blocks"] * block, args["depth"])


def emit_share(asm: Assembler, args: Arguments, task: Value, tile_floats: int) -> Share:
    """Decode ``task``: row panels fastest, then chunks, then groups."""
    row_panels, task_panels, chunks = args.load("row_panels", "task_panels", "chunks")
    parts = asm.ceil_div(row_panels, task_panels)
    first_panel = task % parts * task_panels
    chunk, group = task // parts % chunks, task // parts // chunks
    group_floats = row_panels * args["out_panels"] * tile_floats
    return Share(
        chunk,
        args["x"] + group * args["channels"] * args["x_c"],
        args["grad"] + group * args["group_out_channels"] * args["grad_c"],
        args["sums"] + (chunk * args["groups"] + group) * group_floats,
        first_panel,
        asm.minimum(first_panel + task_panels, row_panels),
    )
