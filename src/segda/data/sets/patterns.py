"""Paths of people's own files, with what varies in them: `images/**/{key}_rgb.jpg`.

`{key}` is what an image and its label have in common, `{class}` a class, `*` any part of a name, `**` any number of
folders. A star in the path of labels stands for what the same star (the first, the second ...) stands for in that of
images. What a name ends with counts without case; a pattern that says no ending takes any of a kind's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

from segda.data.sets.trees import Tree

VARYING = re.compile(r"\*\*/|\*\*|\*|\{key\}|\{class\}")
"""The parts of a path that vary."""


@dataclass(frozen=True)
class Pattern:
    """A path from a tree's folder on. endings: with their full stop, those that names may have behind it."""

    path: str
    endings: tuple[str, ...] = ()

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of what varies: key, class, and the stars by their kind and number."""
        return tuple(self._compiled.groupindex)

    @property
    def glob(self) -> str:
        """As it is shown, and walked."""
        shown = self.path.replace("{key}", "*").replace("{class}", "*")
        return shown if not self.endings else f"{shown}.*"

    def match(self, path: str) -> dict[str, str] | None:
        """What the fields stand for in a path; None where it is none of these."""
        found = self._compiled.fullmatch(path)
        return None if found is None else found.groupdict()

    def filled(self, fields: Mapping[str, str]) -> str:
        """A path, or the beginning of one where the pattern says no ending."""
        names = iter(self.fields)
        return VARYING.sub(lambda _: fields[next(names)], self.path)

    def found(self, tree: Tree) -> list[str]:
        """The files of a tree that match, sorted."""
        walked = self.path.replace("{key}", "*").replace("{class}", "*")
        folder, slash, name = walked.rpartition("/")
        # Endings count without case: what may be theirs is looked at here.
        stem = name if self.endings else PurePosixPath(name).stem
        begin = stem if stem.endswith("*") else f"{stem}*"
        return [path for path in tree.matches((f"{folder}{slash}{begin}",)) if self.match(path) is not None]

    @cached_property
    def _compiled(self) -> re.Pattern:
        counts = {"*": 0, "**": 0}
        parts, at = [], 0
        body, ending = self.path, ""
        if not self.endings:
            ending = PurePosixPath(self.path).suffix
            ending = ending if ending and not VARYING.search(ending) else ""
            body = body.removesuffix(ending)
        for one in VARYING.finditer(body):
            parts.append(re.escape(body[at : one.start()]))
            at, what = one.end(), one.group()
            if what in ("{key}", "{class}"):
                parts.append(f"(?P<{what[1:-1]}>[^/]+)")
                continue
            kind = what.rstrip("/")
            counts[kind] += 1
            inside = {"**/": r"(?:[^/]+/)*", "**": ".*", "*": "[^/]*"}[what]
            parts.append(f"(?P<{'deep' if kind == '**' else 'star'}{counts[kind]}>{inside})")
        parts.append(re.escape(body[at:]))
        endings = "|".join(map(re.escape, self.endings)) if self.endings else re.escape(ending)
        return re.compile("".join(parts) + f"(?i:{endings})")


def keyed(path: str) -> str:
    """A path as shells have it, `images/**/*.jpg`, with its last star as the key that images and labels share."""
    folder, slash, name = path.rpartition("/")
    if "{key}" in path or "{class}" in path or "*" not in name:
        return path
    if name == "**":
        return f"{path}/{{key}}"
    return f"{folder}{slash}{name.replace('*', '{key}', 1)}"


def tail(path: str) -> str:
    """What a path has from its first folder on that varies; its name where none does."""
    parts = path.split("/")
    first = next((at for at, part in enumerate(parts[:-1]) if VARYING.search(part)), len(parts) - 1)
    return "/".join(parts[first:])


def found_by(patterns: Iterable[Pattern], tree: Tree) -> dict[str, dict[str, str]]:
    """Path -> what its fields stand for, of all files of a tree that match one of the patterns; sorted."""
    every: dict[str, dict[str, str]] = {}
    for pattern in patterns:
        for path in pattern.found(tree):
            fields = pattern.match(path)
            assert fields is not None
            every.setdefault(path, fields)
    return dict(sorted(every.items()))
