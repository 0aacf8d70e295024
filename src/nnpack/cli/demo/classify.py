"""``nnpack demo --network``: a photograph labelled by EfficientNet-Lite0, each layer timed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from nnpack.cli.demo import picture
from nnpack.cli.demo.checkpoint import read_checkpoint
from nnpack.cli.demo.classifier import Classifier, LayerTime, classifier_input
from nnpack.cli.demo.efficientnet import LITE0, SIDE, Float32, Network, read_network
from nnpack.cli.demo.obtaining import obtain_weights
from nnpack.cli.demo.weights import EFFICIENTNET_LITE0

__all__ = ["classify"]

_ROUNDS, _TURNS, _WARM_UPS = 40, 8, 2
_PAUSE_SECONDS = 0.01
_SHOWN = 5
_MILLI, _GIGA = 1e3, 1e9
# ImageNet's names of what the pictures that come with scikit-image and scikit-learn show.
_NAMES = {
    281: "tabby",
    282: "tiger cat",
    285: "Egyptian cat",
    967: "espresso",
    968: "cup",
    985: "daisy",
}


def classify(
    console: Console, photograph: Path | None, weights: Path | None, threads: int | None
) -> None:
    """Label ``photograph``, the cat by default, and print the time of every layer and of all.

    Raises DemoError when the weights or the picture cannot be had.
    """
    pixels = picture.sample_picture() if photograph is None else picture.read_picture(photograph)
    network = read_network(
        read_checkpoint(obtain_weights(console, weights, EFFICIENTNET_LITE0)), LITE0
    )
    x = classifier_input(picture.centre_square(pixels, SIDE))
    start = time.perf_counter()
    with console.status("compiling"):
        classifier = Classifier(network, threads)
        probabilities = classifier(x)[0]
    console.print(
        f"ready after {time.perf_counter() - start:.2f} s (weights packed, kernels compiled)"
    )
    console.print(_labels(probabilities))
    times = classifier.profile(x, _ROUNDS)
    console.print(_profile(times))
    _compare(console, network, classifier, x, sum(layer.flops for layer in times))


def _labels(probabilities: Float32) -> Table:
    table = Table("class", "ImageNet's name", "probability", title="what the picture shows")
    for number in probabilities.argsort()[::-1][:_SHOWN]:
        table.add_row(str(number), _NAMES.get(int(number), ""), f"{probabilities[number]:.3f}")
    return table


def _profile(times: list[LayerTime]) -> Table:
    table = Table("layer", "output", "algorithm", title="layer by layer, medians")
    for name in ("ms", "GFLOP/s"):
        table.add_column(name, justify="right")
    for layer in times:
        rate = f"{layer.flops / layer.seconds / _GIGA:.0f}" if layer.flops else ""
        shape = "x".join(map(str, layer.shape[1:]))
        table.add_row(layer.name, shape, layer.algorithm, f"{layer.seconds * _MILLI:.3f}", rate)
    return table


def _compare(
    console: Console, network: Network, classifier: Classifier, x: Float32, flops: int
) -> None:
    """Print the time of the whole network, and that of ONNX Runtime where it is installed."""
    threads = classifier.threads
    runs: dict[str, Callable[[], Float32]] = {"nnpack": lambda: classifier(x)}
    try:
        from nnpack.cli.bench.peers.onnx_network import network_session

        runs["onnxruntime"] = network_session(network, x, threads)
    except ModuleNotFoundError:
        pass
    seconds = _interleaved(runs)
    unit = f"thread{'s' * (threads > 1)}"
    for name, each in seconds.items():
        console.print(
            f"{name}: {each * _MILLI:.2f} ms a picture on {threads} {unit}, "
            f"{flops / each / _GIGA:.0f} GFLOP/s",
            soft_wrap=True,
        )
    if len(runs) > 1:
        difference = float(np.abs(runs["nnpack"]() - runs["onnxruntime"]()).max())
        ratio = seconds["onnxruntime"] / seconds["nnpack"]
        console.print(
            f"nnpack is {ratio:.2f} times as fast; probabilities differ by {difference:.1e}",
            soft_wrap=True,
        )


def _interleaved(runs: dict[str, Callable[[], Float32]]) -> dict[str, float]:
    """Seconds of each, the median of turns, which begin with runs that do not count.

    What the other left in the caches is not this one's fault, nor are threads of its that still
    wait for work without sleeping: they have a pause to fall asleep in.
    """
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(_TURNS):
        for name, run in runs.items():
            time.sleep(_PAUSE_SECONDS)
            for number in range(_WARM_UPS + -(-_ROUNDS // _TURNS)):
                start = time.perf_counter()
                run()
                if number >= _WARM_UPS:
                    taken[name].append(time.perf_counter() - start)
    return {name: float(np.median(seconds)) for name, seconds in taken.items()}
