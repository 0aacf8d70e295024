"""Transposition in registers: rows of contiguous floats to and from vectors of one column.

A block of ``lanes`` rows (channels) by ``columns`` (pixels) is loaded row by row and turned so that
vector p holds column p, one row a lane; and back. Registers are treated as rows of 128-bit
blocks of four floats: 4x4 transpositions inside the blocks, then a transposition of the blocks.

For 16 lanes and 8 columns, vector i holds rows i and 4 + i (i < 4), or 8 and 12 on:

    | row i, columns 0-3 | row i, columns 4-7 | row i+4, columns 0-3 | row i+4, columns 4-7 |

After the 4x4 step, vector c of the group holds column c of four rows in each block, and
column c of all 16 rows is the even blocks of both groups, column c + 4 the odd ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nnpack.codegen.assembler import Assembler, Value


BLOCK = 4


def padded_columns(columns: int, lanes: int) -> int:
    """The columns a block of rows is loaded with: 4, 8 or 16, at most ``lanes``."""
    width = BLOCK
    while width < min(columns, lanes):
        width *= 2
    return width


def _block_shuffle(asm: Assembler, a: Value, b: Value, blocks: Sequence[int]) -> Value:
    """128-bit blocks of ``a`` then ``b`` in the given order."""
    return asm.shuffle(a, b, [BLOCK * n + i for n in blocks for i in range(BLOCK)])


def _transpose_4x4(asm: Assembler, rows: Sequence[Value]) -> list[Value]:
    """Transpose the 4x4 floats in every 128-bit block of four vectors."""
    blocks = range(0, asm.lanes, BLOCK)
    total = asm.lanes

    def unpack(a: Value, b: Value, order: tuple[int, int, int, int]) -> Value:
        """Lanes of each block: 0..3 of a, 4..7 of b."""
        lanes = [n + o if o < BLOCK else total + n + o - BLOCK for n in blocks for o in order]
        return asm.shuffle(a, b, lanes)

    low, high = (0, 4, 1, 5), (2, 6, 3, 7)
    low_pair, high_pair = (0, 1, 4, 5), (2, 3, 6, 7)
    r0, r1, r2, r3 = rows
    a, b = unpack(r0, r1, low), unpack(r0, r1, high)
    c, d = unpack(r2, r3, low), unpack(r2, r3, high)
    return [
        unpack(a, c, low_pair),
        unpack(a, c, high_pair),
        unpack(b, d, low_pair),
        unpack(b, d, high_pair),
    ]


def row_groups(lanes: int, columns: int) -> list[list[int]]:
    """For each vector of a loaded block, the rows it holds side by side."""
    per_vector = lanes // columns
    groups = columns // BLOCK
    span = lanes // groups
    return [
        [g * span + BLOCK * p + i for p in range(per_vector)]
        for g in range(groups)
        for i in range(BLOCK)
    ]


def emit_load_transposed(
    asm: Assembler, columns: int, load_row: Callable[[int, int], Value]
) -> list[Value]:
    """Vectors of one column each, one row a lane.

    ``load_row(row, width)`` loads the first ``width`` floats of a row; ``columns`` is a width
    that `padded_columns` gives.
    """
    rows = []
    for group in row_groups(asm.lanes, columns):
        parts = [load_row(row, columns) for row in group]
        while len(parts) > 1:
            parts = [_concatenate(asm, *parts[n : n + 2]) for n in range(0, len(parts), 2)]
        rows.append(parts[0])
    return _emit_columns(asm, columns, rows)


def _concatenate(asm: Assembler, a: Value, b: Value) -> Value:
    return asm.shuffle(a, b, list(range(2 * a.ir.type.count)))


def _emit_columns(asm: Assembler, columns: int, rows: Sequence[Value]) -> list[Value]:
    groups = columns // BLOCK
    turned = [_transpose_4x4(asm, rows[BLOCK * g : BLOCK * (g + 1)]) for g in range(groups)]
    if groups == 1:
        return turned[0]
    result: list[list[Value]] = [[] for _ in range(groups)]
    for c in range(BLOCK):
        stack = [turned[g][c] for g in range(groups)]
        for block, vector in enumerate(_transpose_blocks(asm, stack)):
            result[block].append(vector)
    return [vector for block in result for vector in block]


def _transpose_blocks(asm: Assembler, stack: Sequence[Value]) -> list[Value]:
    """From G vectors, vector b: block b of every period of G blocks, of all of them in order."""
    blocks = asm.lanes // BLOCK
    if len(stack) == 2:
        a, b = stack
        pairs = []
        for phase in range(2):
            mine = list(range(phase, blocks, 2))
            pairs.append(_block_shuffle(asm, a, b, mine + [blocks + n for n in mine]))
        return pairs
    a, b, c, d = stack
    even, odd = [0, 2, 4, 6], [1, 3, 5, 7]
    ab = _block_shuffle(asm, a, b, even), _block_shuffle(asm, a, b, odd)
    cd = _block_shuffle(asm, c, d, even), _block_shuffle(asm, c, d, odd)
    return [
        _block_shuffle(asm, ab[0], cd[0], even),
        _block_shuffle(asm, ab[1], cd[1], even),
        _block_shuffle(asm, ab[0], cd[0], odd),
        _block_shuffle(asm, ab[1], cd[1], odd),
    ]


def emit_rows(asm: Assembler, vectors: Sequence[Value]) -> list[tuple[int, Value]]:
    """Turn up to ``lanes`` column vectors back into rows: (row, its floats) for every lane.

    The floats of a row come in vectors of `padded_columns` lanes, undefined beyond the columns.
    """
    columns = padded_columns(len(vectors), asm.lanes)
    filled = [*vectors] + [vectors[-1]] * (columns - len(vectors))
    groups = columns // BLOCK
    turned = [_transpose_4x4(asm, filled[BLOCK * g : BLOCK * (g + 1)]) for g in range(groups)]
    rows = []
    for r in range(BLOCK):
        stack = [turned[g][r] for g in range(groups)]
        wide = stack if groups == 1 else _interleave_blocks(asm, stack)
        for vector, numbers in zip(wide, _interleaved_rows(asm.lanes, groups, r), strict=True):
            rows += _split(asm, vector, numbers, columns)
    return sorted(rows, key=lambda item: item[0])


def _interleaved_rows(lanes: int, groups: int, r: int) -> list[list[int]]:
    """The rows in each vector of `_interleave_blocks`; block n of the input is row 4 n + r."""
    blocks = lanes // BLOCK
    if groups == 1:
        return [[BLOCK * n + r for n in range(blocks)]]
    if groups == 2:
        half = blocks // 2
        return [[BLOCK * (half * p + n) + r for n in range(half)] for p in range(2)]
    return [[BLOCK * n + r] for n in range(blocks)]


def _interleave_blocks(asm: Assembler, stack: Sequence[Value]) -> list[Value]:
    """From G vectors, whole rows: block n of every one of them side by side."""
    blocks = asm.lanes // BLOCK
    if len(stack) == 2:
        a, b = stack
        half = blocks // 2
        orders = [
            [m for n in range(half * p, half * (p + 1)) for m in (n, blocks + n)] for p in range(2)
        ]
        return [_block_shuffle(asm, a, b, order) for order in orders]
    return _transpose_blocks(asm, stack)


def _split(
    asm: Assembler, vector: Value, numbers: Sequence[int], columns: int
) -> list[tuple[int, Value]]:
    if len(numbers) == 1:
        return [(numbers[0], vector)]
    return [
        (row, asm.shuffle(vector, None, list(range(n * columns, (n + 1) * columns))))
        for n, row in enumerate(numbers)
    ]
