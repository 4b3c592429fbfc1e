"""Lists of classes that tools write beside labels, as the classes of a YAML file.

_classes.csv     Roboflow: `Pixel Value, Class`
labelmap.txt     CVAT: `# label:color_rgb:parts:actions`
classes.txt, obj.names, labels.txt     a name a line, whose number (from 0) is the id; labelme's begins with
                 __ignore__ and _background_, of which the first is no class and -1
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from segda.errors import RecipeError
from segda.ground.paths import regular

NAMES = ("_classes.csv", "labelmap.txt", "classes.txt", "obj.names", "labels.txt")
"""What such lists are called."""

LABELME_IGNORED = "__ignore__"


def classes_in(path: Path) -> dict[str, dict[str, Any]]:
    """Name -> {id: ...} or {colour: ...}. RecipeError for a list that is missing, empty or none."""
    try:
        lines = [line.strip() for line in regular(path).read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(
            f"{path}: no list of classes that can be read ({error}); write classes: {{NAME: {{id: 0}}}}"
        ) from None
    try:
        if path.suffix.lower() == ".csv":
            found = _roboflow(lines)
        elif any(line.count(":") >= 3 for line in lines):
            found = _cvat(lines)
        else:
            begin = -1 if lines and lines[0] == LABELME_IGNORED else 0
            numbered = enumerate(lines, begin)
            found = [(name, {"id": id}) for id, name in numbered if id >= 0]
    except ValueError as error:
        raise RecipeError(f"{path}: is no list of classes ({error}); write classes: {{NAME: {{id: 0}}}}") from None
    if not found:
        raise RecipeError(f"{path}: names no class; write classes: {{NAME: {{id: 0}}}}")
    classes: dict[str, dict[str, Any]] = {}
    for name, one in found:
        if name in classes:
            raise RecipeError(f"{path}: names {name} twice; keep one of the lines")
        classes[name] = one
    return classes


def _roboflow(lines: list[str]) -> list[tuple[str, dict[str, Any]]]:
    rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO("\n".join(lines)))]
    pairs = [row for row in rows if row and row[0].isdigit()]
    if len(pairs) < len(rows) - 1 or not all(len(row) == 2 and row[1] for row in pairs):
        raise ValueError("a line that is no value and name")
    return [(name, {"id": int(value)}) for value, name in pairs]


def _cvat(lines: list[str]) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for line in lines:
        if line.startswith("#"):
            continue
        name, colour, *_ = line.split(":")
        levels = [int(level) for level in colour.split(",")]
        if len(levels) != 3:
            raise ValueError(f"{line!r:.60} has no colour")
        found.append((name, {"colour": levels}))
    return found
