"""The data set that a YAML file tells of (folders.py): which files are its images, and what check-data says of them.

Images are found by a pattern (patterns.py), a folder or a list. What labels take is no image: tools put masks beside
photographs. Where names come twice, as in sequences, the folders are part of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np
from torch import Tensor

from segda.data.files.archives import state
from segda.data.files.images import content_of, header
from segda.data.files.photos import SUFFIXES, Facts, facts_of, read_photo
from segda.data.files.signed import is_signed
from segda.data.labels.annotations import SUFFIXES as ANNOTATIONS
from segda.data.labels.annotations import read_drawings
from segda.data.labels.own_labels import OwnIds
from segda.data.labels.spaces import UNKNOWN, Space
from segda.data.rows import Row
from segda.data.sets.files import FileSet, check_shown
from segda.data.sets.finding import (
    chosen_of,
    image_names,
    image_patterns,
    inside,
    label_patterns,
    labels_beside,
    labels_seen,
    normal,
    nothing_found,
)  # fmt: skip
from segda.data.sets.folders import OWN, OwnData, has_names, own_data
from segda.data.sets.image_lists import is_list, listed_files
from segda.data.sets.own_labels import Annotated, ClassMasks, LabelFiles, ListedLabels, OwnLabels, overlapping
from segda.data.sets.patterns import Pattern, found_by
from segda.data.sets.specs import FOLDER
from segda.data.sets.told import Split
from segda.data.sets.trees import Tree
from segda.errors import DataError
from segda.ground.paths import expanded

SHOWN = 3
"""Names that a message gives as examples."""


@dataclass(frozen=True)
class OwnFiles(FileSet):
    """One split of somebody's own images.

    varying: what the fields of its pattern stand for in each image. every: the same of all images that lie there,
    whatever split they are of. listed: the labels that a list names. beside: files that are labels beside the images.
    how: how a share was chosen.
    """

    own: OwnData
    varying: tuple[Mapping[str, str], ...]
    every: Mapping[str, Mapping[str, str]]
    listed: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    how: str = ""

    @classmethod
    def told_by(cls, spec: str, space: Space, row: Row, name: str, split: str) -> OwnFiles:
        """The files of a split; lists them and opens none. DataError where there are none."""
        own = own_data(name.removeprefix(FOLDER))
        tree, source = Tree(own.root), own.source_of(split)
        labels: dict[str, str | None] = {}
        beside: tuple[str, ...] = ()
        if is_list(source.images):
            labels = listed_files(tree, str(source.images))
            every: dict[str, dict[str, str]] = {path: {"key": PurePosixPath(path).stem} for path in labels}
        else:
            every = found_by(image_patterns(source), tree)
            beside = labels_beside(source, every)
            every = {path: fields for path, fields in every.items() if path not in beside}
            if not every:
                raise DataError(nothing_found(spec, tree, source, own.told.splits[split].of or split, beside))
        chosen, how = chosen_of(own, tree, split, list(every))
        for path in chosen:
            check_shown(path, f"{spec}: {path}")
        names = image_names(spec, every)
        return cls(
            spec, space, row, split, None, tree, tuple(names[path] for path in chosen), tuple(chosen),
            own, tuple(every[path] for path in chosen), every,
            tuple(str(labels[path]) for path in chosen if labels.get(path) is not None), beside, how,
        )  # fmt: skip

    @property
    def source(self) -> Split:
        """The split that says where its files are."""
        return self.own.source_of(self.split)

    def fields_of(self, i: int) -> dict[str, str]:
        return dict(self.varying[i])

    # Images

    @property
    def turned(self) -> bool:
        """Whether images are turned as their orientation tag says."""
        return self.own.told.orientation == "apply"

    def facts(self, i: int) -> Facts:
        """What the file of image i says of itself."""
        return facts_of(self.image_path(i))

    def size(self, i: int) -> tuple[int, int]:
        return self.facts(i).shown(self.turned)

    def image(self, i: int) -> Tensor:
        return read_photo(self.image_path(i), self.turned)

    # Labels

    @property
    def promised(self) -> bool:
        return self.source.labels is not None or bool(self.listed)

    @cached_property
    def labels(self) -> OwnLabels:
        """Where its labels are. DataError where the YAML file names none."""
        images = list(zip(self.images, self.varying, strict=True))
        if self.listed:
            return ListedLabels(self.tree, self.listed, self.own.decoder)
        if self.source.labels is None:
            raise DataError(
                f"{self.spec}: the split has no labels: splits.{self.split} in {self.own.path} names none; add labels: "
                "to it, or take it as a target"
            )
        labels = str(expanded(self.source.labels))
        if labels.lower().endswith(ANNOTATIONS) and "{key}" not in labels:
            return Annotated(self.own.root / labels, images, self.every, self.own.named)
        patterns = label_patterns(self.source)
        if "{class}" in labels:
            return ClassMasks(self.tree, patterns[0], images, self.every, self.own.named)
        return LabelFiles(self.tree, patterns, images, self.every, self.own.decoder, self.own.named)

    @property
    def has_names(self) -> bool:
        """Whether its labels say classes by colours or names, and not by ids."""
        return self.own.told.labels_are == "colours" or has_names(self.own.root, self.source)

    def label_name(self, i: int) -> str:
        place = self.labels.place(i)
        return str(place.relative_to(self.folder)) if place.is_relative_to(self.folder) else str(place)

    def label_path(self, i: int) -> Path:
        return self.labels.place(i)

    def label_files(self, i: int) -> list[Path]:
        return self.labels.files(i)

    def labelled(self, i: int) -> bool:
        return self.promised and self.labels.there(i)

    def labels_without_image(self) -> list[Path]:
        # Of a list's images, others may have labels in the same folder.
        return self.labels.spare() if self.promised and not is_list(self.source.images) else []

    def label_ids(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        ids = self.labels.ids(i, lambda: self.size(i))
        table = self.tables[OWN]
        if ids.dtype == np.uint8:
            return ids, table[:256]
        wide = np.full(1 << 16, UNKNOWN, np.uint8)
        wide[: len(table)] = table
        return ids, wide

    @cached_property
    def tables(self) -> dict[str, np.ndarray]:
        return {OWN: self.space.lookup(OWN, self.own.by_value(self.split))}

    def label_marks(self) -> Iterator[str]:
        told = f"{self.tables[OWN].tobytes().hex()} {self.own.decoder} {self.own.named}"
        for i in range(len(self)):
            files = [(path.name, *state(path)) for path in self.labels.files(i)]
            yield f"{self.label_name(i)} {files} {told}"

    def labelling_of(self, i: int) -> str:
        return OWN

    def way_to_labels(self, missing: int) -> str:
        found = self.hint()
        ways = (
            "put the labels there, correct labels: in the YAML file, or name the images that have one: only: FILE.txt"
        )
        return found or ways

    def differ(self, i: int, label: tuple[int, ...], image: tuple[int, ...]) -> str:
        return f"{super().differ(i, label, image)}{self._exif(i, label)}"

    def _exif(self, i: int, label: tuple[int, ...]) -> str:
        """What the orientation tag has to do with a label of another size."""
        facts = self.facts(i)
        if facts.orientation < 5 or label not in (facts.size, facts.size[::-1]):
            return ""
        what = (
            "turned as its EXIF orientation tag says"
            if self.turned
            else "not turned, though its EXIF orientation tag says so"
        )
        other = "ignore" if self.turned else "apply"
        return f" ({what}; the label fits with orientation: {other} in {self.own.path})"

    # What is known of it

    def notes(self, labels: int) -> list[str]:
        notes = []
        if self.how:
            of = self.own.told.splits[self.split].of
            notes.append(f"{self.spec}: {len(self)} of the {len(self.every)} images of {of or self.split} ({self.how})")
        if self.beside:
            first = self.tree.path(self.beside[0])
            notes.append(f"{self.spec}: {len(self.beside)} files are labels, not images, such as {first}")
        if deeper := self._deeper():
            folder = str(self.source.images).rstrip("/")
            notes.append(
                f"{self.spec}: {len(deeper)} more images in subfolders are left out, such as "
                f'{self.tree.path(deeper[0])}; images: "{folder}/**/{{key}}" takes them all'
            )
        if self.promised and labels < len(self) and (hint := self.hint()):
            notes.append(f"{self.spec}: {hint}")
        return notes

    def _deeper(self) -> list[str]:
        """Images below the folder that is given, in folders of it."""
        images = str(self.source.images)
        if is_list(images) or "{key}" in images:
            return []
        deep = Pattern(inside(normal(images), "**/{key}"), SUFFIXES)
        taken = label_patterns(self.source)
        return [
            path for path in deep.found(self.tree)
            if path not in self.every and path not in self.beside and not any(one.match(path) for one in taken)
        ]  # fmt: skip

    def hint(self) -> str:
        """What lies where labels were looked for, and the path that finds it; "" where nothing is seen."""
        if isinstance(self.labels, Annotated):
            names = list(read_drawings(self.labels.file))
            shown = ", ".join(names[:SHOWN])
            return f"{self.labels.file} has the images {shown}{', ...' if len(names) > SHOWN else ''}: none of these"
        missing = [i for i in range(len(self)) if not self.labels.there(i)]
        if not missing or isinstance(self.labels, ListedLabels):
            return ""
        taken = {self.labels.place(i) for i in range(len(self)) if i not in set(missing)}
        return labels_seen(self.tree, self.source, [self.images[i] for i in missing], taken)

    def reading(self) -> list[str]:
        try:
            grey = self.facts(0).grey
        except DataError:  # said, or left out, when it is read
            return []
        return [f"{self.spec}: images are {grey}, repeated to three channels"] if grey else []

    def doubts(self) -> list[str]:
        lost = self.own.unknown_to(self.space)
        if not lost or not self.promised:
            return []
        near = {name: one for name, one in lost.items() if one}
        told = self.own.told.space is not None
        way = "; becomes: says what they are in it" if told else ""
        if near and told:
            becomes = ", ".join(f"{own}: {known}" for own, known in near.items())
            way = f"; did you mean {', '.join(near.values())}? write becomes: {{{becomes}}}"
        elif near:
            it = "it" if len(near) == 1 else "them"
            way = f"; did you mean {', '.join(near.values())}? call {it} so in {self.own.path}"
        return [
            f"{self.spec}: {', '.join(lost)} {'is no class' if len(lost) == 1 else 'are no classes'} of the space "
            f"{self.space.name}, and so ignored{way}"
        ]

    def remarks(self, i: int) -> list[tuple[str, str]]:
        found = []
        if is_signed(self.image_path(i), "segda"):
            found.append(("images are pictures that segda wrote, and no photographs", str(self.image_path(i))))
        facts = self.facts(i)
        if facts.orientation != 1:
            done = (
                "turned as their EXIF orientation tag says" if self.turned else "not turned, though an EXIF tag says so"
            )
            found.append((f"images are {done}", f"{self.image_path(i)} (tag {facts.orientation})"))
        if facts.grey:
            stretched = "" if facts.grey == "greyscale" else ", each stretched to 8 bits"
            found.append((f"images are {facts.grey}, repeated to three channels{stretched}", str(self.image_path(i))))
        if not self.labelled(i):
            return found
        if isinstance(self.labels, ClassMasks) and (pixels := overlapping(self.labels, i)):
            what = "images have pixels in several classes' masks, of which the later class counts"
            found.append((what, f"{self.image_path(i)} ({pixels} pixels)"))
        if isinstance(self.labels, Annotated) and (bare := self.labels.bare(i)):
            what = "images have points or lines, which have no area and are left out"
            found.append((what, f"{self.image_path(i)} ({bare})"))
        path = self.label_path(i)
        of_pixels = isinstance(self.labels, LabelFiles | ListedLabels) and path.suffix.lower() == ".png"
        head = header(content_of(path)) if of_pixels else None
        if head is not None and head.kind in ("RGBA", "greyscale with alpha"):
            found.append(("labels have an alpha channel, which is left out", str(path)))
        if head is not None and (head.bits, head.kind) == (1, "greyscale") and isinstance(self.own.decoder, OwnIds):
            found.append((f"labels are black and white, read as 0 and {self.own.decoder.white}", str(path)))
        return found
