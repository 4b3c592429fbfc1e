"""The files of a data set's folder: those that lie there, and those in its archives as if they were unpacked."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from segda.data.files.archives import members
from segda.data.rows import Archive
from segda.errors import DataError

FIELD = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Tree:
    """A folder with archives.

    packed: path in the folder -> where it is in an archive, if it does not lie unpacked.
    """

    folder: Path
    packed: dict[str, Path] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path, archives: tuple[Archive, ...]) -> Tree:
        """The tree of a folder with those of the archives that are there. DataError for a damaged one."""
        packed: dict[str, Path] = {}
        for archive in archives:
            if archive.name.endswith(".zip"):
                for found in sorted(folder.glob(archive.name)):
                    if found.is_file():
                        packed |= _placed(found, archive.holds)
        return cls(folder, packed)

    def path(self, name: str) -> Path:
        """Where a file of the tree is, or would be."""
        unpacked = self.folder / name
        return unpacked if name not in self.packed or unpacked.is_file() else self.packed[name]

    def matches(self, templates: tuple[str, ...]) -> list[str]:
        """Sorted paths in the folder that match any of the templates; hidden files are none. `**` is any depth."""
        found: set[str] = set()
        for template in templates:
            parts = pattern(template).split("/")
            # An absolute path, as a folder of one's own may have, begins with an empty component.
            found.update(_walk("" if parts[0] == "" else str(self.folder), parts, ""))
            if self.packed:
                known = re.compile("/".join(_part(part).pattern for part in parts))
                found.update(name for name in self.packed if known.fullmatch(name))
        return sorted(found)


def pattern(template: str) -> str:
    """The glob pattern of a path template."""
    return FIELD.sub("*", template)


def fields(path: str, templates: tuple[str, ...]) -> dict[str, str]:
    """What the fields of the template that matches `path` stand for."""
    for template in templates:
        if match := _fields(template).fullmatch(path):
            return match.groupdict()
    raise AssertionError(f"{path} matches none of {templates}")


@lru_cache(maxsize=1024)
def _fields(template: str) -> re.Pattern:
    escaped = re.escape(template).replace(r"\*", "[^/]*")
    return re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", escaped))


@lru_cache(maxsize=1024)
def _part(component: str) -> re.Pattern:
    """One component of a glob pattern; its `*` stands for no slash."""
    return re.compile("[^/]*".join(map(re.escape, component.split("*"))))


def _walk(folder: str, parts: list[str], before: str) -> Iterator[str]:
    """Paths of files below a folder that match the components, relative to where the walk began.

    Several times quicker than Path.glob, which makes an object of every file.
    """
    component, *rest = parts
    if component == "**":
        yield from _walk(folder, rest, before)
        for entry in _entries(folder):
            if entry.is_dir() and not _leads_up(entry):
                yield from _walk(entry.path, parts, f"{before}{entry.name}/")
        return
    if "*" not in component:
        below = f"{folder}/{component}"
        if rest:
            yield from _walk(below, rest, f"{before}{component}/")
        elif os.path.isfile(below):
            yield before + component
        return
    known = _part(component)
    for entry in _entries(folder):
        if not known.fullmatch(entry.name):
            continue
        if not rest:
            yield before + entry.name
        elif entry.is_dir():
            yield from _walk(entry.path, rest, f"{before}{entry.name}/")


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    """What lies in a folder and is not hidden; nothing in one that is not there."""
    try:
        entries = os.scandir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror}); check its permissions") from None
    with entries:
        yield from (entry for entry in entries if not entry.name.startswith("."))


def _leads_up(entry: os.DirEntry[str]) -> bool:
    """Whether it is a link to a folder that it lies in: a walk through it would not end."""
    if not entry.is_symlink():
        return False
    return Path(os.path.realpath(os.path.dirname(entry.path))).is_relative_to(os.path.realpath(entry.path))


def _placed(archive: Path, holds: str) -> dict[str, Path]:
    """Path in the folder -> path in the archive, for each of its files; see Archive.holds."""
    placed = {}
    for member in members(archive):
        _, _, inner = member.partition("/")
        name = next((one for one in (member, inner) if one.startswith(holds)), holds + member)
        placed[name] = archive / member
    return placed
