"""Which files are the images of somebody's split, which its labels, and what lies there where none are found."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path, PurePosixPath

from segda.data.files.photos import SUFFIXES
from segda.data.labels.annotations import BRUSHES, exports_beside
from segda.data.labels.annotations import SUFFIXES as ANNOTATIONS
from segda.data.labels.own_labels import LOSSY
from segda.data.sets.folders import OwnData
from segda.data.sets.image_lists import listed_names
from segda.data.sets.own_labels import ENDINGS
from segda.data.sets.patterns import Pattern, tail
from segda.data.sets.shares import divided
from segda.data.sets.told import Split
from segda.data.sets.trees import Tree
from segda.errors import DataError
from segda.ground.paths import expanded

Fields = Mapping[str, str]

MASK_WORDS = re.compile(r"(.+)[ ._-](?:masks?|labels?|labelIds|labelTrainIds|gt|seg|segmentation|annotation|colou?r)")
"""A stem that says that it is the label of another."""

SHOWN = 3
"""Names that a message gives as examples."""


def normal(path: str) -> str:
    """A path without what says nothing, such as `./`; "" for the folder itself."""
    plain = str(PurePosixPath(expanded(path)))
    return "" if plain == "." else plain


def inside(folder: str, name: str) -> str:
    """A path in a folder, which may be "", the root."""
    return f"{folder}/{name}" if folder else name


def _pattern(path: str, endings: tuple[str, ...]) -> Pattern:
    """A path with {key}; of one that says no ending, all of a kind count."""
    path = normal(path)
    return Pattern(path) if re.search(r"\.\w+$", path) else Pattern(path, endings)


def image_patterns(split: Split) -> tuple[Pattern, ...]:
    """Where the images of a split are."""
    images = str(split.images)
    if "{key}" in images:
        return (_pattern(images, SUFFIXES),)
    return (Pattern(inside(normal(images), "{key}"), SUFFIXES),)


def label_patterns(split: Split) -> tuple[Pattern, ...]:
    """Where its labels are: of a folder, below the same folders as images, or without them. None where it has none, or
    one file of annotations.
    """
    if split.labels is None or (split.labels.lower().endswith(ANNOTATIONS) and "{key}" not in split.labels):
        return ()
    if "{key}" in split.labels:
        return (_pattern(split.labels, ENDINGS),)
    folder, images = normal(split.labels), image_patterns(split)[0].path
    below, _, _ = tail(images).rpartition("/")
    every = dict.fromkeys((inside(folder, inside(below, "{key}")), inside(folder, "{key}")))
    return tuple(Pattern(path, ENDINGS) for path in every)


def labels_beside(split: Split, found: Mapping[str, Fields]) -> tuple[str, ...]:
    """Those of the files found as images that are labels of others: by the pattern of labels, or by names such as
    X_mask.png beside X.jpg.
    """
    stems = {_stem(path) for path in found}
    taken = {path for path in found if (by_name := MASK_WORDS.fullmatch(_stem(path))) and by_name[1] in stems}
    # A photograph comes before what is drawn of it: of X.jpg and X.png the label is X.png; of X.png and X_mask.png the
    # shorter name is the image's.
    order = sorted(found, key=lambda path: (_ending(path) not in LOSSY, len(path), path))
    for pattern in label_patterns(split):
        known = {path: fields for path in found if (fields := pattern.match(path)) is not None}
        of_key = {tuple(fields.values()): path for path, fields in known.items() if _ending(path) not in LOSSY}
        for path in order:
            label = of_key.get(tuple(found[path].get(name, "") for name in pattern.fields))
            if path not in taken and label not in (None, path):
                taken.add(str(label))
        if taken and PurePosixPath(pattern.path).name != "{key}":
            taken |= known.keys()  # labels whose image is missing are no images either
    return tuple(sorted(taken))


def _stem(path: str) -> str:
    return str(PurePosixPath(path).with_suffix(""))


def _name_stem(path: str) -> str:
    return PurePosixPath(path).stem


def _ending(path: str) -> str:
    return PurePosixPath(path).suffix.lower()


def chosen_of(own: OwnData, tree: Tree, split: str, every: list[str]) -> tuple[list[str], str]:
    """The images of a split among those of the split that says where they are, and how a share was chosen."""
    told = own.told.splits[split]
    if (only := own.source_of(split).only) is not None:
        every = listed_names(tree, only, every)
    source = told.of or split
    shares = {name: one.share for name, one in own.told.splits.items() if one.of == source and one.share is not None}
    if not shares:
        return every, ""
    if len(every) <= len(shares):
        raise DataError(
            f"{own.path}: splits.{source} has {len(every)} images, too few to take {len(shares)} shares of them"
        )
    parts, how = divided(every, shares)
    if empty := next((name for name, part in parts.items() if not part), None):
        raise DataError(
            f"{own.path}: splits.{empty}: the {len(every)} images of {source} are too few sequences for it ({how})"
        )
    taken = {i for part in parts.values() for i in part}
    numbers = parts[split] if split in parts else [i for i in range(len(every)) if i not in taken]
    return [every[i] for i in numbers], how


def image_names(spec: str, found: Mapping[str, Fields]) -> dict[str, str]:
    """Path -> a short name, no two the same: the stem, with its folders before it where stems come twice."""
    names = {path: PurePosixPath(path).stem for path in found}
    if len(set(names.values())) < len(names):
        shared = _shared_folders(found)
        names = {path: "_".join(PurePosixPath(path).with_suffix("").parts[shared:]) for path in found}
    owner: dict[str, str] = {}
    for path, name in names.items():
        if (other := owner.setdefault(name, path)) != path:
            raise DataError(
                f"{spec}: {other} and {path} would both be called {name!r}; say which are images by a path with "
                f"{{key}}, as {PurePosixPath(path).with_name('{key}' + PurePosixPath(path).suffix)}, or rename one"
            )
    return names


def _shared_folders(paths: Iterable[str]) -> int:
    """How many folders all paths begin with."""
    parents = [PurePosixPath(path).parent.parts for path in paths]
    first, last = min(parents), max(parents)
    return next((k for k, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))


def nothing_found(spec: str, tree: Tree, split: Split, name: str, labels: Sequence[str]) -> str:
    """Why a split has no image: its folder is missing, is empty, or holds other things."""
    images = str(split.images)
    where = f"splits.{name} in the YAML file"
    looked_for = " or ".join(str(tree.path(one.glob)) for one in image_patterns(split))
    if labels:
        return f"{spec}: {looked_for} are labels alone, such as {tree.path(labels[0])}; say which are images in {where}"
    if "{key}" not in images:
        folder = tree.path(normal(images))
        if folder.is_file():
            return f"{spec}: {folder} is a file, where images are a folder or a path with {{key}}; correct {where}"
        if not folder.is_dir():
            return f"{spec}: no images match {looked_for}, there is no folder {folder}; correct {where}"
        deep = Pattern(inside(normal(images), "**/{key}"), SUFFIXES).found(tree)
        if deep:
            way = f'images: "{inside(normal(images), "**/{key}")}"'
            first = tree.path(deep[0])
            return f"{spec}: no images match {looked_for}; {len(deep)} lie in subfolders, such as {first}: write {way}"
        kinds = Counter(path.suffix.lower() or path.name for path in folder.iterdir() if not path.name.startswith("."))
        if kinds:
            there = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(SHOWN))
            kinds_read = ", ".join(SUFFIXES)
            return f"{spec}: no images match {looked_for} (there are {there}); images are {kinds_read}; correct {where}"
    return f"{spec}: no images match {looked_for}; correct {where}"


def labels_seen(tree: Tree, split: Split, images: Sequence[str], taken: Set[Path]) -> str:
    """What lies where the labels of images were looked for, and the path that finds it; "" where that says nothing.
    taken: the labels of other images.
    """
    patterns = label_patterns(split)
    folder = re.split(r"[*{]", patterns[0].path)[0].rpartition("/")[0]
    there = [path for path in Pattern(inside(folder, "**/{key}"), ENDINGS).found(tree) if path not in images]
    there = [path for path in there if tree.path(path) not in taken]
    if not there:
        return "" if taken else f"there is no label in {tree.path(folder)}"
    brush = next((path for path in there if BRUSHES.fullmatch(PurePosixPath(path).stem)), None)
    if brush is not None:
        exports = exports_beside(tree.path(folder))
        if exports:
            file = os.path.relpath(exports[0], tree.folder)
            way = f"{exports[0]} names them and has the same brushes: write labels: {file}"
        else:
            way = "export JSON there, with its brushes, and write labels: FILE.json"
        return f"{tree.path(brush)} is a file of Label Studio, whose name says no image; {way}"
    fields = [image_patterns(split)[0].match(image) or {"key": _name_stem(image)} for image in images]
    ways: dict[str, set[str]] = defaultdict(set)
    for path in there[:2000]:
        for way in {way for found in fields for way in _ways(path, found)}:
            ways[way].add(path)
    example = f"{tree.path(there[0])} lies there"
    if ways:
        way, labels = max(sorted(ways.items()), key=lambda one: len(one[1]))
        return f'{example}: labels: "{way}" in the YAML file finds {len(labels)} of them'
    for image in map(PurePosixPath, images[:50]):
        part = next((stem for stem in map(_name_stem, there) if stem in image.stem), None)
        if part is not None:
            way = str(image.with_name(image.name.replace(part, "{key}", 1)))
            return f'{example}: images: "{way}" says which part of their names labels have'
    stems = {_name_stem(path).lower(): path for path in there}
    if other := next((image for image in images if _name_stem(image).lower() in stems), None):
        label = tree.path(stems[_name_stem(other).lower()])
        return f"{label} and {tree.path(other)} differ in upper and lower case alone; rename one of each two"
    shown = ", ".join(PurePosixPath(path).name for path in there[:SHOWN])
    return f"{tree.path(folder)} has {shown}{', ...' if len(there) > SHOWN else ''}, none of the same name"


def _ways(path: str, found: Fields) -> Iterator[str]:
    """Of a label's path, those of which it is one for what an image's fields stand for: the key in its name, once, and
    what else is the same in both.
    """
    folder, _, name = path.rpartition("/")
    for at in re.finditer(re.escape(found["key"]), name):
        before = inside(folder, name[: at.start()]).removeprefix("./")
        for field, value in found.items():
            if value and field.startswith("deep"):
                before = before.replace(value, "**/", 1)
            elif value and field.startswith("star"):  # a whole word: "a" is none of the masks'
                before = re.sub(rf"(?<![^\W_]){re.escape(value)}(?![^\W_])", "*", before, count=1)
        yield f"{before}{{key}}{name[at.end() :]}"
