"""The cost model: multiply-adds at the rate of the target, bytes at the rate of memory."""

from __future__ import annotations

import functools
import math

from nnpack.algorithms.base import FLOAT_BYTES
from nnpack.algorithms.storage import STORAGE_BYTES, packed_storage
from nnpack.codegen.target import Target
from nnpack.problem import Problem

# Taps in the padding are left out where that saves more than this share of the multiplications.
LEAST_SAVING = 0.1
# What reading beside arithmetic reaches of the rate of a plain copy from the last-level cache.
CACHE_SHARE = 0.5
# The rate of weights from memory against that of a copy, which writes as well: 51 to 151 MB came at
# 23 GB/s beside products that take as long, 268 MB at 28, where copies run at 14 (Zen 4).
STREAM_SHARE = 1.5
# Runs that find their weights in memory, of all. In a network the other layers have been there
# since; a layer called alone, again and again, finds what stays in the cache. A choice should do in
# both: over 50 layers of 3x3 and 5x5 it is 2 % over the fastest where weights are in memory (4 % if
# none are thought to be), and 0.4 % where they are in the cache.
COLD_RUNS = 0.5
# Up to the first share of the last-level cache weights stay there between calls, of more than the
# second nothing does: other arrays, and other processors, want some of it.
KEPT_SHARE, LOST_SHARE = 1 / 3, 2 / 3
# What of weights from memory products of packed weights do not hide: 0.2 of 0.46 ms (3x3/2, 512
# channels @14).
_UNHIDDEN = 0.5


def product_seconds(
    problem: Problem, target: Target, steps: float, packed_share: float = 1.0
) -> float:
    """Seconds for ``steps`` vector multiply-adds per image and group, and the traffic beside them.

    Multiplication and streaming overlap: what takes longer counts, and a fifth of the other. Some
    runs wait for weights from memory besides, and each image for those that outgrow the cache; they
    are packed in ``packed_share`` times their own bytes.
    """
    arithmetic = problem.batch * problem.groups * steps / target.multiply_adds
    traffic = traffic_seconds(problem, target)
    nbytes = packed_share * _weight_bytes(problem, target)
    again = memory_share(nbytes, target)
    passes = COLD_RUNS + (1 - COLD_RUNS) * again + (problem.batch - 1) * again
    waiting = passes * _UNHIDDEN * nbytes / memory_stream(target)
    return max(arithmetic, traffic) + 0.2 * min(arithmetic, traffic) + waiting


def packing_seconds(problem: Problem, target: Target) -> float:
    """Seconds of one pass of packing over every patch."""
    taps = problem.kernel[0] * problem.kernel[1]
    images, rows = problem.batch * problem.groups, problem.out_height
    pixels = rows * problem.out_width
    # A run ends with its row or its strip, and on average fills half of its last vector.
    runs = images * (rows + pixels / (2 * target.lanes))
    vectors = images * pixels / target.lanes + runs / 2
    # Loads, shuffles and stores of a vector of patches, and the start of every run.
    depth = problem.group_in_channels * taps
    return (3.0 * problem.stride[1] * vectors * depth + 40 * runs * taps) / target.clock


def summing_seconds(problem: Problem, target: Target) -> float:
    """Seconds that sums of pixels wait for x in memory: in some runs if it would stay in the cache.

    Direct convolution loads pixels as it multiplies, which hides that: 1x1 528->160 @14 takes 2 %
    longer with sums where x is in the cache, and 6 % from memory; 128->128 @56 takes 20 % longer at
    batch 16.
    """
    share = COLD_RUNS if fits_last_level(problem, target) else 1.0
    return share * FLOAT_BYTES * _read_floats(problem) / target.rates.memory_bandwidth


def gathering_seconds(problem: Problem, target: Target) -> float:
    """Seconds that packing or copying waits for x in memory, before products can begin.

    Short rows of many planes come no faster than that, and no product hides it: 2x2 1011->7 @152
    waits for 93 MB. Not so of a single tap, whose rows are read once.
    """
    if problem.kernel == (1, 1) or fits_last_level(problem, target):
        return 0.0
    return FLOAT_BYTES * _read_floats(problem) / target.rates.memory_bandwidth


