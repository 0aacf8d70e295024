"""The one ordered table of algorithms, and the names under which they are asked for."""

from __future__ import annotations

from collections.abc import Mapping

from nnpack.algorithms.base import Algorithm, TransposedAlgorithm
from nnpack.algorithms.cook_toom import CookToom
from nnpack.algorithms.depthwise import Depthwise
from nnpack.algorithms.depthwise_transposed import TransposedDepthwise
from nnpack.algorithms.direct import Direct
from nnpack.algorithms.fourier import FourierAlgorithm
from nnpack.algorithms.implicit_gemm import ImplicitGemm
from nnpack.algorithms.pointwise import Pointwise
from nnpack.algorithms.polyphase import Polyphase
from nnpack.algorithms.strassen import Strassen
from nnpack.algorithms.winograd import WinogradAlgorithm

ALGORITHMS: tuple[Algorithm, ...] = (
    Pointwise(),
    Strassen(),
    *(WinogradAlgorithm(m) for m in range(2, 8)),
    Polyphase(),
    *(CookToom(m) for m in (2, 3, 4)),
    FourierAlgorithm(8),
    FourierAlgorithm(16),
    Depthwise(),
    Direct(),
    ImplicitGemm(),
)

# Those that take a transposed convolution as a whole, which others take phase by phase.
TRANSPOSED_ALGORITHMS: tuple[TransposedAlgorithm, ...] = (TransposedDepthwise(),)

# Names of the original NNPACK.
ALIASES: Mapping[str, str] = {"ft8x8": "fourier_8", "ft16x16": "fourier_16", "wt8x8": "winograd_6"}


def find_algorithms(name: str) -> tuple[Algorithm, ...]:
    """The algorithms that ``algorithm=name`` allows: one, a family, or all; none if unknown."""
    wanted = ALIASES.get(name, name)
    if wanted == "auto":
        return ALGORITHMS
    return tuple(a for a in ALGORITHMS if wanted in (a.name, _family(a.name)))


def find_transposed_algorithms(name: str) -> tuple[TransposedAlgorithm, ...]:
    """Those for whole transposed convolutions that ``algorithm=name`` allows."""
    return tuple(a for a in TRANSPOSED_ALGORITHMS if name in ("auto", a.name))


def algorithm_names() -> tuple[str, ...]:
    """Everything that ``algorithm=`` may be: each family before its members, aliases last."""
    names = ["auto"]
    for algorithm in ALGORITHMS:
        names += [_family(algorithm.name), algorithm.name]
    return tuple(dict.fromkeys([*names, *ALIASES]))


def _family(name: str) -> str:
    """``name`` without the size of its tile."""
    family, _, size = name.rpartition("_")
    return family if size.isdecimal() else name
