"""How folders of images and labels belong together: which files there are, and what their names have in common.

`lay_out` finds the paths that a YAML file of data/sets/folders.py says: of images `photos/**/{key}_rgb`, of labels
`masks/**/{key}_mask`. It tries what images and labels may have before and behind their keys, and takes what gives the
most images a label.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from unicodedata import normalize

from segda.data.files.photos import SUFFIXES as PHOTOS
from segda.data.files.photos import way_from
from segda.data.labels.annotations import BRUSHES, exports_beside
from segda.data.labels.annotations import SUFFIXES as ANNOTATIONS
from segda.data.labels.own_labels import LOSSY, PICTURES
from segda.data.labels.shapes import Names
from segda.data.sets.own_labels import Annotated
from segda.data.sets.trees import Tree
from segda.errors import RecipeError

LABELS = (*PICTURES, ".npy", ".json")
"""What names of labels end with."""

TRIED = 50
"""Images whose names are compared with those of all labels."""

LIKELY = 5
"""Ways of naming labels, of those seen most, that are tried on all images."""

PREFERRED = ("", "_mask", "_labelIds", "_labelTrainIds")
"""Of ways of naming labels that serve as many images, the last that a name ends with is taken."""

EDGES = "_-. "
"""Where what all names have in common may end."""

CLASSES = 2
"""Folders, at least, that are taken for those of classes."""


@dataclass(frozen=True)
class Affixes:
    """What a name has before and behind its key, without its ending."""

    before: str = ""
    behind: str = ""

    def key(self, stem: str) -> str | None:
        """Of a name; None where it is none of these, or nothing but these."""
        long = len(self.before) + len(self.behind) < len(stem)
        return stem[len(self.before) : len(stem) - len(self.behind)] if long and self._has(stem) else None

    def _has(self, stem: str) -> bool:
        return stem.startswith(self.before) and stem.endswith(self.behind)

    def of(self, key: str) -> str:
        return f"{self.before}{key}{self.behind}"


@dataclass(frozen=True)
class Layout:
    """Files that were found, by their paths from the folders on.

    images: the path that they all have, as a YAML file says it, from its folder on; "" where the folder alone does.
    labels: the same of their labels; None where there are none. pairs: image -> its labels, one or one of each class.
    classes: those that labels have a folder each of. lone: labels that no image has.
    """

    images: str
    labels: str | None
    pairs: dict[str, tuple[str, ...]]
    classes: tuple[str, ...] = ()
    lone: int = 0

    @property
    def with_label(self) -> list[str]:
        """The images that have a label."""
        return [image for image, labels in self.pairs.items() if labels]

    @property
    def labelled(self) -> int:
        return len(self.with_label)


def lay_out(images: Path, labels: Path | None = None) -> Layout:
    """What lies in a folder of images, and in one of labels, which may be the same, or a file that has all of them.
    RecipeError where there is no image, and where no image has a label.
    """
    photos = _photos(images)
    if labels is None:
        return Layout(_path(photos, Affixes()), None, dict.fromkeys(photos, ()))
    if labels.is_file():
        return _annotated(images, photos, labels)
    same = os.path.realpath(images) == os.path.realpath(labels)
    found = files_in(labels, LABELS)
    if not found:
        lossy = files_in(labels, LOSSY)
        why = (
            f" ({lossy[0]} and others change values where areas meet: export them as PNG; or are they the photographs?)"
            if lossy
            else _others(labels)
        )
        raise RecipeError(f"{labels}: no labels there{why}; a label ends with {', '.join(LABELS)}")
    folders = None if same else _class_folders(photos, found)
    if folders is not None:
        return folders
    ways = list(_ways(photos, found, same))
    if not ways:
        image, label = photos[0], next((one for one in found if not same or one != photos[0]), found[0])
        raise RecipeError(
            f"{labels}: no label has the name of an image: {images / image} is there, and {labels / label}; name them "
            "alike (a key that both have), or write the paths into a YAML file (docs/DATA.md, Folders of your own)"
        )
    return max(ways, key=lambda way: (way.labelled, _preference(way.labels or ""), -way.lone))


def _annotated(images: Path, photos: list[str], labels: Path) -> Layout:
    """One file that has the shapes of all images by their names: COCO's, Label Studio's or CVAT's."""
    if labels.suffix.lower() not in ANNOTATIONS:
        raise RecipeError(
            f"{labels}: is a file, and no JSON or XML of an annotation tool{way_from([labels.name])}; give the folder "
            "of the labels"
        )
    every = {photo: {"key": PurePosixPath(photo).stem} for photo in photos}
    told = Annotated(labels, list(every.items()), every, Names({}, 0))
    pairs: dict[str, tuple[str, ...]] = {photo: ("",) if told.there(i) else () for i, photo in enumerate(photos)}
    if not any(pairs.values()):
        raise RecipeError(f"{labels}: names none of the images of {images}, which has {photos[0]}; give their folder")
    return Layout(_path(photos, Affixes()), "", pairs)