def tap_share(problem: Problem, block_rows: int) -> float:
    """Rows of taps that are multiplied, of all, when tasks are blocks of ``block_rows`` rows.

    A row of taps that falls into the padding for a whole block is left out
    (`kernels.packing.emit_tap_rows`), which matters where the dilation is strong.
    """
    return met_share(problem, block_rows) if problem.dilation[0] > 1 else 1.0


def met_share(problem: Problem, block_rows: int) -> float:
    """`tap_share` for any dilation: small blocks leave out rows of taps without one as well."""
    if max(problem.padding[:2]) <= 0:
        return 1.0
    extents = problem.height, problem.out_height, problem.padding[0]
    return _met_share(
        *extents, problem.kernel[0], problem.stride[0], problem.dilation[0], block_rows
    )


# Choosing among tiles asks for the same few numbers of rows again and again.
@functools.lru_cache(maxsize=1024)
def _met_share(
    height: int, out_height: int, top: int, kernel: int, stride: int, dilation: int, block_rows: int
) -> float:
    used = 0
    for first in range(0, out_height, block_rows):
        rows = min(block_rows, out_height - first)
        lowest = first * stride - top
        highest = lowest + (rows - 1) * stride
        begin = min(max(0, -(highest // dilation)), kernel - 1)
        end = min(max(0, -((lowest - height) // dilation)), kernel)
        used += rows * max(1, end - begin)
    return used / (out_height * kernel)


def skipping_rows(problem: Problem) -> int:
    """Rows of a block, at most, for which most of the taps in the padding are left out.

    All of them where that saves next to nothing: small blocks have a price.
    """
    few = max(1, problem.dilation[0] // 2)
    pays = problem.dilation[0] > 1 and tap_share(problem, few) < 1 - LEAST_SAVING
    return few if pays else problem.out_height


def traffic_seconds(problem: Problem, target: Target) -> float:
    """Seconds to read x and the weights and to write y, from where they fit."""
    in_cache = fits_last_level(problem, target)
    rate = cache_bandwidth(target) if in_cache else target.rates.memory_bandwidth
    return _traffic(problem, target) / rate


def storing_seconds(problem: Problem, target: Target) -> float:
    """Seconds that storing y takes where it stays in no cache: each line is read first.

    A result is often alive still when the next one is stored, so that two of them must fit.
    """
    nbytes = 2 * FLOAT_BYTES * math.prod(problem.y_shape)
    return nbytes / target.rates.memory_bandwidth if nbytes > target.caches.l3 // 2 else 0.0


def fits_last_level(problem: Problem, target: Target) -> bool:
    """Whether x, the weights and y are expected to stay in the last-level cache between calls."""
    return _traffic(problem, target) < target.caches.l3 // 2


def _traffic(problem: Problem, target: Target) -> int:
    """Bytes of x, as far as a stride does not step over rows, of weights and of y."""
    floats = _read_floats(problem) + math.prod(problem.y_shape)
    return FLOAT_BYTES * floats + _weight_bytes(problem, target)


def _read_floats(problem: Problem) -> int:
    rows = min(problem.height, problem.out_height * problem.kernel[0])
    return problem.batch * problem.in_channels * rows * problem.width


def _weight_bytes(problem: Problem, target: Target) -> int:
    return STORAGE_BYTES[packed_storage(problem, target)] * math.prod(problem.weight_shape)


def memory_share(nbytes: float, target: Target) -> float:
    """What of so many bytes comes from memory each time they are streamed."""
    share = nbytes / target.caches.l3
    return min(1.0, max(0.0, (share - KEPT_SHARE) / (LOST_SHARE - KEPT_SHARE)))


def memory_stream(target: Target) -> float:
    """Bytes a second at which weights come from memory."""
    return STREAM_SHARE * target.rates.memory_bandwidth


def cache_bandwidth(target: Target) -> float:
    """Bytes a second that a kernel draws from the last-level cache on one core."""
    return CACHE_SHARE * target.rates.l3_bandwidth
