"""The outputs of a transposed convolution that no tap reaches."""

from __future__ import annotations

from nnpack.algorithms.base import epilogue_words
from nnpack.kernels.fill import Fill
from nnpack.plan import Slot, Stage
from nnpack.problem import TransposedProblem


def fill_stage(problem: TransposedProblem) -> Stage:
    """The stage that writes the epilogue of zero to all of y, before the phases write theirs."""
    batch, channels, height, width = problem.y_shape
    words = {
        "y": Slot("y"),
        "y_n": problem.y_strides[0],
        "y_c": problem.y_strides[1],
        "out_channels": channels,
        "pixels": height * width,
        **epilogue_words(problem.epilogue),
    }
    return Stage(Fill(problem.epilogue.kind), batch * channels, words)