def named_by(labels: Path) -> Path:
    """Where it is said which image labels belong to: of a folder of Label Studio's PNGs, whose names do not say it, its
    JSON export beside them. RecipeError where that is not there.
    """
    found = files_in(labels, LABELS) if labels.is_dir() else []
    brushes = [path for path in found if BRUSHES.fullmatch(PurePosixPath(path).stem)]
    if not brushes:
        return labels
    exports = exports_beside(labels)
    if len(exports) != 1:
        there = f"there are {' and '.join(map(str, exports))}" if exports else "there is none in the folder or above it"
        raise RecipeError(
            f"{labels / brushes[0]}: is a file of Label Studio, whose name says no image; the export JSON (or -MIN) "
            f"does and has the same brushes, and {there}: give it, --labels FILE.json"
        )
    return exports[0]


def files_in(folder: Path, endings: tuple[str, ...]) -> list[str]:
    """Paths from the folder on, sorted, of what is in it at any depth and not hidden. RecipeError where it is none."""
    if folder.is_file():
        raise RecipeError(f"{folder}: is a file, and no folder{way_from([folder.name])}; give a folder")
    if not folder.is_dir():
        raise RecipeError(f"{folder}: no such folder; give the one that your images (or labels) are in")
    every = Tree(folder).matches(("**/*",))
    return [path for path in every if path.lower().endswith(endings) and not (folder / path).is_dir()]


def _photos(folder: Path) -> list[str]:
    """The images of a folder. RecipeError where there is none."""
    photos = files_in(folder, PHOTOS)
    if not photos:
        raise RecipeError(f"{folder}: no images there{_others(folder)}; an image ends with {', '.join(PHOTOS)}")
    return photos


def _others(folder: Path) -> str:
    """What lies in a folder in place of what was looked for."""
    names = [path.name for path in sorted(folder.iterdir()) if path.is_file()]
    kinds = Counter(PurePosixPath(name).suffix.lower() or name for name in names)
    seen = ", ".join(f"{count} {ending}" for ending, count in kinds.most_common(3)) or "no files"
    return f" ({seen}){way_from(names)}"


def _parts(path: str) -> tuple[str, str]:
    """Folder and stem, letters with their accents in one, as in own_labels.py."""
    at = PurePosixPath(normalize("NFC", path))
    return str(at.parent), at.stem


def _path(files: Iterable[str], affixes: Affixes, ending: str = "") -> str:
    """What the paths have in common, from their folder on; "" for all files of one folder."""
    deep = "**/" if any("/" in file for file in files) else ""
    if not deep and affixes == Affixes() and not ending:
        return ""
    return f"{deep}{affixes.of('{key}')}{ending}"


