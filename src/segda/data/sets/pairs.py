"""Which image of one data set is the reference of which image of another: the same place by day, in normal conditions.

`partners` finds them by a list of the user's; without one by what is known of the two data sets (RULES), else by name.

ACDC's reference of an image has its key, with `_rgb_ref_anon` behind it. Dark Zurich pairs its training images in the
lists of `corresp/` (`corresp/train/night/...csv`: a line `train/night/GOPR0351/GOPR0351_frame_000001,train/day/...`),
and those of val and test by name: `val/night/GOPR0356/KEY_rgb_anon.png` with `val_ref/day/GOPR0356_ref/KEY_ref..._rgb_
anon.png`. A drawn street by day is the reference of the street of the same number at night.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from segda.data.files.archives import read_bytes
from segda.data.sets.dataset import DataSet, Part
from segda.data.sets.files import FileSet
from segda.data.stream.augment import same_shape
from segda.errors import DataError, ImageError, RecipeError

CORRESPONDENCES = ("corresp/{split}/*.csv", "corresp/{split}/*/*.csv", "corresp/{split}/*/*/*.csv")

HEADER = ("image", "reference")
"""A first line that a list may have."""

NAMED = 3
"""How many of the images without a reference a message names."""

Pair = tuple[str, str]
"""An image and its reference, as a list calls them."""

Found = list[list[int]]
"""The references that each image may have."""


def partners(
    images: DataSet,
    references: DataSet,
    pairs: Path | None = None,
    block: str = "data.reference",
    key: str = "data.reference.set",
) -> np.ndarray:
    """(N,) the number in `references` of each image's reference.

    pairs: a list with a line `image,reference` for each image, called by their names or paths, with or without what
    they end with; lines of other images do not matter. None: the rule of the two data sets, else the same name.
    block, key: what asks for them, and its key that names the references, for messages.
    RecipeError or DataError, for all images at once, where one has no reference, or several.
    """
    if references.shares is not None:
        raise RecipeError(
            f"{key}: {references.spec}: weights have no effect, since a reference comes with its image; leave out the *"
        )
    absent: dict[int, str] = {}
    if pairs is None:
        found, how = _by_rule(images, references)
    else:
        found, absent = _listed(images, references, _user_pairs(pairs), str(pairs))
        how = f"by {pairs}"
    several = [i for i, candidates in enumerate(found) if len(set(candidates)) > 1]
    if several:
        first = several[0]
        both = " and ".join(references.names[j] for j in sorted(set(found[first]))[:2])
        raise DataError(
            f"{block}: {len(several)} of {len(images)} images of {images.spec} have several references in "
            f"{references.spec} ({how}), first {images.names[first]}: {both}; say which with {block}.pairs"
        )
    lacking = [i for i, candidates in enumerate(found) if not candidates]
    if lacking:
        told = [images.names[i] + (f" (no {absent[i]} there)" if i in absent else "") for i in lacking[:NAMED]]
        more = ", ..." if len(lacking) > NAMED else ""
        raise DataError(
            f"{block}: {len(lacking)} of {len(images)} images of {images.spec} have no reference in "
            f"{references.spec} ({how}): {', '.join(told)}{more}; get the missing images, say with "
            f"{block}.pairs which belongs to which, or choose another {key}"
        )
    return np.array([candidates[0] for candidates in found])


def refuse_other_shapes(images: DataSet, references: DataSet, partner: np.ndarray, leave_out: bool = False) -> None:
    """DataError, for all pairs at once, where an image and its reference are not the same picture at two scales; looks
    at headers alone. leave_out: a damaged one is left to whoever reads it.
    """
    odd = []
    for i, j in enumerate(partner):
        try:
            (height, width), (tall, wide) = images.size(i), references.size(int(j))
        except ImageError:
            if not leave_out:
                raise
            continue
        if not same_shape((height, width), (tall, wide)):
            odd.append(
                f"{references.place(int(j))} is {wide}x{tall}, of another shape than the {width}x{height} of "
                f"{images.place(i)}, whose reference it is"
            )
    if odd:
        raise DataError(
            f"{odd[0]} ({len(odd)} of {len(images)} pairs are so); give references of the same shape, or other pairs"
        )


def _by_rule(images: DataSet, references: DataSet) -> tuple[Found, str]:
    """What the data sets' own rules say, else names; and why an image has none."""
    found: Found = []
    ways: dict[str, None] = {}
    for part in images.parts:
        mine: Found = [[] for _ in range(len(part))]
        rules = {other.spec: RULES.get((_name(part), _name(other))) for other in references.parts}
        begin = 0
        for other in references.parts:
            # A rule for one of the reference's parts leaves the others to that rule: names would pair by chance.
            rule = rules[other.spec] or (None if any(rules.values()) else _same_name)
            if rule is not None:
                ways[WAYS[rule]] = None
                for candidates, more in zip(mine, rule(part, other), strict=True):
                    candidates += [begin + j for j in more]
            begin += len(other)
        found += mine
    return found, "; ".join(ways)


def _name(part: Part) -> str:
    return part.spec.split(":")[0]


Rule = Callable[[Any, Any], Found]
"""Of one part of the images and one of the references, which are of the kind that the data sets' names tell."""


def _same_name(images: Part, references: Part) -> Found:
    known = defaultdict(list)
    for j, name in enumerate(references.names):
        known[name].append(j)
    return [known[name] for name in images.names]


