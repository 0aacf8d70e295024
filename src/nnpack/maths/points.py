"""Where Cook-Toom algorithms evaluate polynomials."""

from __future__ import annotations

import math

_PAIRS_IN_EIGHTHS: dict[int, tuple[int, ...]] = {
    2: (5,),
    3: (8,),
    4: (3, 10),
    5: (5, 12),
    6: (2, 7, 14),
    7: (4, 8, 16),
    8: (2, 5, 9, 18),
    9: (3, 7, 10, 19),
    10: (2, 5, 7, 11, 21),
    11: (3, 6, 8, 12, 22),
    12: (1, 4, 6, 9, 12, 24),
    13: (3, 5, 7, 9, 13, 26),
}
"""Positive halves of the pairs +p, -p, by the number of finite points; an odd number includes 0.

Of all pairs of multiples of 1/8 up to 4 these have the least ``CookToom.amplification`` in
F(t - 2, 3), found by exhaustion up to 9 points and by exchanging two pairs at a time beyond.  They
depend on the number of points almost alone: for no other F(m, r) of the same t up to 10 is another
choice better by more than 1 %.  An even number without 0 beats 0, pairs and a single point, whose
error is 17 to 32 % greater.
"""


def best_points(count: int) -> tuple[float, ...]:
    """``count`` finite points for the least expected error: pairs +p, -p, after 0 if it is odd.

    Beyond the table they are nearly equidistant as angles arctan p, which the best ones are too.
    All are fractions of a power of two, so that these numbers are exact.
    """
    eighths = _PAIRS_IN_EIGHTHS.get(count)
    if eighths is not None:
        sizes = [n / 8 for n in eighths]
    else:
        angles = [
            math.pi * (j + 1 - 0.5 * (count % 2 == 0)) / (count + 1) for j in range(count // 2)
        ]
        sizes = [round(64 * math.tan(angle)) / 64 for angle in angles]
    return (*(0.0,) * (count % 2), *(q for p in sizes for q in (p, -p)))
