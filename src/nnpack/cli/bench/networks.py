"""The layers that are timed: the convolutions of well-known networks, and kinds those lack."""

from __future__ import annotations

from collections.abc import Iterator

from nnpack.cli.bench.layers import Layer, unique_layers


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


def _googlenet() -> Iterator[Layer]:
    """Szegedy et al., "Going deeper with convolutions" (2015)."""
    yield Layer("GoogLeNet", 3, 64, 224, 7, stride=2, padding=3)
    yield Layer("GoogLeNet", 64, 64, 56, 1)
    yield Layer("GoogLeNet", 64, 192, 56, 3, padding=1)
    for inputs, image, pointwise, (reduced, threes), (small, fives), pooled in (
        (192, 28, 64, (96, 128), (16, 32), 32),
        (256, 28, 128, (128, 192), (32, 96), 64),
        (480, 14, 192, (96, 208), (16, 48), 64),
        (512, 14, 160, (112, 224), (24, 64), 64),
        (512, 14, 128, (128, 256), (24, 64), 64),
        (512, 14, 112, (144, 288), (32, 64), 64),
        (528, 14, 256, (160, 320), (32, 128), 128),
        (832, 7, 256, (160, 320), (32, 128), 128),
        (832, 7, 384, (192, 384), (48, 128), 128),
    ):
        for outputs in (pointwise, reduced, small, pooled):
            yield Layer("GoogLeNet", inputs, outputs, image, 1)
        yield Layer("GoogLeNet", reduced, threes, image, 3, padding=1)
        yield Layer("GoogLeNet", small, fives, image, 5, padding=2)


def _mobilenet_v2() -> Iterator[Layer]:
    """Sandler et al., "MobileNetV2" (2018), width 1."""
    network = "MobileNet-v2"
    yield Layer(network, 3, 32, 224, 3, stride=2, padding=1)
    inputs, image = 32, 112
    for expansion, outputs, repeats, first_stride in (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ):
        for stride in (first_stride, *[1] * (repeats - 1)):
            wide = expansion * inputs
            if expansion > 1:
                yield Layer(network, inputs, wide, image, 1)
            yield Layer(network, wide, wide, image, 3, stride, padding=1, groups=wide)
            image //= stride
            yield Layer(network, wide, outputs, image, 1)
            inputs = outputs
    yield Layer(network, 320, 1280, 7, 1)


def _dilated() -> Iterator[Layer]:
    """Chen et al., DeepLab (2017): the last stages of a ResNet without their strides, and ASPP."""
    for inputs, outputs, image, dilation in (
        (64, 64, 56, 2),
        (128, 128, 28, 2),
        (256, 256, 28, 2),
        (512, 512, 28, 4),
        (2048, 256, 28, 6),
        (2048, 256, 28, 12),
        (2048, 256, 33, 18),
    ):
        yield Layer("DeepLab", inputs, outputs, image, 3, padding=dilation, dilation=dilation)


def _oblong() -> Iterator[Layer]:
    """Szegedy et al., Inception-v3 (2016)."""
    for inputs, outputs in ((128, 128), (128, 192), (160, 160), (160, 192), (192, 192)):
        yield Layer("Inception-v3", inputs, outputs, 17, (1, 7), padding=(0, 3))
        yield Layer("Inception-v3", inputs, outputs, 17, (7, 1), padding=(3, 0))
    yield Layer("Inception-v3", 384, 384, 8, (1, 3), padding=(0, 1))
    yield Layer("Inception-v3", 384, 384, 8, (3, 1), padding=(1, 0))
    yield Layer("Inception-v3", 48, 64, 35, 5, padding=2)


def _grouped() -> Iterator[Layer]:
    """Xie et al., ResNeXt-50 32x4d (2017); Zhang et al., ShuffleNet with 3 groups (2018)."""
    for width, image in ((128, 56), (256, 28), (512, 14), (1024, 7)):
        if width > 128:
            yield Layer("ResNeXt-50", width, width, 2 * image, 3, 2, padding=1, groups=32)
        yield Layer("ResNeXt-50", width, width, image, 3, padding=1, groups=32)
    for wide, image in ((240, 28), (480, 14), (960, 7)):
        yield Layer("ShuffleNet", wide, wide // 4, image, 1, groups=3)
        yield Layer("ShuffleNet", wide // 4, wide, image, 1, groups=3)


def _large_kernels() -> Iterator[Layer]:
    """Wei et al., convolutional pose machines (2016), and squares of channels between."""
    for channels, image in ((32, 112), (64, 56), (128, 28), (256, 14)):
        yield Layer("squares", channels, channels, image, 5, padding=2)
    for channels, image in ((32, 56), (64, 56), (128, 28), (192, 14)):
        yield Layer("squares", channels, channels, image, 7, padding=3)
    yield Layer("pose machine", 185, 128, 46, 7, padding=3)
    yield Layer("pose machine", 128, 128, 46, 7, padding=3)


def _large_depthwise() -> Iterator[Layer]:
    """Tan & Le, EfficientNet-B0 (2019); Liu et al., ConvNeXt-T (2022)."""
    yield Layer("EfficientNet", 240, 240, 28, 5, padding=2, groups=240)
    yield Layer("EfficientNet", 672, 672, 14, 5, stride=2, padding=2, groups=672)
    yield Layer("ConvNeXt", 96, 96, 56, 7, padding=3, groups=96)
    yield Layer("ConvNeXt", 384, 384, 14, 7, padding=3, groups=384)


def _first() -> Iterator[Layer]:
    """First layers of Inception-v3, YOLO and networks that enlarge pictures."""
    yield Layer("Inception-v3", 3, 32, 299, 3, stride=2)
    yield Layer("YOLO", 3, 32, 416, 3, padding=1)
    yield Layer("upconv_7", 3, 16, 156, 3)


CLASSICS = (*_alexnet(), *_overfeat(), *_vgg(), *_resnet(), *_mobilenet())
"""The convolutions of five networks, which is what is timed by default."""

NETWORKS = (*CLASSICS, *_googlenet(), *_mobilenet_v2())
"""Those of the seven networks over which speed-ups are stated; shapes repeat."""

OTHERS = (
    *_dilated(),
    *_large_kernels(),
    *_oblong(),
    *_grouped(),
    *_large_depthwise(),
    *_first(),
)
"""Kinds of layers that those networks have few or none of."""

NAMED_NETWORKS = frozenset(layer.network for layer in NETWORKS)

LAYERS = unique_layers(CLASSICS)
ALL_LAYERS = (*NETWORKS, *OTHERS)
