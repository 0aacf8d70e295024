"""One convolution layer as a value, its kind, and the selection of layers to be timed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

Pair = tuple[int, int]
IntOrPair = int | Pair

FIRST_LAYER_CHANNELS = 4  # up to this many input channels a layer counts as "first"


@dataclass(frozen=True, slots=True)
class Layer:
    """One biased convolution over ``image`` x ``image`` pixels; pairs are (h, w), as everywhere."""

    network: str
    in_channels: int
    out_channels: int
    image: int
    kernel: IntOrPair
    stride: int = 1
    padding: IntOrPair = 0
    groups: int = 1
    dilation: int = 1

    @property
    def window(self) -> Pair:
        """Rows and columns of the kernel."""
        return _pair(self.kernel)

    @property
    def margins(self) -> Pair:
        """Rows of padding above and below, columns left and right."""
        return _pair(self.padding)

    @property
    def out_size(self) -> Pair:
        """Height and width of the output."""
        rows, columns = (
            (self.image + 2 * margin - (taps - 1) * self.dilation - 1) // self.stride + 1
            for taps, margin in zip(self.window, self.margins, strict=True)
        )
        return rows, columns

    @property
    def is_depthwise(self) -> bool:
        """Every channel is convolved by itself."""
        return self.groups == self.in_channels > 1

    @property
    def name(self) -> str:
        """``"3x3/2 128->256 @56"``: kernel, stride, channels and the size of the input image."""
        if self.is_depthwise:
            return f"depthwise {self._taps} {self.in_channels} @{self.image}"
        groups = f" g{self.groups}" if self.groups > 1 else ""
        return f"{self._taps} {self.in_channels}->{self.out_channels}{groups} @{self.image}"

    @property
    def kind(self) -> str:
        """The group a layer's speed is averaged in.

        first 3x3 and first large (up to 4 input channels), depthwise, grouped, dilated 3x3, 1xN, or
        the window with its stride: 1x1, 1x1/2, 3x3, ...
        """
        if self.is_depthwise:
            return f"depthwise{self._stride}"
        if self.groups > 1:
            return f"grouped{self._stride}"
        if self.in_channels <= FIRST_LAYER_CHANNELS:
            return "first 3x3" if max(self.window) <= 3 else "first large"
        if self.dilation > 1:
            return f"dilated {self._window}"
        rows, columns = self.window
        return "1xN" if rows != columns and 1 in self.window else self._window + self._stride

    @property
    def _stride(self) -> str:
        return f"/{self.stride}" if self.stride > 1 else ""

    @property
    def _window(self) -> str:
        return f"{self.window[0]}x{self.window[1]}"

    @property
    def _taps(self) -> str:
        return self._window + self._stride + (f" d{self.dilation}" if self.dilation > 1 else "")

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """(O, I/groups, kh, kw)."""
        return (self.out_channels, self.in_channels // self.groups, *self.window)

    def input_shape(self, batch: int) -> tuple[int, int, int, int]:
        """(N, I, H, W)."""
        return (batch, self.in_channels, self.image, self.image)

    def output_shape(self, batch: int) -> tuple[int, int, int, int]:
        """(N, O, OH, OW)."""
        return (batch, self.out_channels, *self.out_size)

    def flops(self, batch: int) -> int:
        """Operations of direct convolution, the yardstick of effective GFLOP/s (bias apart)."""
        _, depth, kh, kw = self.weight_shape
        rows, columns = self.out_size
        return 2 * batch * self.out_channels * rows * columns * depth * kh * kw


def _pair(value: IntOrPair) -> Pair:
    return (value, value) if isinstance(value, int) else value


def select_layers(
    layers: Iterable[Layer],
    pattern: str | None = None,
    networks: Sequence[str] = (),
    kinds: Sequence[str] = (),
) -> tuple[Layer, ...]:
    """The layers of ``networks`` (parts of names) and ``kinds`` whose name or kind has ``pattern``.

    ``pattern`` is a regular expression, found anywhere in the name or the kind: ``^3x3$`` takes
    the kind 3x3 and nothing else. Case does not matter. A shape that several networks have is
    taken once, as a layer of the first of them. Raises ``re.error`` for a malformed pattern.
    """
    wanted = re.compile(pattern or "", re.IGNORECASE)
    kinds = [kind.lower() for kind in kinds]
    return unique_layers(
        layer
        for layer in layers
        if (wanted.search(layer.name) or wanted.search(layer.kind))
        and (not networks or any(part.lower() in layer.network.lower() for part in networks))
        and (not kinds or layer.kind.lower() in kinds)
    )


def unique_layers(layers: Iterable[Layer]) -> tuple[Layer, ...]:
    """The first layer of every shape."""
    found: dict[Layer, Layer] = {}
    for layer in layers:
        found.setdefault(replace(layer, network=""), layer)
    return tuple(found.values())
