"""The layers that are timed: every distinct convolution of five well-known networks, once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

FIRST_LAYER_CHANNELS = 4  # up to this many input channels a layer counts as "first"


@dataclass(frozen=True, slots=True)
class Layer:
    """One square, biased convolution: ``kernel`` x ``kernel`` over ``image`` x ``image`` pixels."""

    network: str
    in_channels: int
    out_channels: int
    image: int
    kernel: int
    stride: int = 1
    padding: int = 0
    groups: int = 1

    @property
    def out_image(self) -> int:
        """Height and width of the output."""
        return (self.image + 2 * self.padding - self.kernel) // self.stride + 1

    @property
    def is_depthwise(self) -> bool:
        """Every channel is convolved by itself."""
        return self.groups == self.in_channels > 1

    @property
    def name(self) -> str:
        """``"3x3/2 128->256 @56"``: kernel, stride, channels and the size of the input image."""
        if self.is_depthwise:
            return f"depthwise {self._window} {self.in_channels} @{self.image}"
        return f"{self._window} {self.in_channels}->{self.out_channels} @{self.image}"

    @property
    def kind(self) -> str:
        """The group a layer's speed is averaged in: first, depthwise, or the window ("1x1/2")."""
        if self.is_depthwise:
            return f"depthwise{self._stride}"
        return "first" if self.in_channels <= FIRST_LAYER_CHANNELS else self._window

    @property
    def _stride(self) -> str:
        return f"/{self.stride}" if self.stride > 1 else ""

    @property
    def _window(self) -> str:
        return f"{self.kernel}x{self.kernel}{self._stride}"

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """(O, I/groups, kh, kw)."""
        return (self.out_channels, self.in_channels // self.groups, self.kernel, self.kernel)

    def input_shape(self, batch: int) -> tuple[int, int, int, int]:
        """(N, I, H, W)."""
        return (batch, self.in_channels, self.image, self.image)

    def output_shape(self, batch: int) -> tuple[int, int, int, int]:
        """(N, O, OH, OW)."""
        return (batch, self.out_channels, self.out_image, self.out_image)

    def flops(self, batch: int) -> int:
        """Operations of direct convolution, the yardstick of effective GFLOP/s (bias apart)."""
        _, depth, kh, kw = self.weight_shape
        return 2 * batch * self.out_channels * self.out_image**2 * depth * kh * kw


def _alexnet() -> Iterator[Layer]:
    """Krizhevsky, "One weird trick for parallelizing convolutional neural networks" (2014)."""
    yield Layer("AlexNet", 3, 64, 224, 11, stride=4, padding=2)
    yield Layer("AlexNet", 64, 192, 27, 5, padding=2)
    for channels in ((192, 384), (384, 256), (256, 256)):
        yield Layer("AlexNet", *channels, 13, 3, padding=1)


def _overfeat() -> Iterator[Layer]:
    """Sermanet et al., "OverFeat" (2014), the fast model."""
    yield Layer("OverFeat-fast", 3, 96, 231, 11, stride=4)
    yield Layer("OverFeat-fast", 96, 256, 28, 5)
    for channels in ((256, 512), (512, 1024), (1024, 1024)):
        yield Layer("OverFeat-fast", *channels, 12, 3, padding=1)


def _vgg() -> Iterator[Layer]:
    """Simonyan & Zisserman (2015), configuration A."""
    sizes = (
        (3, 64, 224),
        (64, 128, 112),
        (128, 256, 56),
        (256, 256, 56),
        (256, 512, 28),
        (512, 512, 28),
        (512, 512, 14),
    )
    for size in sizes:
        yield Layer("VGG-A", *size, 3, padding=1)


def _resnet() -> Iterator[Layer]:
    """He et al. (2016), 50 layers, stride in the 3x3 as every framework has it ("v1.5")."""
    yield Layer("ResNet-50", 3, 64, 224, 7, stride=2, padding=3)
    yield Layer("ResNet-50", 64, 64, 56, 1)
    for width, image in ((64, 56), (128, 28), (256, 14), (512, 7)):
        if width > 64:
            yield Layer("ResNet-50", 2 * width, width, 2 * image, 1)
            yield Layer("ResNet-50", width, width, 2 * image, 3, stride=2, padding=1)
            yield Layer("ResNet-50", 2 * width, 4 * width, 2 * image, 1, stride=2)
        yield Layer("ResNet-50", 4 * width, width, image, 1)
        yield Layer("ResNet-50", width, width, image, 3, padding=1)
        yield Layer("ResNet-50", width, 4 * width, image, 1)


def _mobilenet() -> Iterator[Layer]:
    """Howard et al., "MobileNets" (2017), width 1."""
    yield Layer("MobileNet-v1", 3, 32, 224, 3, stride=2, padding=1)
    for channels, wider, image, stride in (
        (32, 64, 112, 1),
        (64, 128, 112, 2),
        (128, 128, 56, 1),
        (128, 256, 56, 2),
        (256, 256, 28, 1),
        (256, 512, 28, 2),
        (512, 512, 14, 1),
        (512, 1024, 14, 2),
        (1024, 1024, 7, 1),
    ):
        yield Layer(
            "MobileNet-v1", channels, channels, image, 3, stride, padding=1, groups=channels
        )
        yield Layer("MobileNet-v1", channels, wider, image // stride, 1)


LAYERS = (*_alexnet(), *_overfeat(), *_vgg(), *_resnet(), *_mobilenet())


def select_layers(
    layers: Sequence[Layer], pattern: str | None = None, networks: Sequence[str] = ()
) -> tuple[Layer, ...]:
    """The layers of ``networks`` (parts of names, any case) whose name or kind has ``pattern``.

    ``pattern`` is a regular expression, found anywhere in the name or the kind: ``^3x3$`` takes
    the kind 3x3 and nothing else. Raises ``re.error`` when it is malformed.
    """
    wanted = re.compile(pattern or "", re.IGNORECASE)
    return tuple(
        layer
        for layer in layers
        if (wanted.search(layer.name) or wanted.search(layer.kind))
        and (not networks or any(part.lower() in layer.network.lower() for part in networks))
    )