def _class_folders(photos: list[str], labels: list[str]) -> Layout | None:
    """Labels that lie in a folder for each class, each named as its image: masks/road/a.png."""
    if any("/" in photo for photo in photos):
        return None
    stems = {PurePosixPath(photo).stem: photo for photo in photos}
    by_class: dict[str, dict[str, str]] = {}
    for label in labels:
        folder, stem = _parts(label)
        if folder == "." or "/" in folder:
            return None
        by_class.setdefault(folder, {})[stem] = label
    if len(by_class) < CLASSES or any(not masks.keys() <= stems.keys() for masks in by_class.values()):
        return None
    pairs = {photo: tuple(masks[stem] for masks in by_class.values() if stem in masks) for stem, photo in stems.items()}
    return Layout("", "{class}/{key}", pairs, tuple(by_class))


def _ways(photos: list[str], labels: list[str], same: bool) -> Iterator[Layout]:
    """The ways in which labels may belong to images, that give one a label at least."""
    image_stems = [_parts(photo)[1] for photo in photos]
    label_stems = Counter(_parts(label)[1] for label in labels)
    for before in dict.fromkeys(("", _common_begin(image_stems))):
        for behind in dict.fromkeys(("", _common_end(image_stems))):
            own = Affixes(before, behind)
            keys = [key for stem in image_stems if (key := own.key(stem)) is not None]
            chosen = keys[:: max(1, len(keys) // TRIED)][:TRIED]
            seen = Counter(Affixes(*stem.split(key, 1)) for key in chosen for stem in label_stems if key in stem)
            for theirs, _ in seen.most_common(LIKELY):
                if same and theirs == own:
                    continue
                for mirrored in (True, False):
                    way = _paired(photos, labels, own, theirs, mirrored, same)
                    if way.labelled:
                        yield way


def _paired(photos: list[str], labels: list[str], own: Affixes, theirs: Affixes, mirrored: bool, same: bool) -> Layout:
    """Images with the labels that are named so. mirrored: labels lie in folders as their images do."""
    by_key: dict[tuple[str, str], str] = {}
    for label in labels:
        folder, stem = _parts(label)
        if (key := theirs.key(stem)) is not None and (mirrored or folder == "."):
            by_key.setdefault((folder if mirrored else "", key), label)
    own_labels = set(by_key.values()) if same else set()
    images = [photo for photo in photos if photo not in own_labels]
    pairs: dict[str, tuple[str, ...]] = {}
    for photo in images:
        folder, stem = _parts(photo)
        if (own_key := own.key(stem)) is not None:
            found = by_key.get((folder if mirrored else "", own_key))
            pairs[photo] = () if found is None else (found,)
    used = {label for found in pairs.values() for label in found}
    # Beside each other, images and labels are told apart by their endings too.
    ending = _ending(pairs) if same else ""
    deep = any("/" in photo for photo in pairs)
    images_path = _path(pairs, own, ending)
    labels_path = _path(used if mirrored and deep else (), theirs, _ending(used) if same else "")
    if images_path and not labels_path:
        labels_path = "{key}"
    if labels_path and not images_path:
        images_path = "{key}"
    return Layout(images_path, labels_path, pairs, (), len(by_key) - len(used))


def _ending(files: Iterable[str]) -> str:
    """That of most of the files."""
    counts = Counter(PurePosixPath(file).suffix for file in files)
    return counts.most_common(1)[0][0] if counts else ""


def _preference(path: str) -> int:
    return max((place for place, end in enumerate(PREFERRED) if path.removesuffix(".png").endswith(end)), default=0)


def _common_begin(stems: list[str]) -> str:
    """What all names begin with, up to an edge; "" where nothing would be left of one."""
    common = os.path.commonprefix(stems)  # noqa: RUF071  # letters are meant
    end = max(common.rfind(edge) for edge in EDGES) + 1
    return common[:end] if all(len(stem) > end for stem in stems) else ""


def _common_end(stems: list[str]) -> str:
    """What all names end with, from an edge on."""
    common = os.path.commonprefix([stem[::-1] for stem in stems])[::-1]  # noqa: RUF071
    starts = [at for at in (common.find(edge) for edge in EDGES) if at >= 0]
    if not starts:
        return ""
    end = common[min(starts) :]
    return end if all(len(stem) > len(end) for stem in stems) else ""
