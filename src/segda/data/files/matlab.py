"""Whole numbers from a MATLAB 5 file (.mat), for the official split of GTA5: no more than it needs, no dependency.

After the format's public description ("MAT-File Format", The MathWorks): a header of 128 bytes, then elements of a tag
(type, bytes), content and padding to 8 bytes; small ones (4 bytes at most) have all of it in 8 bytes. Compressed
elements hold one element. Everything but real arrays of numbers is passed over.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

MATRIX, COMPRESSED = 14, 15
NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
ARRAYS = frozenset(range(6, 16))  # classes of arrays: double, single, and integers of 8 to 64 bits
BYTES = 64 << 20
"""A variable that unpacks to more is refused."""


def numbers(content: bytes, variable: str) -> list[int]:
    """The whole numbers in a variable, column by column. ValueError for another file, KeyError for no such variable."""
    if len(content) < 128 or content[126:128] not in (b"IM", b"MI"):
        raise ValueError("not a MATLAB 5 file")
    order = "<" if content[126:128] == b"IM" else ">"
    known = []
    for kind, element in _elements(content[128:], order):
        if kind == COMPRESSED:
            unpacker = zlib.decompressobj()
            try:
                inner = unpacker.decompress(element, BYTES)
            except zlib.error as error:
                raise ValueError(f"damaged ({error})") from None
            if unpacker.unconsumed_tail:
                raise ValueError(f"a variable of more than {BYTES} bytes")
            ((kind, element),) = _elements(inner, order)
        if kind != MATRIX:
            continue
        (_, flags), _, (_, name), *data = _elements(element, order)
        known.append(name.decode("ascii"))
        if known[-1] != variable:
            continue
        if struct.unpack(order + "I", flags[:4])[0] & 0xFF not in ARRAYS or not data or data[0][0] not in NUMBERS:
            raise ValueError(f"{variable} holds no numbers")
        values = np.frombuffer(data[0][1], order + NUMBERS[data[0][0]])
        if not (values == np.floor(values)).all():
            raise ValueError(f"{variable} holds numbers that are not whole")
        return values.astype(np.int64).tolist()
    raise KeyError(f"no variable {variable}, only {', '.join(known) or 'none'}")


def _elements(content: bytes, order: str) -> list[tuple[int, bytes]]:
    """(type, content) of the elements that follow each other. ValueError where one is longer than what is there."""
    found, at = [], 0
    while at + 8 <= len(content):
        kind, length = struct.unpack_from(order + "II", content, at)
        if kind >> 16:  # a small element: its length stands in the upper half of its type
            kind, length, start, at = kind & 0xFFFF, kind >> 16, at + 4, at + 8
        else:
            start = at + 8
            at = start + length + (-length % 8 if kind != COMPRESSED else 0)
        if start + length > len(content):
            raise ValueError("cut off")
        found.append((kind, content[start : start + length]))
    return found
