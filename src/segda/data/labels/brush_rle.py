"""The run lengths of Label Studio's brush: those of the npm package @thi.ng/rle-pack.

Bits, the most significant first: 32 how many values follow, 5 the bits of a value less one, 4 times 4 the bits of a
run's length less one. Then runs: a bit whether one value repeats, 2 bits which of the four sizes its length has, the
length less one, and the value, or so many values. The values are the RGBA of each pixel, row by row; alpha tells where
the brush was. Label Studio's own reader asks for two dozen packages.
"""

from __future__ import annotations

import numpy as np


def brush(coded: bytes, size: tuple[int, int]) -> np.ndarray:
    """(H, W) bool: where the brush was, for size (height, width). ValueError for one of another size, or cut off."""
    return values_of(coded, 4 * size[0] * size[1]).reshape(*size, 4)[..., 3] > 0


def values_of(coded: bytes, wanted: int) -> np.ndarray:
    """(wanted,) uint8: the values. ValueError where they are not so many, or the bits end before they do."""
    bits = _Bits(coded)
    count, width = bits.take(32), bits.take(5) + 1
    if count != wanted or width > 8:
        raise ValueError(f"a brush of {count} values of {width} bits, where its picture has {wanted} of 8")
    sizes = [bits.take(4) + 1 for _ in range(4)]
    values = np.zeros(count, np.uint8)
    at = 0
    while at < count:
        repeats = bits.take(1)
        end = at + bits.take(sizes[bits.take(2)]) + 1
        if end > count:
            raise ValueError("a brush whose runs are longer than its picture")
        if repeats:
            values[at:end] = bits.take(width)
        else:
            values[at:end] = [bits.take(width) for _ in range(at, end)]
        at = end
    return values


class _Bits:
    """Bytes, taken bit by bit."""

    def __init__(self, content: bytes):
        self._content, self._at = content, 0

    def take(self, count: int) -> int:
        """The next bits as a number."""
        begin, end = self._at, self._at + count
        if end > 8 * len(self._content):
            raise ValueError("a brush that is cut off")
        self._at = end
        word = int.from_bytes(self._content[begin // 8 : -(-end // 8)], "big")
        return word >> (-end % 8) & ((1 << count) - 1)
