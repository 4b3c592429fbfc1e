"""Any folders of images and labels, told by a YAML file: `folder:harbour.yaml:train`. No code is needed.

    root: .                          # of the paths below, from this file on; may be left out
    splits:
      train: {images: train/images, labels: train/masks}
      dusk: {images: "dusk/{key}_rgb.jpg"}            # no labels: a target
      val: 20%                       # of train, which is the rest
    classes:                         # the class of id 255 too, as in binary masks of 0 and 255
      water: {id: 0, colour: [0, 0, 255]}
      ship: {id: [1, 2], colour: [255, 0, 0]}
    ignored: [7]                     # ids that mean nothing; 255 needs no mention
    labels_are: ids                  # or colours: labels are pictures in the classes' colours
    rest: water                      # what no shape covers, where labels are shapes or one mask a class
    orientation: apply               # images are turned as their camera says; or ignore
    space: cityscapes-19             # classes of a known space instead of these, each by its name or by `becomes`:
    becomes: {ship: car}

A folder alone means every picture in it, with labels of the same stem; a path with {key} says what else their names
have (patterns.py). The path of the YAML file is as seen from where the command is run.
"""

from __future__ import annotations

from collections.abc import Mapping
from colorsys import hsv_to_rgb
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from segda.data.labels.own_labels import PICTURES, OwnColours, OwnIds, white_id
from segda.data.labels.shapes import Names
from segda.data.labels.spaces import Space, plain, space_named
from segda.data.rows import Row
from segda.data.sets.patterns import keyed
from segda.data.sets.told import Split, Told, read_told, root_of
from segda.errors import RecipeError, nearest
from segda.ground.ignore import IGNORE
from segda.ground.paths import expanded

OWN = "own"
IGNORED = "(ignored)"
"""What ids are called that mean nothing."""

CLASSES = 254
"""Train ids go up to 253: 254 is an id without a name, 255 no class."""

HELD = "a label in training has one byte a pixel, in which 254 is what has no name and 255 what is ignored"
"""Why there are no more."""

BACKGROUND = ("background", "_background_")
"""Names of a class that is what no shape covers, where nothing is said."""

WILDCARDS = 4
"""Stars in a path."""


@dataclass(frozen=True)
class OwnData:
    """What a YAML file says, checked.

    by_id: what the values of labels are called. named: what the names of shapes, and of one mask a class, are.
    """

    path: str
    told: Told
    root: Path
    space: Space
    by_id: Mapping[int, str]
    decoder: OwnIds | OwnColours
    named: Names

    def source_of(self, split: str) -> Split:
        """The split that says where images and labels are: of a share, the one that it is of."""
        told = self.told.splits[split]
        return told if told.of is None else self.told.splits[told.of]

    def by_value(self, split: str | None) -> Mapping[int, str]:
        """What the ids of a split's labels are called in the space: numbers of the classes, where labels have names."""
        named = split in self.told.splits and has_names(self.root, self.source_of(str(split)))
        names = dict(enumerate(self.told.classes)) if named else self.by_id
        return {id: self.told.becomes.get(name, name) for id, name in names.items()}

    def unknown_to(self, space: Space) -> dict[str, str]:
        """Its classes that a space does not have -> the class of the space that is meant, or ""."""
        known = {plain(name): name for name in space.classes}
        mapped = ((name, self.told.becomes.get(name, name)) for name in self.told.classes)
        return {name: known.get(plain(name), "") for name, one in mapped if space.class_of(one, OWN) is None}


def folder_row(path: str, split: str | None = None) -> Row:
    """The row that a YAML file tells, of one of its splits; RecipeError, naming file and key, if it is wrong."""
    own = own_data(path)
    labelled = split in own.told.splits and own.source_of(str(split)).labels is not None
    return Row(
        doc=f"images and labels of {path}",
        page=f"where {path} says",
        space=own.space.name,
        splits=tuple(own.told.splits),
        labels=((path, OWN),) if labelled else (),
        labellings={OWN: own.by_value(split)},
    )


def folder_space(path: str) -> Space:
    """The label space of its classes."""
    return own_data(path).space


def own_data(path: str) -> OwnData:
    """What the YAML file says, read again where it has changed."""
    try:
        return _read(path, expanded(path).stat().st_mtime_ns)
    except (OSError, ValueError) as error:  # a name with a zero byte
        if isinstance(error, RecipeError):
            raise
        told = "it says where your images and labels are (segda init writes one), see docs/DATA.md"
        raise RecipeError(f"folder:{path}: no such file; {told}") from None


