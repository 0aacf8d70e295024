"""What is compared: a contestant prepares a layer once, then runs it again and again."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnpack.cli.bench.layers import Layer
from nnpack.cli.bench.quiet import quiet

Array = NDArray[np.float32]
REASON_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Operands:
    """Input (N, I, H, W), weights (O, I/groups, kh, kw) and bias (O,), float32, C-contiguous."""

    x: Array
    weight: Array
    bias: Array


def random_operands(layer: Layer, batch: int, seed: int = 0) -> Operands:
    """Data of either sign; the weights scaled so that outputs are about as large as inputs."""
    rng = np.random.default_rng(seed)
    shape = layer.weight_shape
    scale = np.float32(1 / np.sqrt(np.prod(shape[1:])))
    return Operands(
        rng.standard_normal(layer.input_shape(batch), dtype=np.float32),
        rng.standard_normal(shape, dtype=np.float32) * scale,
        rng.standard_normal(layer.out_channels, dtype=np.float32),
    )


@dataclass(frozen=True, slots=True)
class Prepared:
    """A layer ready to run: ``run()`` is what is timed, ``to_array`` of its value is not.

    ``to_array`` gives the output as an array (N, O, OH, OW), valid until the next ``run()``.
    """

    run: Callable[[], Any]
    to_array: Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Contestant:
    """A way to compute a layer. ``prepare(layer, operands, threads)`` packs what can be packed."""

    name: str
    packages: tuple[str, ...]
    prepare: Callable[[Layer, Operands, int], Prepared]
    is_ours: bool = False

    def why_unavailable(self) -> str | None:
        """The reason why this contestant cannot run here, None when it can."""
        for package in self.packages:
            try:
                with quiet():  # MNN greets everybody who imports it
                    importlib.import_module(package)
            except Exception as error:  # a broken installation raises anything
                return describe(error)
        return None


def describe(error: Exception) -> str:
    """The kind of ``error`` and the first line of what it says: some peers write pages."""
    first, *_ = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {first[:REASON_CHARACTERS]}"
