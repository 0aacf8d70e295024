"""Gradients with output channels in the lanes: panels ``[d][width]`` of a block of the depth.

    G[d, k] = grad[n, k, i, j],   d = (n * OH + i) * OW + j

Depth d runs through the outputs of all images; channels stand in panels of as many vectors as a
tile of the product has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from nnpack.kernels.gemm import GemmTile
from nnpack.kernels.masked_load import MaskedLoad
from nnpack.kernels.stage import Arguments, Fields
from nnpack.kernels.transpose import emit_load_transposed
from nnpack.problem import ActivationKind

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Value


def following_gradients(args: Arguments, grad: Value, d: Value) -> Value:
    """Where the block of gradients from step d on starts, as far as it is of one image."""
    pixels = args["out_height"] * args["out_width"]
    return grad + d // pixels * args["grad_n"] + d % pixels


def emit_add_tile(
    asm: Assembler,
    tile: Mapping[object, Value],
    places: Mapping[tuple[int, int], int],
    sums: Value,
    done: Value,
) -> None:
    """Store a tile at its places from ``sums`` on, or add it when something was ``done``."""
    with asm.when(done.equals(0)):
        for key, offset in places.items():
            asm.store(tile[key], sums, offset)
    with asm.when(asm.compare(">", done, 0)):
        for key, offset in places.items():
            asm.store(asm.load(sums, offset) + tile[key], sums, offset)


class TurnedGradient:
    """Emits ``turn_gradient(block, grad, to, start, count)``: steps of all panels of G.

    ``panel``: floats from one panel to the next. Behind the last step stand as many steps of zeros
    as there are lanes. ``activation``: which the gradients are behind.
    """

    def __init__(
        self,
        asm: Assembler,
        fields: Fields,
        tile: GemmTile,
        activation: ActivationKind | None,
    ) -> None:
        self.asm = asm
        self.fields = fields
        self.nv = tile.nv
        self.width = tile.nv * asm.lanes
        self.activation = activation

    def emit(self, panel_floats: int | str) -> None:
        """Define ``turn_gradient``; ``panel_floats`` is a number or the word that has it."""
        asm, lanes = self.asm, self.asm.lanes
        with asm.function(
            "turn_gradient",
            block="pointer",
            grad="pointer",
            to="pointer",
            start="index",
            count="index",
        ) as (block, grad, to, start, count):
            args = Arguments(asm, block, self.fields)
            load = MaskedLoad(asm, self.activation, args, "grad")
            step = args[panel_floats] if isinstance(panel_floats, str) else panel_floats
            offsets = asm.local_words(lanes)
            with asm.loop(args["out_panels"] * self.nv) as vector:
                # Beyond the last channel the last one stands again, for sums that nobody reads.
                with asm.loop(lanes) as lane:
                    k = asm.minimum(vector * lanes + lane, args["group_out_channels"] - 1)
                    asm.store_index(k * args["grad_c"], offsets, lane)
                panel, place = vector // self.nv, vector % self.nv
                target = to + panel * step + place * lanes
                self._emit_images(args, load, grad, target, offsets, start, count)
                for zeros in range(lanes):
                    asm.store(asm.zeros(), target + (count + zeros) * self.width)

    def _emit_images(
        self,
        args: Arguments,
        load: MaskedLoad,
        grad: Value,
        to: Value,
        offsets: Value,
        start: Value,
        count: Value,
    ) -> None:
        """One vector of channels: what the block has of each image."""
        asm = self.asm
        pixels = args["out_height"] * args["out_width"]
        with asm.loop((start + count - 1) // pixels + 1, start=start // pixels) as n:
            low = asm.maximum(start, n * pixels)
            length = asm.minimum(start + count, (n + 1) * pixels) - low
            source = grad + n * args["grad_n"] + (low - n * pixels)
            target = to + (low - start) * self.width
            with asm.loop(length, step=asm.lanes) as p:
                self._emit_turn(load, source + p, target + p * self.width, offsets, length - p)

    def _emit_turn(
        self, load: MaskedLoad, source: Value, target: Value, offsets: Value, count: Value
    ) -> None:
        """As many steps as lanes; those beyond ``count`` get zeros, later overwritten or unread."""
        asm, lanes = self.asm, self.asm.lanes
        whole = asm.compare(">=", count, lanes)

        def turn(mask: Value | None) -> None:
            def load_row(lane: int, width: int) -> Value:
                place = source + asm.load_index(offsets, lane)
                return load(place, mask=mask, lanes=width)

            for step, value in enumerate(emit_load_transposed(asm, lanes, load_row)):
                asm.store(value, target, step * self.width)

        with asm.when(whole):
            turn(None)
        with asm.when(whole.equals(0)):
            turn(asm.lanes_below(count))
