"""Any folders of images and labels, told by a YAML file: `folder:harbour.yaml:train`. No code is needed.

    root: .                          # of the paths below, from this file on; may be left out
    splits:
      train: {images: train/images, labels: train/masks}
      dusk: {images: "dusk/{key}_rgb.jpg"}            # no labels: a target
    classes:                         # the class of id 255 too, as in binary masks of 0 and 255
      water: {id: 0, colour: [0, 0, 255]}
      ship: {id: [1, 2], colour: [255, 0, 0]}
    ignored: [7]                     # ids that mean nothing; 255 needs no mention
    labels_are: ids                  # or colours: labels are RGB pictures in the classes' colours
    space: cityscapes-19             # classes of a known space instead of these, each by its name or by `becomes`:
    becomes: {ship: car}

A folder alone means every PNG and JPEG in it, with labels of the same stem; a path with {key} says what else their
names have. The path of the YAML file is as seen from where the command is run.
"""

from __future__ import annotations

from colorsys import hsv_to_rgb
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from segda.data.files.images import Colours
from segda.data.labels.spaces import Space, space_named
from segda.data.rows import Row
from segda.errors import RecipeError, nearest
from segda.ground.safe_yaml import one_line, read_yaml
from segda.scene import IGNORE

FOLDER = "folder:"
OWN = "own"
IGNORED = "(ignored)"
"""What ids are called that mean nothing."""

CLASSES = 254
"""Train ids go up to 253: 254 is an id without a name, 255 no class."""

WILDCARDS = 4
"""Stars in a path."""

Id = Annotated[int, Field(ge=0, le=255)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Split(_Strict):
    images: str
    labels: str | None = None


class _Class(_Strict):
    id: Id | list[Id] | None = None
    colour: tuple[Id, Id, Id] | None = None

    @property
    def ids(self) -> list[int]:
        return [] if self.id is None else [self.id] if isinstance(self.id, int) else self.id


class _Told(_Strict):
    root: str = "."
    splits: dict[str, _Split]
    classes: dict[str, _Class]
    ignored: list[Id] | list[tuple[Id, Id, Id]] = []
    labels_are: Literal["ids", "colours"] = "ids"
    space: str | None = None
    becomes: dict[str, str] = {}


def folder_row(path: str, split: str | None = None) -> Row:
    """The row that a YAML file tells, with the files of one split; RecipeError, naming file and key, if it is wrong."""
    told, named, space, colours = _read(path, _mark(path))
    given = _Split(images="") if split is None else told.splits.get(split, _Split(images=""))
    labels = () if given.labels is None else _templates(given.labels, ("png",))
    return Row(
        doc=f"images and labels of {path}",
        page=f"where {path} says",
        space=space.name,
        splits=tuple(told.splits),
        images=_templates(given.images, ("png", "jpg", "jpeg")),
        labels=tuple((template, OWN) for template in labels),
        decoders={} if colours is None else dict.fromkeys(labels, colours),
        labellings={OWN: named},
    )


def folder_space(path: str) -> Space:
    """The label space of its classes."""
    return _read(path, _mark(path))[2]


def folder_root(path: str) -> Path:
    """The folder that its paths begin in."""
    return Path(path).expanduser().parent / _read(path, _mark(path))[0].root


def _mark(path: str) -> int:
    try:
        return Path(path).expanduser().stat().st_mtime_ns
    except (OSError, RuntimeError, ValueError):  # ~nobody/x.yaml, a name with a zero byte
        told = "it says where your images and labels are, see docs/DATA.md"
        raise RecipeError(f"folder:{path}: no such file; {told}") from None


@lru_cache(maxsize=16)
def _read(path: str, _: int) -> tuple[_Told, dict[int, str], Space, Colours | None]:
    """What the file says: itself, what its ids are called, its space, the decoder of coloured labels."""
    told = _told(Path(path).expanduser())
    if not told.splits or not told.classes:
        raise RecipeError(f"{path}: splits and classes must name one at least")
    if len(told.classes) > CLASSES:
        raise RecipeError(f"{path}: {len(told.classes)} classes, more than {CLASSES}; 254 and 255 have another meaning")
    for name in (*told.splits, *told.classes):
        if not name.isprintable() or not name.strip():
            raise RecipeError(f"{path}: the name '{name}' cannot be shown; write one of printable characters")
    for name, split in told.splits.items():
        if mark := next((mark for mark in ":+*" if mark in name), None):
            raise RecipeError(f"{path}: splits.{name}: {mark!r} separates the parts of a spec; choose another name")
        for which in (split.images, split.labels or ""):
            _check_fields(f"{path}: splits.{name}: {which}", which)
        if "*" in (split.labels or ""):
            raise RecipeError(
                f"{path}: splits.{name}: {split.labels}: an image has one label, told by its {{key}}; write "
                "the path without a star"
            )
    names = _labelling(path, told)
    space = _space(path, told)
    named = {id: told.becomes.get(name, name) for id, name in names.items()}
    if told.labels_are == "ids":
        return told, named, space, None
    known = {one.colour: id for id, one in enumerate(told.classes.values()) if one.colour is not None}
    ignored = [colour for colour in told.ignored if not isinstance(colour, int)]
    return told, named, space, Colours(tuple((known | dict.fromkeys(ignored, IGNORE)).items()))


def _told(path: Path) -> _Told:
    try:
        tree = read_yaml(path)
    except (OSError, ValueError) as error:
        raise RecipeError(f"{path}: cannot be read ({one_line(error)}); it must be YAML") from None
    try:
        return _Told.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise RecipeError(f"{path}: {where}: {first['msg']}; see docs/DATA.md") from None


def _labelling(path: str, told: _Told) -> dict[int, str]:
    """Id -> name; where labels are colours, ids are counted."""
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
    for name, one in told.classes.items():
        if not one.ids:
            raise RecipeError(f"{path}: classes.{name} has no id; give the value that it has in label files")
        for id in one.ids:
            if id in names:
                raise RecipeError(f"{path}: {names[id]} and {name} have the same id {id}; give each its own")
            names[id] = name
    for ignored in told.ignored:
        if not isinstance(ignored, int):
            raise RecipeError(f"{path}: ignored: where labels are ids, write ids")
        if ignored in names:
            raise RecipeError(f"{path}: id {ignored} is {names[ignored]} and ignored; choose")
        names[ignored] = IGNORED
    return names


def _space(path: str, told: _Told) -> Space:
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


def _check_fields(where: str, template: str) -> None:
    """RecipeError unless the template has no field but one {key}, and few enough wildcards to try them all."""
    rest = template.replace("{key}", "", 1)
    if "{" in rest or "}" in rest:
        raise RecipeError(f"{where}: the only field is {{key}}, once; remove other braces")
    if template.count("*") > WILDCARDS:
        raise RecipeError(f"{where}: {template.count('*')} stars, more than {WILDCARDS}; write more of the path out")


def _templates(where: str, kinds: tuple[str, ...]) -> tuple[str, ...]:
    """A folder or a path with {key} -> path templates."""
    if "{key}" in where:
        return (where,)
    return tuple(str(PurePosixPath(where, f"{{key}}.{kind}")) for kind in kinds)
