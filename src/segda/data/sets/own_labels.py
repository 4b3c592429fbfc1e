"""Where the labels of somebody's own images are: a file each, a mask for each class, or one file of annotations.

Each kind knows of each image, by number, whether it has a label and where, and reads it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Protocol
from unicodedata import normalize

import numpy as np

from segda.data.labels.annotations import SUFFIXES, read_drawing, read_drawings
from segda.data.labels.own_labels import LOSSY, PICTURES, OwnColours, OwnIds, stored
from segda.data.labels.shapes import Drawing, Names, draw
from segda.data.sets.image_lists import agree
from segda.data.sets.patterns import Pattern, found_by
from segda.data.sets.trees import Tree
from segda.errors import DataError, nearest

ENDINGS = (*PICTURES, ".npy", ".json", *LOSSY)
"""What names of label files end with, the likeliest labels first; of the last it is said why they are none."""

Fields = Mapping[str, str]
Size = tuple[int, int]


class OwnLabels(Protocol):
    """The labels of a split's images."""

    def there(self, i: int) -> bool: ...

    def place(self, i: int) -> Path:
        """Where the label of image i is, or would be."""
        ...

    def files(self, i: int) -> list[Path]:
        """The files that it is read from."""
        ...

    def ids(self, i: int, size: Callable[[], Size]) -> np.ndarray:
        """(H, W) ids of image i. size: (height, width) of the image, asked for where the label does not say."""
        ...

    def spare(self) -> list[Path]:
        """Labels whose image is missing."""
        ...


@dataclass(frozen=True)
class LabelFiles:
    """A file for each image, by patterns of which the first that has one counts.

    images: path and fields of each. every: the fields of all that lie there, whatever split they are of.
    """

    tree: Tree
    patterns: tuple[Pattern, ...]
    images: Sequence[tuple[str, Fields]]
    every: Mapping[str, Fields]
    decoder: OwnIds | OwnColours
    names: Names

    def there(self, i: int) -> bool:
        return self._found[i] is not None and self.place(i).is_file()

    def place(self, i: int) -> Path:
        found = self._found[i]
        if found is None:
            first = self.patterns[0]
            found = first.filled(self.images[i][1]) + (first.endings[0] if first.endings else "")
        return self.tree.path(found)

    def files(self, i: int) -> list[Path]:
        return [self.place(i)]

    def ids(self, i: int, size: Callable[[], Size]) -> np.ndarray:
        path = self.place(i)
        if path.suffix.lower() not in SUFFIXES:
            return self.decoder(path)
        drawing = read_drawing(path)
        return draw(drawing, drawing.size or size(), self.names, str(path))

    def spare(self) -> list[Path]:
        spare = []
        for pattern, by_key in self._listed():
            known = {_key(pattern, fields) for fields in self.every.values()}
            spare += [paths[0] for key, paths in by_key.items() if key not in known]
        return [self.tree.path(path) for path in sorted(set(spare) - set(filter(None, self._found)))]

    def _listed(self) -> list[tuple[Pattern, dict[tuple[str, ...], list[str]]]]:
        """Of each pattern, the files by what they have in common with their image; the likeliest labels first."""
        found = []
        for pattern in self.patterns:
            by_key: dict[tuple[str, ...], list[str]] = defaultdict(list)
            for path, fields in found_by([pattern], self.tree).items():
                if path not in self.every:
                    by_key[_key(pattern, fields)].append(path)
            for paths in by_key.values():
                paths.sort(key=lambda path: ENDINGS.index(_ending(path)) if _ending(path) in ENDINGS else 0)
            found.append((pattern, by_key))
        return found

    @cached_property
    def _found(self) -> list[str | None]:
        found: list[str | None] = []
        owner: dict[str, str] = {}
        listed = self._listed()
        for image, fields in self.images:
            label = next((by[key][0] for pattern, by in listed if (key := _key(pattern, fields)) in by), None)
            if label is not None and (other := owner.setdefault(label, image)) != image:
                raise DataError(
                    f"{self.tree.path(label)} would be the label of {other} and of {image}; write in the path of "
                    "labels what tells them apart, with the stars of images"
                )
            found.append(label)
        return found


def _ending(path: str) -> str:
    return PurePosixPath(path).suffix.lower()


def _key(pattern: Pattern, fields: Fields) -> tuple[str, ...]:
    """What a label and its image have in common. macOS writes accents as letters of their own, others do not."""
    return tuple(normalize("NFC", fields.get(name, "")) for name in pattern.fields if name != "class")


