"""Every kernel of every algorithm can be compiled for AArch64, from any machine."""

from __future__ import annotations

import pytest

from nnpack.algorithms.base import Algorithm
from nnpack.algorithms.table import ALGORITHMS
from nnpack.codegen.compiler import Specification, emit_object
from nnpack.codegen.target import NEON
from nnpack.plan import kernels_of
from nnpack.problem import Elu, Problem

PROBLEMS = [
    Problem.conv2d(
        (1, 24, 20, 20), (24, 24, 3, 3), bias_shape=(24,), scale_shape=(24,), activation=Elu()
    ),
    Problem.conv2d((1, 24, 20, 20), (24, 24, 1, 1)),
    Problem.conv2d((1, 24, 40, 40), (24, 24, 5, 5), stride=2, padding=2),
    Problem.conv2d((1, 24, 40, 40), (24, 1, 3, 3), groups=24, padding=1),
    Problem.conv2d((1, 24, 10, 10), (24, 24, 3, 3), padding=5, dilation=5),
]


def _kernels(algorithm: Algorithm) -> set[Specification]:
    taken = [p for p in PROBLEMS if algorithm.refusal(p, NEON) is None]
    # Two threads may ask for other stages than one.
    plans = [algorithm.build(problem, NEON, threads) for problem in taken for threads in (1, 8)]
    stages = [stage for plan in plans for stage in (*plan.stages, *plan.weight_format.stages)]
    return set(kernels_of(stages))


# The tiles between these bring no instruction of their own.
SAMPLE = [a for a in ALGORITHMS if a.name not in ("winograd_3", "winograd_5", "winograd_7")]


@pytest.mark.parametrize("algorithm", SAMPLE, ids=lambda a: str(a.name))
def test_kernels_compile_to_objects_for_aarch64(algorithm: Algorithm) -> None:
    kernels = _kernels(algorithm)
    assert kernels
    for kernel in kernels:
        code = emit_object(kernel, NEON)
        assert code[:4] == b"\x7fELF"
        assert int.from_bytes(code[18:20], "little") == 183  # EM_AARCH64
