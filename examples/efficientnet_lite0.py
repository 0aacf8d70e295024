"""EfficientNet-Lite0 on a picture of yours, by what `nnpack demo --network` is made of.

Usage: python examples/efficientnet_lite0.py PICTURE [WEIGHTS]
"""

from __future__ import annotations

import sys
from pathlib import Path

from nnpack.cli.demo import picture
from nnpack.cli.demo.checkpoint import read_checkpoint
from nnpack.cli.demo.classifier import Classifier, classifier_input
from nnpack.cli.demo.efficientnet import SIDE, read_network
from nnpack.cli.demo.weights import EFFICIENTNET_LITE0, fetch_weights
from nnpack.settings import get_settings


def main(photograph: str, weights: str | None = None) -> None:
    data = (
        Path(weights).read_bytes()
        if weights
        else fetch_weights(EFFICIENTNET_LITE0, get_settings().cache_dir)
    )
    classifier = Classifier(read_network(read_checkpoint(data)))
    pixels = picture.centre_square(picture.read_picture(Path(photograph)), SIDE)
    probabilities = classifier(classifier_input(pixels))[0]
    for label in probabilities.argsort()[:-6:-1]:
        print(f"{label:4d} {probabilities[label]:.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
