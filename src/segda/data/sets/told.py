"""What a YAML file says of somebody's own images: its keys, and what is wrong with them in one line.

What the keys mean stands in folders.py; how the files are found, in own.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from segda.data.labels.class_lists import classes_in
from segda.errors import RecipeError, nearest
from segda.ground.paths import expanded
from segda.ground.safe_yaml import one_line, read_yaml

HIGHEST = 65535
"""Of ids: what 16 bits hold."""

Id = Annotated[int, Field(ge=0, le=HIGHEST, strict=True)]
Level = Annotated[int, Field(ge=0, le=255, strict=True)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Split(_Strict):
    """Either `images`, or the `share` of another split."""

    images: str | None = None
    labels: str | None = None
    only: str | None = None
    """A list of those of the images that belong to it."""
    share: Annotated[float, Field(gt=0, lt=1)] | None = None
    of: str | None = None
    """The split that the share is taken from."""


class Class(_Strict):
    id: Id | list[Id] | None = None
    colour: tuple[Level, Level, Level] | None = None

    @property
    def ids(self) -> list[int]:
        return [] if self.id is None else [self.id] if isinstance(self.id, int) else self.id


class Told(_Strict):
    root: str = "."
    splits: dict[str, Split]
    classes: dict[str, Class]
    ignored: list[Id] | list[tuple[Level, Level, Level]] | list[str] = []
    labels_are: Literal["ids", "colours"] = "ids"
    rest: str | None = None
    """The class of pixels that no shape and no mask covers."""
    orientation: Literal["apply", "ignore"] = "apply"
    space: str | None = None
    becomes: dict[str, str] = {}


KNOWN: dict[tuple[str, ...], tuple[str, ...]] = {
    (): tuple(Told.model_fields),
    ("splits", "*"): tuple(Split.model_fields),
    ("classes", "*"): tuple(Class.model_fields),
}
"""Place -> the keys that are there; * is any name."""

MEANT: dict[tuple[str, ...], dict[str, str]] = {
    (): {
        **dict.fromkeys(("train", "val", "valid", "test", "training", "validation", "data", "sets", "split"), "splits"),
        **dict.fromkeys(("names", "nc", "class", "labels", "categories", "num_classes", "palette"), "classes"),
        **dict.fromkeys(("path", "dir", "folder", "base"), "root"),
        **dict.fromkeys(("ignore", "ignore_index", "void", "ignore_label"), "ignored"),
        **dict.fromkeys(("background", "uncovered"), "rest"),
        **dict.fromkeys(("label_type", "labels_type", "type", "format"), "labels_are"),
        **dict.fromkeys(("exif", "rotate"), "orientation"),
        "map": "becomes",
    },
    ("splits", "*"): {
        **dict.fromkeys(("masks", "mask", "annotations", "gt", "annos", "targets", "ann_dir", "annotation"), "labels"),
        **dict.fromkeys(("imgs", "photos", "pictures", "img_dir", "frames", "path", "folder", "dir"), "images"),
        **dict.fromkeys(("list", "split", "file", "names", "ids"), "only"),
        **dict.fromkeys(("part", "fraction", "percent"), "share"),
    },
    ("classes", "*"): {
        **dict.fromkeys(("ids", "value", "values", "index", "pixel", "label"), "id"),
        **dict.fromkeys(("color", "rgb", "colours", "colors"), "colour"),
    },
}
"""What people write for these keys: words that the nearest spelling would not find."""

WRITE: dict[tuple[str, ...], str] = {
    ("root",): "the folder that the paths below begin in",
    ("splits",): "splits: {train: {images: FOLDER, labels: FOLDER}}",
    ("splits", "*"): "{images: FOLDER, labels: FOLDER}, or the share of another split, as 20%",
    ("splits", "*", "images"): "a folder, a path with {key} or a list of files, as text",
    ("splits", "*", "labels"): "a folder, a path with {key} or a file of annotations, as text",
    ("splits", "*", "only"): "a list of images, a text file",
    ("splits", "*", "share"): "a share between 0 and 1, as 20%",
    ("splits", "*", "of"): "the name of the split that it is a share of",
    ("classes",): "classes: {background: {id: 0}, road: {id: 1}}",
    ("classes", "*"): "{id: 0}, or {colour: [128, 64, 128]}",
    ("classes", "*", "id"): f"the value that it has in label files, 0 to {HIGHEST}, or a list of them",
    ("classes", "*", "colour"): "three numbers from 0 to 255, as [128, 64, 128]",
    ("ignored",): "a list of ids, of colours or of names, all of one kind",
    ("labels_are",): "ids or colours",
    ("rest",): "the name of a class",
    ("orientation",): "apply or ignore",
    ("space",): "the name of a label space, as cityscapes-19",
    ("becomes",): "the name of a class of the space for the name of a class, as {ship: car}",
}
"""Place -> what to write there."""


def read_told(path: str) -> Told:
    """What the file says; RecipeError, with file, key and what to write, where it is wrong."""
    try:
        tree = read_yaml(expanded(path))
    except (OSError, ValueError) as error:
        raise RecipeError(f"{path}: cannot be read ({one_line(error)}); it must be YAML") from None
    if not isinstance(tree, Mapping):
        raise RecipeError(f"{path}: holds no keys; write {WRITE['splits',]} and {WRITE['classes',]}")
    tree = dict(tree)
    if isinstance(tree.get("classes"), str):
        tree["classes"] = listed_classes(path, tree)
    if (wrong := next(_guessed(tree), None)) is not None:
        raise RecipeError(f"{path}: {wrong}")
    tree["splits"] = {name: _shared(split) for name, split in tree.get("splits", {}).items()} or tree.get("splits")
    if tree["splits"] is None:
        del tree["splits"]
    try:
        return Told.model_validate(tree)
    except ValidationError as error:
        raise RecipeError(f"{path}: {_said(error)}") from None


def listed_classes(path: str, tree: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Those of the list that `classes: FILE` names, from the root on."""
    return classes_in(expanded(path).parent / expanded(str(tree.get("root", "."))) / expanded(tree["classes"]))