def _same_number(images: Part, references: Part) -> Found:
    """Streets of one split: the same street in another weather."""
    count = len(references) if images.split == references.split else 0
    return [[i] if i < count else [] for i in range(len(images))]


def _same_place(images: FileSet, references: FileSet) -> Found:
    """ACDC: what tells an image's place (condition, sequence, key) is the same, as far as both layouts have it."""
    mine, theirs = ([data.fields_of(i) for i in range(len(data))] for data in (images, references))
    shared = sorted(mine[0].keys() & theirs[0].keys())
    known = defaultdict(list)
    for j, place in enumerate(theirs):
        known[tuple(place[one] for one in shared)].append(j)
    same = images.split == references.split
    return [known[tuple(place[one] for one in shared)] if same else [] for place in mine]


def _before_ref(images: FileSet, references: FileSet) -> Found:
    """Dark Zurich's val and test: the name of a reference begins with its image's key and `_ref`."""
    known = defaultdict(list)
    for j in range(len(references)):
        key, ref, _ = PurePosixPath(references.images[j]).name.partition("_ref")
        if ref:
            known[key].append(j)
    return [known[images.fields_of(i)["key"]] for i in range(len(images))]


def _corresponding(images: FileSet, references: FileSet) -> Found:
    """Dark Zurich's train: its own lists, which may be of other images as well."""
    templates = tuple(path.replace("{split}", images.split) for path in CORRESPONDENCES)
    lines: list[Pair] = []
    for name in images.tree.matches(templates):
        path = images.tree.path(name)
        for number, line in _rows(path, "download the archive again"):
            if len(line) < 2:
                raise DataError(f"{path}: line {number} is no pair of images; download the archive again")
            lines.append((line[0], line[1]))
    return _listed(images, references, lines, f"{images.folder}/corresp")[0]


RULES: dict[tuple[str, str], Rule] = {
    ("acdc", "acdc-ref"): _same_place,
    ("dark-zurich", "dark-zurich"): _corresponding,
    ("dark-zurich", "dark-zurich-ref"): _before_ref,
    ("streets", "streets"): _same_number,
}
"""Data set of the images, data set of the references -> how they belong together."""

WAYS: dict[Rule, str] = {
    _same_name: "looked for the same name",
    _same_place: "looked for the same condition, sequence and frame",
    _corresponding: "looked in its lists, corresp/",
    _before_ref: "looked for the same name before _ref",
    _same_number: "looked for the same number in the same split",
}


# Lists


def _user_pairs(path: Path) -> list[Pair]:
    """The pairs of a list of the user's. DataError for one that is missing or none."""
    lines: list[Pair] = []
    for number, line in _rows(path, "write a line image,reference for each image"):
        if len(line) != 2 or not all(line):
            raise DataError(f"{path}: line {number} is no pair; write image,reference, the name of an image each")
        if number > 1 or tuple(line) != HEADER:
            lines.append((line[0], line[1]))
    return lines


def _rows(path: Path, way_out: str) -> list[tuple[int, list[str]]]:
    """The lines of a CSV file that are not empty, each with its number."""
    try:
        lines = list(csv.reader(io.StringIO(read_bytes(path).decode("utf-8-sig"))))
    except FileNotFoundError:
        raise DataError(f"{path}: no such list of pairs; {way_out}") from None
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path}: is no list of pairs ({error}); {way_out}") from None
    return [(number, [cell.strip() for cell in line]) for number, line in enumerate(lines, 1) if line]


def _listed(images: DataSet, references: DataSet, lines: Iterable[Pair], where: str) -> tuple[Found, dict[int, str]]:
    """The references that lines name for each image, and what they call one that is not there.

    DataError for a name that several images have.
    """
    mine, theirs = _Names(images), _Names(references)
    found: Found = [[] for _ in range(len(images))]
    absent: dict[int, str] = {}
    for image, reference in lines:
        known = mine.find(image)
        if len(known) > 1:
            raise DataError(
                f"{where}: {image} can be {' or '.join(images.names[i] for i in known[:2])} of {images.spec}; write "
                "more of its path"
            )
        for i in known:
            candidates = theirs.find(reference)
            found[i] += candidates
            if not candidates:
                absent[i] = reference
    return found, absent


class _Names:
    """What the images of a data set can be called in a list."""

    def __init__(self, data: DataSet):
        self.known: dict[str, list[int]] = defaultdict(list)
        self.folders: list[Sequence[str]] = []
        identities = chain.from_iterable(part.identities() for part in data.parts)
        for i, (name, identity) in enumerate(zip(data.names, identities, strict=True)):
            part, k = data.at(i)
            self.folders.append(PurePosixPath(*identity).parent.parts)
            for called in {name, *part.called(k)}:
                self.known[called].append(i)

    def find(self, called: str) -> list[int]:
        """The images of a name or path. Its folders must be the image's last ones, as far as both are known."""
        path = PurePosixPath(called)
        folders = path.parent.parts
        return [i for i in self.known.get(path.name, ()) if self._agree(folders, self.folders[i])]

    @staticmethod
    def _agree(one: Sequence[str], other: Sequence[str]) -> bool:
        return all(a == b for a, b in zip(reversed(one), reversed(other), strict=False))
