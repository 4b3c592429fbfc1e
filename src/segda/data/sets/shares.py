"""Shares of a split: so much of train for validation, whole sequences where the names show some.

Neighbouring frames of a video show the same thing: half of them in train and half in validation would measure how well
a network remembers.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

FRAME = re.compile(r"(.+)[\W_]+[A-Za-z]*\d+(?:[\W_]+[A-Za-z]\w*)?")
"""A stem that is a sequence and the number of a frame: aachen_000000_000019_leftImg8bit, 0006R0_f00930."""


@dataclass(frozen=True)
class Sequences:
    """names: the sequence of each image; all the same where none is seen. by: what shows it, "" where nothing does."""

    names: tuple[str, ...]
    by: str


def sequences_of(paths: Sequence[str]) -> Sequences:
    """The sequences of images: their folders where there are several, else what their names begin with."""
    folders = tuple(str(PurePosixPath(path).parent) for path in paths)
    if len(set(folders)) > 1:
        return Sequences(folders, "folder")
    begins = tuple(_begin(PurePosixPath(path).stem) for path in paths)
    # As many sequences as images are no sequences.
    if 1 < len(set(begins)) <= len(paths) / 2:
        return Sequences(begins, "name")
    return Sequences(("",) * len(paths), "")


def _begin(stem: str) -> str:
    found = FRAME.fullmatch(stem)
    return found[1] if found else stem.rstrip("0123456789")


def divided(paths: Sequence[str], shares: Mapping[str, float]) -> tuple[dict[str, list[int]], str]:
    """The images of each share, no image in two, and how they were chosen; the rest is the split's own.

    Whole sequences in an order that more images do not change, the first ones that come nearest to the share; where
    each is too long for that, the end of one. Without sequences the last images by name, numbers by their value. No
    share is empty, if there are images enough.
    """
    found = sequences_of(paths)
    ends = ""
    left = sorted(range(len(paths)), key=lambda i: _natural(paths[i]))
    of: dict[str, list[int]] = {}
    for i in left:
        of.setdefault(found.names[i], []).append(i)
    queue = sorted(of, key=lambda name: hashlib.sha256(name.encode()).digest())
    parts: dict[str, list[int]] = {}
    for name, share in shares.items():
        wanted = share * len(paths)
        taken: list[int] = []
        if found.by:
            for one in list(queue):
                if len(taken) + len(of[one]) / 2 <= wanted and len(queue) > 1:
                    taken += of[one]
                    queue.remove(one)
            if not taken:
                long = max(queue, key=lambda name: len(of[name]))
                count = min(max(1, round(wanted)), len(of[long]) - 1)
                of[long], taken = of[long][:-count], of[long][-count:]
                ends = "; of one the end alone, since whole ones are too long"
        else:
            count = min(max(1, round(wanted)), len(left) - 1)
            left, taken = left[: len(left) - count], left[len(left) - count :]
        parts[name] = sorted(taken)
    how = f"whole sequences, by {found.by}{ends}" if found.by else "the last by name; no sequences are seen"
    return parts, how


def _natural(path: str) -> list[tuple[int, str]]:
    """For an order in which frame 9 comes before frame 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path)]
