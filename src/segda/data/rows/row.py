"""What is known of a data set: Row, and the archives and lists of names that belong to one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from segda.data.labels.labellings import LABELLINGS

if TYPE_CHECKING:
    from segda.data.labels.spaces import Space

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Archive:
    """A file as it is downloaded.

    name: its name in the data set's folder, as a pattern where there are several of a kind. A .zip is read in place.
    holds: what the paths begin with that it unpacks to. Members that do not begin so, nor do without their first
        folder, lie in that folder.
    """

    name: str
    holds: str


@dataclass(frozen=True)
class Listed:
    """The images that a file of the data set names.

    file: its path in the folder, fields as in a Row.
    reader: name in lists.READERS.
    argument: what the reader looks for: a variable, or a column and a value.
    by: the field of an image's path that the names are those of.
    ending: what the names have behind that field.
    """

    file: str
    reader: str = "lines"
    argument: str = ""
    by: str = "key"
    ending: str = ""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One data set.

    images: path templates; fields other than {split} stand for any part of one path component, `*` for what may vary.
    labels: (path template with the same fields, labelling of its ids); the first that exists is the image's label.
    layouts: other (images, labels), each for a folder where the ones before it find no image of a split.
    archives: as downloaded, see Archive.
    counts: `split` or `split:condition` -> how many images the public data set has.
    name_with: fields that an image's name has before its stem, where stems come twice.
    split_folders: what {split} stands for where it is not the split's own name.
    decoders: label template -> name in images.DECODERS (or a decoder), where its files are no plain pictures of ids.
    no_labels: patterns of files that lie among the labels and are none.
    id_names: files of the folder that name the ids in order, in Mapillary's JSON; `segda check-data` compares them.
    conditions: name -> patterns of what {condition} stands for or, where the images have no such field, of their stem;
        `field=pattern` is one of another field. None given means all images.
    lists: condition or split -> the list of its images.
    labellings: what ids mean, where it is not in data/labels/labellings.py.
    shared_labels: the labels are those of a larger set, so that a label without an image is no fault.
    invalid: (path template, value) of masks that say, by that value, where nobody could tell the class from the image
        alone; 0 is elsewhere. The first that exists is the image's.
    """

    doc: str
    page: str
    space: str
    splits: tuple[str, ...]
    folders: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    labels: Labels = ()
    layouts: tuple[tuple[tuple[str, ...], Labels], ...] = ()
    archives: tuple[Archive, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    name_with: tuple[str, ...] = ()
    conditions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    lists: Mapping[str, Listed] = field(default_factory=dict)
    split_folders: Mapping[str, str] = field(default_factory=dict)
    decoders: Mapping[str, str | Callable] = field(default_factory=dict)
    labellings: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    no_labels: tuple[str, ...] = ()
    id_names: tuple[str, ...] = ()
    shared_labels: bool = False
    invalid: tuple[tuple[str, int], ...] = ()

    def image_files(self, split: str) -> tuple[str, ...]:
        """Path templates of a split's images; only the fields other than {split} are left."""
        return tuple(self.of(split, template) for template in self.images)

    def label_files(self, split: str) -> tuple[tuple[str, str, str | Callable], ...]:
        """(path template, labelling, decoder) of a split's labels."""
        return tuple(
            (self.of(split, template), labelling, self.decoders.get(template, "ids"))
            for template, labelling in self.labels
        )

    def names(self, labelling: str) -> Mapping[int, str]:
        """What the ids of one of its labellings are called."""
        return self.labellings[labelling] if labelling in self.labellings else LABELLINGS[labelling]

    def classes_in(self, space: Space) -> set[str]:
        """The classes of a space that its labels tell apart."""
        return {one for _, labelling in self.labels for one in space.classes_in(labelling, self.names(labelling))}

    def archives_of(self, path: str) -> tuple[str, ...]:
        """Names of the archives that a path of the folder comes from."""
        return tuple(one.name for one in self.archives if path.startswith(one.holds))

    def variants(self) -> tuple[Row, ...]:
        """The row in each of its layouts; without conditions where folders told them and this layout has none."""
        by_folder = any("{condition}" in image for image in self.images)
        return (
            replace(self, layouts=()),
            *(
                replace(
                    self,
                    images=images,
                    labels=labels,
                    layouts=(),
                    invalid=(),
                    conditions={} if by_folder and not any("{condition}" in i for i in images) else self.conditions,
                )
                for images, labels in self.layouts
            ),
        )

    def of(self, split: str, template: str) -> str:
        """A template with its {split} filled in."""
        return template.replace("{split}", self.split_folders.get(split, split))