@dataclass(frozen=True)
class ClassMasks:
    """A mask for each class that an image has: `masks/{class}/{key}.png`, 0 where it is not.

    Where masks overlap, the class that the YAML file names later counts.
    """

    tree: Tree
    pattern: Pattern
    images: Sequence[tuple[str, Fields]]
    every: Mapping[str, Fields]
    names: Names

    def there(self, i: int) -> bool:
        return bool(self._of(i))

    def place(self, i: int) -> Path:
        masks = self._of(i)
        first = next(iter(self.names.ids))
        ending = self.pattern.endings[0] if self.pattern.endings else ""
        return self.tree.path(
            next(iter(masks.values()), self.pattern.filled({**self.images[i][1], "class": first}) + ending)
        )

    def files(self, i: int) -> list[Path]:
        return [self.tree.path(path) for path in self._of(i).values()]

    def ids(self, i: int, size: Callable[[], Size]) -> np.ndarray:
        masks = self._of(i)
        ids: np.ndarray | None = None
        for name, id in self.names.ids.items():
            if name in masks:
                path = self.tree.path(masks[name])
                mask = _mask(path)
                if ids is None:
                    ids = np.full(mask.shape, self.names.rest, np.uint8)
                if ids.shape != mask.shape:
                    raise DataError(
                        f"{path} is {mask.shape[1]}x{mask.shape[0]}, and the image's other masks are not; export them "
                        "again"
                    )
                ids[mask] = id
        assert ids is not None
        return ids

    def spare(self) -> list[Path]:
        known = {_key(self.pattern, fields) for fields in self.every.values()}
        return [self.tree.path(next(iter(masks.values()))) for key, masks in self._found.items() if key not in known]

    def _of(self, i: int) -> dict[str, str]:
        """Class -> the path of its mask."""
        return self._found.get(_key(self.pattern, self.images[i][1]), {})

    @cached_property
    def _found(self) -> dict[tuple[str, ...], dict[str, str]]:
        found: dict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
        for path, fields in found_by([self.pattern], self.tree).items():
            if fields["class"] not in self.names.ids:
                raise DataError(
                    f"{self.tree.path(path)} is a mask of {fields['class']!r}, which is no class"
                    f"{nearest(fields['class'], self.names.ids)}; name it in the YAML file, under classes or as "
                    f"ignored: [{fields['class']}]"
                )
            if fields["class"] in found[_key(self.pattern, fields)]:
                other = found[_key(self.pattern, fields)][fields["class"]]
                raise DataError(f"{self.tree.path(path)} and {other} are masks of one class and image; remove one")
            found[_key(self.pattern, fields)][fields["class"]] = path
        return dict(found)


def _mask(path: Path) -> np.ndarray:
    """(H, W) bool of a mask of one class. DataError for one of more than two values."""
    values = stored(path).values
    if values.ndim == 3:
        if not (values == values[..., :1]).all():
            raise DataError(
                f"{path}: is a picture in colours, where a mask of one class is black and white; export it so"
            )
        values = values[..., 0]
    seen = np.unique(values)
    if len(seen) > 2 or (len(seen) == 2 and seen[0] != 0):
        listed = ", ".join(map(str, seen[:4]))
        raise DataError(
            f"{path}: has the values {listed}{', ...' if len(seen) > 4 else ''}, where a mask has 0 and one other"
        )
    return values > 0


@dataclass(frozen=True)
class Annotated:
    """One file of annotations for all images, by the names that the tool has of them."""

    file: Path
    images: Sequence[tuple[str, Fields]]
    every: Mapping[str, Fields]
    names: Names

    def there(self, i: int) -> bool:
        return self._named[i] is not None

    def place(self, i: int) -> Path:
        return self.file / (self._named[i] or PurePosixPath(self.images[i][0]).name)

    def files(self, i: int) -> list[Path]:
        return [self.file]

    def ids(self, i: int, size: Callable[[], Size]) -> np.ndarray:
        name = self._named[i]
        drawing = Drawing(None) if name is None else read_drawings(self.file)[name]
        return draw(drawing, drawing.size or size(), self.names, f"{self.file}: {name}")

    def bare(self, i: int) -> int:
        """How many of the shapes in image i have no area."""
        name = self._named[i]
        return 0 if name is None else read_drawings(self.file)[name].bare

    def spare(self) -> list[Path]:
        meant = {one for one in map(self._name_of, self.every) if one is not None}
        return [self.file / name for name in read_drawings(self.file) if name not in meant]

    @cached_property
    def _named(self) -> list[str | None]:
        names = [self._name_of(path) for path, _ in self.images]
        owner: dict[str, str] = {}
        for name, (path, _) in zip(names, self.images, strict=True):
            if name is not None and (other := owner.setdefault(name, path)) != path:
                raise DataError(
                    f"{self.file}: {name} would be the label of {other} and of {path}; give each a name of its own"
                )
        return names

    @cached_property
    def _by_stem(self) -> dict[str, list[tuple[PurePosixPath, str]]]:
        """Stem -> the paths of it, each with the name as the tool writes it."""
        known = defaultdict(list)
        for name in read_drawings(self.file):
            path = PurePosixPath(name.replace("\\", "/"))
            known[path.stem].append((path, name))
        return known

    def _name_of(self, image: str) -> str | None:
        """What the tool calls an image: the same name, and the same folders as far as both have them."""
        path = PurePosixPath(image)
        found = [(one, name) for one, name in self._by_stem.get(path.stem, ()) if agree(one, path)]
        if len(found) > 1:
            found = [(one, name) for one, name in found if one.name == path.name] or found
        if len(found) > 1:
            both = " or ".join(name for _, name in found[:2])
            raise DataError(f"{self.file}: {image} may be {both}; write more of the paths in the tool")
        return found[0][1] if found else None


@dataclass(frozen=True)
class ListedLabels:
    """Labels that a list names beside each image."""

    tree: Tree
    paths: Sequence[str]
    decoder: OwnIds | OwnColours

    def there(self, i: int) -> bool:
        return self.place(i).is_file()

    def place(self, i: int) -> Path:
        return self.tree.path(self.paths[i])

    def files(self, i: int) -> list[Path]:
        return [self.place(i)]

    def ids(self, i: int, size: Callable[[], Size]) -> np.ndarray:
        return self.decoder(self.place(i))

    def spare(self) -> list[Path]:
        return []


def overlapping(masks: ClassMasks, i: int) -> int:
    """Pixels of image i that are in the masks of several classes."""
    found = [_mask(path) for path in masks.files(i)]
    return int((np.sum(found, axis=0) > 1).sum()) if found else 0
