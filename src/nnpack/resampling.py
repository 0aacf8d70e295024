"""Tables of resampling: which places an output depends on along one axis, and with what weights."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from nnpack.frozen import dataclass
from nnpack.pool_problem import PoolProblem
from nnpack.reshaping_problem import AxisKind, ResampleProblem

__all__ = ["AxisTable", "average_gradient_tables", "axis_table", "table_arrays"]

Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class AxisTable:
    """``places`` (taps, outputs), and weights of that shape unless there is one tap of weight 1.

    Places are int64 of rows, int32 of columns: in the lanes of vectors.
    """

    places: npt.NDArray[Any]
    weights: npt.NDArray[np.float32] | None

    @property
    def taps(self) -> int:
        """Entries of each output."""
        return int(self.places.shape[0])


def table_arrays(rows: AxisTable, columns: AxisTable) -> dict[str, npt.NDArray[Any]]:
    """Two tables as the arrays that a program reads, by slot name."""
    arrays: dict[str, npt.NDArray[Any]] = {
        "row_places": rows.places,
        "column_places": columns.places,
    }
    for name, table in (("row_weights", rows), ("column_weights", columns)):
        if table.weights is not None:
            arrays[name] = table.weights
    return arrays


def axis_table(problem: ResampleProblem, axis: int) -> AxisTable:
    """The table of the rows (axis 0) or the columns (axis 1) of ``problem``; kept."""
    sizes = problem.image[axis], problem.outputs[axis]
    return _axis_table(axis, problem.kind, *sizes, problem.padding[2 * axis], problem.gradient)


@functools.lru_cache(maxsize=128)
def average_gradient_tables(pool: PoolProblem) -> tuple[AxisTable, AxisTable]:
    """The tables of rows and columns of the gradient of an average pool.

    The number of pixels of a window is that of its rows times that of its columns, so that a mean
    is a mean of rows of means of columns. A given divisor goes to the rows.
    """
    tables = []
    for axis, (inputs, outputs) in enumerate(
        ((pool.height, pool.out_height), (pool.width, pool.out_width))
    ):
        begin, end, count = _windows(pool, axis, inputs, np.arange(outputs, dtype=np.int64))
        if pool.divisor is not None:
            count = np.full(outputs, pool.divisor if axis == 0 else 1)
        taps = int((end - begin).max())
        number = np.arange(taps)[:, None]
        inside = number < end - begin
        places = np.where(inside, begin + number, 0)
        places, weights = _transposed(places, np.where(inside, 1 / count, 0.0), inputs)
        places = np.ascontiguousarray(places, np.int32 if axis else np.int64)
        tables.append(AxisTable(places, weights.astype(np.float32)))
    return tables[0], tables[1]


def _windows(
    pool: PoolProblem, axis: int, inputs: int, number: Places
) -> tuple[Places, Places, Places]:
    """Of each window along an axis: its first pixel, the one behind its last, what it counts."""
    if pool.kernel is None:
        outputs = len(number)
        begin, end = number * inputs // outputs, -(-(number + 1) * inputs // outputs)
        return begin, end, end - begin
    before, after = pool.padding[2 * axis], pool.padding[2 * axis + 1]
    start = number * pool.stride[axis] - before
    stop = np.minimum(start + pool.kernel[axis], inputs + after)
    begin, end = np.maximum(start, 0), np.minimum(stop, inputs)
    return begin, end, stop - start if pool.count_padding else end - begin


@functools.lru_cache(maxsize=128)
def _axis_table(
    axis: int, kind: AxisKind, inputs: int, outputs: int, before: int, gradient: bool
) -> AxisTable:
    places, weights = _forward(kind, inputs, outputs, before)
    if gradient:
        places, weights = _transposed(places, weights, inputs)
    plain = weights.shape[0] == 1 and bool((weights == 1).all())
    places = np.ascontiguousarray(places, np.int32 if axis else np.int64)
    return AxisTable(places, None if plain else weights.astype(np.float32))


def _forward(kind: AxisKind, inputs: int, outputs: int, before: int) -> tuple[Places, Any]:
    """Places and weights, (taps, outputs) each."""
    number = np.arange(outputs, dtype=np.int64)
    if kind in ("nearest", "reflect", "replicate"):
        if kind == "nearest":
            place = number * inputs // outputs
        elif kind == "replicate":
            place = np.clip(number - before, 0, inputs - 1)
        else:
            place = np.abs(number - before)
            place = inputs - 1 - np.abs(inputs - 1 - place)
        return place[None], np.ones((1, outputs))
    if kind == "corners":
        position = number * ((inputs - 1) / max(1, outputs - 1))
    else:
        position = np.maximum((number + 0.5) * (inputs / outputs) - 0.5, 0.0)
    low = np.minimum(position.astype(np.int64), inputs - 1)
    share = np.minimum(position - low, 1.0)
    return np.stack([low, np.minimum(low + 1, inputs - 1)]), np.stack([1 - share, share])


def _transposed(places: Places, weights: Any, inputs: int) -> tuple[Places, Any]:
    """The table of the transpose: for each input the outputs that depend on it.

    Inputs with fewer than others repeat one of theirs with the weight 0, so that what is not finite
    spreads no further than it must; an input on which nothing depends has the first output so.
    """
    source = np.repeat(np.arange(places.shape[1])[None], places.shape[0], 0)[weights != 0]
    reached, values = places[weights != 0], weights[weights != 0]
    order = np.lexsort((source, reached))
    source, reached, values = source[order], reached[order], values[order]
    counts = np.bincount(reached, minlength=inputs)
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    taps = max(1, int(counts.max()))
    number = np.arange(taps)[:, None]
    entry = np.minimum(first + np.minimum(number, np.maximum(counts - 1, 0)), len(source) - 1)
    return source[entry].astype(np.int64), np.where(number < counts, values[entry], 0.0)