def has_names(root: Path, split: Split) -> bool:
    """Whether labels say classes by their names: annotations of a tool, or one mask a class."""
    labels = split.labels or ""
    if "{class}" in labels or labels.lower().endswith((".json", ".xml")):
        return True
    if "{key}" in labels or "*" in labels:
        return False
    suffixes = {path.suffix.lower() for path in _listed(root / expanded(labels))}
    return ".json" in suffixes and not suffixes & {*PICTURES, ".npy"}


def _listed(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


@lru_cache(maxsize=16)
def _read(path: str, _: int) -> OwnData:
    told = _with_parents(path, read_told(path))
    if not told.splits or not told.classes:
        raise RecipeError(f"{path}: splits and classes must name one at least")
    if len(told.classes) > CLASSES:
        raise RecipeError(
            f"{path}: {len(told.classes)} classes, more than {CLASSES}: {HELD}; join some, classes: {{tree: {{id: "
            "[3, 300]}}, or leave some out, ignored: [7]"
        )
    for name in (*told.splits, *told.classes):
        if not name.isprintable() or not name.strip():
            raise RecipeError(f"{path}: the name '{name}' cannot be shown; write one of printable characters")
    for name, split in told.splits.items():
        if mark := next((mark for mark in ":+*'\"" if mark in name), None):
            raise RecipeError(f"{path}: splits.{name}: {mark!r} separates the parts of a spec; choose another name")
        _check_paths(f"{path}: splits.{name}", split)
    by_id = _labelling(path, told)
    space = _space(path, told)
    if told.labels_are == "ids":
        decoder: OwnIds | OwnColours = OwnIds(white_id(by_id))
    else:
        known = {one.colour: id for id, one in enumerate(told.classes.values()) if one.colour is not None}
        ignored = [colour for colour in told.ignored if isinstance(colour, tuple)]
        decoder = OwnColours(tuple((known | dict.fromkeys(ignored, IGNORE)).items()))
    return OwnData(path, told, root_of(path, told), space, by_id, decoder, _names(path, told))


def _with_parents(path: str, told: Told) -> Told:
    """With each share's split named: the only one that is no share, or train."""
    whole = [name for name, split in told.splits.items() if split.share is None]
    splits = {}
    for name, split in told.splits.items():
        if split.share is None:
            if split.images is None:
                raise RecipeError(f"{path}: splits.{name}.images: missing; say where they are, or the share of a split")
            if split.of is not None:
                raise RecipeError(f"{path}: splits.{name}.of: belongs to a share; write share: 20% beside it")
        elif split.images or split.labels or split.only:
            raise RecipeError(
                f"{path}: splits.{name}: is a share, and has the images and labels of its split; leave them out"
            )
        else:
            of = split.of or (whole[0] if len(whole) == 1 else "train")
            if of not in whole:
                raise RecipeError(
                    f"{path}: splits.{name}: a share of what? write {{share: 20%, of: NAME}}{nearest(of, whole)}"
                )
            split = split.model_copy(update={"of": of})
        paths = {"images": split.images, "labels": split.labels}
        splits[name] = split.model_copy(update={key: keyed(path) for key, path in paths.items() if path is not None})
    for name in whole:
        if (taken := sum(split.share or 0 for split in splits.values() if split.of == name)) >= 1:
            raise RecipeError(f"{path}: splits: the shares of {name} come to {100 * taken:.0f}%, and it would be empty")
    return told.model_copy(update={"splits": splits})


def _labelling(path: str, told: Told) -> dict[int, str]:
    """Id -> name; where labels are colours, ids are counted; where they have names, none is needed."""
    names: dict[int, str] = {}
    if told.labels_are == "colours":
        if lacking := [name for name, one in told.classes.items() if one.colour is None]:
            raise RecipeError(f"{path}: classes.{lacking[0]} has no colour, and labels_are says colours; give one")
        if len({one.colour for one in told.classes.values()}) < len(told.classes):
            raise RecipeError(f"{path}: two classes have one colour; give each its own")
        for colour in told.ignored:
            if isinstance(colour, int):
                raise RecipeError(f"{path}: ignored: where labels are colours, write colours")
            for name, one in told.classes.items():
                if one.colour == colour:
                    raise RecipeError(f"{path}: colour {list(colour)} is {name} and ignored; choose")
        return dict(enumerate(told.classes))
    root = root_of(path, told)
    labelled = [split for split in told.splits.values() if split.labels is not None]
    if not any(one.ids for one in told.classes.values()) and all(has_names(root, split) for split in labelled):
        return dict(enumerate(told.classes))
    lacking = [name for name, one in told.classes.items() if not one.ids]
    if lacking and all(told.classes[name].colour for name in lacking):
        raise RecipeError(
            f"{path}: {', '.join(f'classes.{name}' for name in lacking)}: {'has' if len(lacking) == 1 else 'have'} a "
            "colour and no id; where labels are pictures in these colours, write labels_are: colours"
        )
    if lacking:
        raise RecipeError(
            f"{path}: {', '.join(f'classes.{name}' for name in lacking)} {'has' if len(lacking) == 1 else 'have'} no "
            "id; give the value that it has in label files"
        )
    for name, one in told.classes.items():
        for id in one.ids:
            if id in names:
                raise RecipeError(f"{path}: {names[id]} and {name} have the same id {id}; give each its own")
            names[id] = name
    for ignored in told.ignored:
        if isinstance(ignored, tuple):
            raise RecipeError(f"{path}: ignored: where labels are ids, write ids")
        if isinstance(ignored, int):
            if ignored in names:
                raise RecipeError(f"{path}: id {ignored} is {names[ignored]} and ignored; choose")
            names[ignored] = IGNORED
    return names


def _names(path: str, told: Told) -> Names:
    """What the names of shapes are: numbers of the classes, IGNORE for what is ignored."""
    ids = {name: id for id, name in enumerate(told.classes)}
    for ignored in told.ignored:
        if isinstance(ignored, str):
            if ignored in ids:
                raise RecipeError(f"{path}: {ignored} is a class and ignored; choose")
            ids[ignored] = IGNORE
    if told.rest is not None and told.rest not in told.classes:
        raise RecipeError(f"{path}: rest: {told.rest}: there is no such class{nearest(told.rest, told.classes)}")
    usual = next((name for name in BACKGROUND if name in told.classes), None)
    rest = told.rest or usual
    return Names(ids, IGNORE if rest is None else ids[rest])


def _space(path: str, told: Told) -> Space:
    if told.space is not None:
        space = space_named(told.space)
        for name in told.becomes:
            if name not in told.classes:
                raise RecipeError(f"{path}: becomes.{name}: there is no such class{nearest(name, told.classes)}")
        for name in told.classes:
            become = told.becomes.get(name, name)
            if name in told.becomes and become not in space.classes:
                raise RecipeError(
                    f"{path}: becomes.{name}: {space.name} has no {become!r}{nearest(become, space.classes)}"
                )
        return space
    if told.becomes:
        raise RecipeError(f"{path}: becomes: has no effect without space; name the space")
    # Where no colour is given: hues by the golden ratio, far from their neighbours however many there are.
    hues = [hsv_to_rgb(0.618 * k % 1, 0.8, 0.9) for k in range(len(told.classes))]
    return Space(
        Path(path).stem,
        {
            name: one.colour or (int(255 * red), int(255 * green), int(255 * blue))
            for (name, one), (red, green, blue) in zip(told.classes.items(), hues, strict=True)
        },
    )


def _check_paths(where: str, split: Split) -> None:
    """RecipeError unless each path has no field but one {key} (and one {class}, in labels), and few enough stars."""
    images, labels = split.images or "", split.labels or ""
    for path, fields in ((images, ("{key}",)), (labels, ("{key}", "{class}"))):
        rest = path
        for one in fields:
            rest = rest.replace(one, "", 1)
        if "{" in rest or "}" in rest:
            known = (
                "the only field is {key}, once" if fields == ("{key}",) else "the fields are {key} and {class}, once"
            )
            raise RecipeError(f"{where}: {path}: {known}; remove other braces")
        if path.count("*") - path.count("**") > WILDCARDS:
            raise RecipeError(
                f"{where}: {path}: {path.count('*')} stars, more than {WILDCARDS}; write more of the path out"
            )
    for star in ("**", "*"):
        if _stars(labels, star) > _stars(images, star):
            raise RecipeError(
                f"{where}: {labels}: an image has one label: a {star} in its path is what the same {star} is in the "
                f"path of images, and {images} has {_stars(images, star) or 'none'}; write that part out"
            )


def _stars(path: str, star: str) -> int:
    return path.count("**") if star == "**" else path.count("*") - 2 * path.count("**")