def _guessed(tree: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong in the words of those who write such files for other tools; the first is enough."""
    for key in ("splits", "classes"):
        if key in tree and not isinstance(tree[key], Mapping):
            listed = tree[key] if isinstance(tree[key], list) else []
            if key == "classes" and listed and all(isinstance(name, str) for name in listed):
                ids = ", ".join(f"{name}: {{id: {id}}}" for id, name in enumerate(listed[:3]))
                more = ", ..." if len(listed) > 3 else ""
                yield f"classes: is a list; say which value each class has, classes: {{{ids}{more}}}"
            yield f"{key}: got {_short(tree[key])}; write {WRITE[key,]}"
        for name, value in (tree.get(key) or {}).items():
            if isinstance(name, bool):
                yield f"{key}: {name}: YAML takes yes, no, on and off for true and false; put the name in quotes"
            if not isinstance(name, str) and isinstance(value, str):
                yield f"{key}: {name}: {value}: is the wrong way round; write {value}: {{id: {name}}}"
            if not isinstance(name, str):
                yield f"{key}: {name}: a name is a text; put it in quotes, '{name}'"
            if key == "classes" and isinstance(value, int) and not isinstance(value, bool):
                yield f"classes.{name}: write {name}: {{id: {value}}}"
            if key == "classes" and isinstance(value, list):
                kind = "colour" if len(value) == 3 else "id"
                yield f"classes.{name}: write {name}: {{{kind}: {value}}}"
            if key == "splits" and isinstance(value, str) and not _is_share(value):
                yield f"splits.{name}: write {name}: {{images: {value}, labels: FOLDER}}, without labels for a target"


def _is_share(value: Any) -> bool:
    return isinstance(value, float) or (isinstance(value, str) and value.strip().endswith("%"))


def _shared(split: Any) -> Any:
    """`20%` and `{share: 20%}` with the share as a number."""
    if _is_share(split):
        split = {"share": split}
    if isinstance(split, Mapping) and isinstance(share := split.get("share"), str):
        try:
            return {**split, "share": float(share.strip().removesuffix("%")) / (100 if "%" in share else 1)}
        except ValueError:
            return split
    return split


def _said(error: ValidationError) -> str:
    """What the file lacks, all of it; else its first unknown key, else the first value that cannot be."""
    faults = error.errors()
    lacking = [one for one in faults if one["type"] == "missing" and _place(one["loc"]) in WRITE]
    if gone := [".".join(map(str, one["loc"])) for one in lacking]:
        unknown = [one for one in faults if one["type"] == "extra_forbidden" and len(one["loc"]) == 1]
        also = f" ({_unknown(unknown[0]['loc'])})" if unknown else ""
        lines = "; ".join(dict.fromkeys(WRITE[_place(tuple(one.split(".")))] for one in gone))
        return f"{', '.join(gone)}: missing{also}; write {lines}"
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 and faults[0]["type"] == "extra_forbidden" else ""
    if unknown := [one for one in faults if one["type"] == "extra_forbidden"]:
        return f"{_unknown(unknown[0]['loc'])}{more}"
    place = faults[0]["loc"]
    kept = next(length for length in range(len(place), 0, -1) if _place(place[:length]) in WRITE)
    return f"{'.'.join(map(str, place[:kept]))}: got {_short(faults[0]['input'])}; write {WRITE[_place(place[:kept])]}"


def _unknown(place: tuple[int | str, ...]) -> str:
    *above, key = place
    where = _place(tuple(above))
    owner = f"{'.'.join(map(str, above))}: " if above else ""
    meant = MEANT.get(where, {}).get(str(key).lower())
    near = f"; did you mean {meant!r}?" if meant else nearest(key, KNOWN.get(where, ()))
    return f"{owner}unknown key {key!r}{near}"


def _place(place: tuple[int | str, ...]) -> tuple[str, ...]:
    """A place with its names of one's own as *."""
    parts = tuple(map(str, place))
    return (parts[0], "*", *parts[2:]) if len(parts) > 1 and parts[0] in ("splits", "classes") else parts


def _short(value: Any) -> str:
    return f"{value!r:.80}"


def root_of(path: str, told: Told) -> Path:
    """The folder that the paths of a file begin in."""
    return expanded(path).parent / expanded(told.root)
