"""Lists of images in text files: a path a line, with the path of its label behind it or not; or names alone."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from segda.data.sets.trees import Tree
from segda.errors import DataError
from segda.ground.paths import expanded, regular

ENDINGS = (".txt", ".lst", ".csv")
"""What names of lists of images end with."""


def is_list(path: str | None) -> bool:
    return path is not None and path.lower().endswith(ENDINGS) and "{key}" not in path


def listed_files(tree: Tree, path: str) -> dict[str, str | None]:
    """Image -> label or None, as a list names them, from the tree's folder or from the list's own on. DataError for a
    list that is missing or empty, or a line that is no file.
    """
    file = tree.path(str(expanded(path)))
    found: dict[str, str | None] = {}
    for number, line in _lines(file):
        whole = _placed(tree, file, line) is not None  # a name may have a space
        parts = (
            [line] if whole else re.split(r"\s*[,;\t]\s*" if re.search(r"[,;\t]", line) else r"\s+(?=\S+\.\w+$)", line)
        )
        if len(parts) > 2:
            raise DataError(f"{file}: line {number} is no image, nor an image and its label; write a path or two")
        placed = [_placed(tree, file, part) for part in parts]
        image, label = placed[0], placed[1] if len(placed) == 2 else None
        if image is None:
            raise DataError(
                f"{file}: line {number}: {parts[0]} is no file (from {tree.folder} on); where a list has names alone, "
                "give the folder as images: and the list as only:"
            )
        if image in found:
            raise DataError(f"{file}: line {number}: {parts[0]} is listed twice; remove one of the lines")
        found[image] = label if label is not None else parts[1] if len(parts) == 2 else None
    if any(found.values()) and not all(found.values()):
        lacking = next(image for image, label in found.items() if label is None)
        raise DataError(f"{file}: {lacking} has no label beside it, and others have; write one on its line")
    return found


def listed_names(tree: Tree, path: str, images: list[str]) -> list[str]:
    """Those of the images that a list names: by their paths or names, with or without folders and endings. DataError
    for a line that is none of them.
    """
    file = tree.path(str(expanded(path)))
    known: dict[str, list[str]] = {}
    for image in images:
        known.setdefault(PurePosixPath(image).stem, []).append(image)
        known.setdefault(PurePosixPath(image).name, []).append(image)
    chosen: dict[str, None] = {}
    for number, line in _lines(file):
        name = PurePosixPath(line)
        here = [image for image in known.get(name.name, ()) if agree(name, PurePosixPath(image))]
        if not here:
            raise DataError(f"{file}: line {number}: there is no image {line}; correct the list, or images")
        if len(set(here)) > 1:
            raise DataError(f"{file}: line {number}: {line} may be {here[0]} or {here[1]}; write more of its path")
        chosen[here[0]] = None
    return [image for image in images if image in chosen]


def agree(one: PurePosixPath, other: PurePosixPath) -> bool:
    """Whether two paths have the same folders, as far as both have them."""
    return all(a == b for a, b in zip(one.parent.parts[::-1], other.parent.parts[::-1], strict=False))


def _lines(file: Path) -> list[tuple[int, str]]:
    """The lines that are not empty, each with its number."""
    try:
        lines = regular(file).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: no list of images that can be read ({error}); correct the YAML file") from None
    found = [
        (number, line.strip()) for number, line in enumerate(lines, 1) if line.strip() and not line.startswith("#")
    ]
    if not found:
        raise DataError(f"{file}: names no image; write a path a line")
    return found


def _placed(tree: Tree, file: Path, name: str) -> str | None:
    """A path of the list as one of the tree; None where there is no such file."""
    if tree.path(name).is_file():
        return str(PurePosixPath(name))
    beside = file.parent / name
    if beside.is_file():
        return str(beside.relative_to(tree.folder)) if beside.is_relative_to(tree.folder) else str(beside)
    return None
