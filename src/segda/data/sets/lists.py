"""Lists that belong to data sets: the images of a split, those at night, which image shows the same place by day."""

from __future__ import annotations

import csv
import io
import struct
from collections.abc import Callable
from pathlib import Path

from segda.data.files.archives import read_bytes
from segda.data.files.matlab import numbers
from segda.data.rows import Listed
from segda.errors import DataError


def listed(path: Path, kind: Listed, page: str) -> frozenset[str]:
    """The names in a list, without what they have behind them. DataError for a list that is missing or none."""
    try:
        content = read_bytes(path)
    except OSError:
        raise DataError(f"{path}: no such list of images; get it from {page} and see docs/DATA.md") from None
    try:
        names = READERS[kind.reader](content, kind.argument)
    except (ValueError, KeyError, csv.Error, struct.error) as error:
        raise DataError(f"{path}: is no such list ({type(error).__name__}: {error}); get it from {page}") from None
    return frozenset(name.removesuffix(kind.ending) for name in names)


def _lines(content: bytes, _: str) -> list[str]:
    """One path a line: their stems."""
    lines = content.decode("utf-8").splitlines()
    return [Path(line.strip()).stem for line in lines if line.strip()]


def _table(content: bytes, wanted: str) -> list[str]:
    """`column=value`: the `video` of each row of a CSV file that has the value there."""
    column, _, value = wanted.partition("=")
    return [row["video"] for row in csv.DictReader(io.StringIO(content.decode("utf-8"))) if row[column] == value]


def _matlab(content: bytes, variable: str) -> list[str]:
    """Numbers of images in a variable of a .mat file, five digits each."""
    return [f"{number:05d}" for number in numbers(content, variable)]


READERS: dict[str, Callable[[bytes, str], list[str]]] = {
    "lines": _lines,
    "table": _table,
    "numbers in MATLAB's file": _matlab,
}
"""How a list is read: its content and the argument of its Listed -> names."""
