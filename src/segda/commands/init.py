"""`segda init`: from folders of images to a data set, recipes and the next command."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segda.errors import RecipeError, SegdaError
from segda.ground.choices import PresetName
from segda.ground.paths import OWN_DATA, OWN_RECIPE, expanded

if TYPE_CHECKING:
    from segda.data.own.layout import Layout
    from segda.data.own.values import Values
    from segda.data.sets.inspection import DataReport
    from segda.recipes.first import Facts

log = logging.getLogger(__name__)

SHEETS = "sheets"
RECIPES = (OWN_RECIPE, "source_only.yaml")
LABELLED, LABELLED_VAL = "labelled.txt", "labelled_val.txt"
"""Of the source and of --val: names the images that have a label, where not all have one."""

WRITTEN = (OWN_DATA, *RECIPES, LABELLED, LABELLED_VAL)
OURS = "Written by `segda init`"
"""In the first line of what is written."""

TRAIN_IDS = "_labelTrainIds"
"""What names of labels end with whose values are Cityscapes' 19 classes in their order."""

MEASURED = 200
"""Images whose sizes are looked at."""

SHARE = "20%"

LEAST_SHARED = 2
"""Labelled images, at least, for a share of them."""


@dataclass
class Begun:
    """What was seen, assumed and written.

    seen: what -> what of it. reports: what check-data finds in each split.
    """

    folder: Path
    seen: dict[str, str] = field(default_factory=dict)
    assumed: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    reports: list[DataReport] = field(default_factory=list)

    @property
    def usable(self) -> bool:
        return all(report.usable for report in self.reports)

    @property
    def commands(self) -> list[str]:
        """What comes next."""
        name = self.folder.resolve().name
        runs = [f"runs/{name}", f"runs/{name}-source_only"]
        return [
            shlex.join(["segda", "train", str(self.folder), "--out", runs[0]]),
            shlex.join(["segda", "train", str(self.folder / "source_only.yaml"), "--out", runs[1]]),
            shlex.join(["segda", "compare", *reversed(runs)]),
        ]


def init(
    folder: Annotated[Path | str, typer.Argument(metavar="DIR", help="Folder to write data.yaml and the recipes to.")],
    source: Annotated[Path | str, typer.Option(metavar="FOLDER", help="Images that have labels.")],
    labels: Annotated[
        Path | str,
        typer.Option(
            metavar="PATH",
            help="Their labels: a folder, the same where they lie beside their images, or an annotation tool's file.",
        ),
    ],
    target: Annotated[Path | str, typer.Option(metavar="FOLDER", help="Images without labels, to adapt to.")],
    val: Annotated[
        str,
        typer.Option(
            metavar="SHARE|FOLDER",
            help="What is scored: a share of the source, which training leaves out, or a folder of target images.",
        ),
    ] = SHARE,
    val_labels: Annotated[Path | str | None, typer.Option(metavar="FOLDER", help="The labels of --val FOLDER.")] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES|FILE",
            help="road,car in the order of their ids; road=0,car=7; road=#804080; or a tool's list of classes.",
        ),
    ] = None,
    preset: Annotated[PresetName, typer.Option(help="How long to train, and how large a network.")] = "standard",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write over what an earlier init wrote.")] = False,
) -> Begun:
    """Look at folders of images and labels, and write to DIR what a training needs.

    data.yaml says where images and labels are and what the labels mean; recipe.yaml and source_only.yaml say how to
    train, each choice with its reason beside it; sheets/ has images beside their labels, to look at. It says what it
    saw and what it assumed. In a terminal it asks for the names of classes that nobody named.
    """
    from segda.data.own.layout import lay_out
    from segda.data.own.naming import name_classes
    from segda.data.own.telling import data_yaml, seen
    from segda.data.own.values import survey
    from segda.recipes.first import first_recipe

    folder, source, labels, target = (expanded(path) for path in (folder, source, labels, target))
    for there in (folder / name for name in WRITTEN if (folder / name).exists()):
        if not overwrite:
            raise RecipeError(f"{there}: exists; choose another folder, or give --overwrite")
        if not _is_ours(there):
            raise RecipeError(f"{there}: was not written by `segda init`; choose another folder, or move it away")
    labels = _named_by(labels)
    layout = lay_out(source, labels)
    paths = dict.fromkeys(labels / label for found in layout.pairs.values() for label in found)
    values = survey(list(paths), layout.classes)
    named = name_classes(values, _said(classes, labels, layout, values))
    _refuse_same(source, labels, target, layout)
    target_split = _split(folder, target, lay_out(target))
    lists: dict[str, Layout] = {}
    splits = {"train": _split(folder, source, layout, labels, lists, LABELLED), "target": target_split}
    splits |= _scored(folder, val, None if val_labels is None else expanded(val_labels), lists)
    scored = [name for name in splits if name.startswith("val")]
    if layout.labelled < LEAST_SHARED and "val" in splits:
        raise RecipeError(f"{source}: {layout.labelled} labelled image, of which no share can be kept; label some more")
    facts = _facts(source, layout, len(named.classes), scored)
    begun = Begun(folder, seen(layout, values, facts.size), named.assumed)
    named.assumed += [
        f"{len(one.pairs) - one.labelled} images without label are left out: {name} names the others"
        for name, one in lists.items()
    ]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, one in lists.items():
            _write(begun, name, "\n".join([f"# {OURS}: the images with a label.", *one.with_label]) + "\n")
        _write(begun, OWN_DATA, data_yaml(splits, values, named))
        for file in RECIPES:
            _write(begun, file, first_recipe(Path(file).stem, facts, preset))
        _inspect(begun, [name for name, split in splits.items() if isinstance(split, Mapping)])
    except SegdaError:  # nothing stays that does not go together
        for path in (*begun.files, *(report.sheet for report in begun.reports if report.sheet is not None)):
            path.unlink(missing_ok=True)
        for place in (folder / SHEETS, folder):
            with suppress(OSError):  # it holds more, or was never made
                place.rmdir()
        raise
    return begun


def _refuse_same(source: Path, labels: Path, target: Path, layout: Layout) -> None:
    """RecipeError where one folder is given for what must be two."""
    if layout.labels is not None and _same(labels, target):
        raise RecipeError(f"--target {target}: is the folder of --labels; give the target's photographs")
    if _same(source, target):
        raise RecipeError(
            f"--target {target}: is the folder of --source; give other images, of where the network shall work"
        )


def _same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


def _is_ours(file: Path) -> bool:
    """Whether an earlier call wrote a file, whatever was changed in it since."""
    return file.is_file() and OURS in file.read_text(encoding="utf-8", errors="replace").partition("\n")[0]


def _named_by(labels: Path) -> Path:
    """Labels, or the file that names their images."""
    from segda.data.own.layout import named_by

    if (found := named_by(labels)) != labels:
        log.info(f"labels are those of {found}: the names of the files in {labels} say no image")
    return found


def _said(
    classes: str | None, labels: Path, layout: Layout, values: Values
) -> Mapping[str, dict[str, Any]] | Sequence[str] | None:
    """Names of classes: from the command line, from a list beside the labels, of Cityscapes' train ids, or asked for in
    a terminal.
    """
    from segda.data.labels.spaces import SPACES
    from segda.data.own.naming import answered, list_beside, parse_classes, shares, shown, unnamed
    from segda.data.sets.folders import CLASSES

    if classes:
        return parse_classes(classes)
    if (beside := list_beside(labels)) is not None:
        log.info(f"classes are as {beside} says")
        return parse_classes(str(beside))
    if layout.labels is not None and layout.labels.endswith(TRAIN_IDS):
        log.info("classes are Cityscapes': the labels are called train ids")
        return SPACES["cityscapes-19"].classes
    asked = unnamed(values)
    if not 0 < len(asked) <= CLASSES or not sys.stdin.isatty():
        return None
    log.info(f"labels have the {values.kind} {shares(values, asked)}")
    example = f"NAME={shown(asked[0])}"
    answer = typer.prompt(
        f"names of the classes in this order, with commas between them; or {example} of some (others mean nothing)",
        default="",
        show_default=False,
    )
    return answered(asked, answer) if answer.strip() else None


def _split(
    folder: Path,
    images: Path,
    layout: Layout,
    labels: Path | None = None,
    lists: dict[str, Layout] | None = None,
    name: str = "",
) -> dict[str, str]:
    """A split of data.yaml. lists, name: where it is noted, and by what name, that not all images have a label."""
    split = {"images": _path(folder, images, layout.images)}
    if labels is None:
        return split
    split["labels"] = _path(folder, labels, layout.labels or "")
    if lists is not None and layout.labelled < len(layout.pairs):
        lists[name] = layout
        split["only"] = name
    return split


def _path(folder: Path, place: Path, pattern: str) -> str:
    """From the folder on, where both lie in one project; else from the root."""
    place, folder = place.resolve(), folder.resolve()
    near = len(Path(os.path.commonpath([place, folder])).parts) > 1
    return str(PurePosixPath(os.path.relpath(place, folder) if near else place, pattern))


def _scored(folder: Path, val: str, val_labels: Path | None, lists: dict[str, Layout]) -> dict[str, Any]:
    """The split that is scored. RecipeError for a share that is none, and for a folder without labels."""
    from segda.data.own.layout import lay_out

    if not val.endswith("%"):
        if val_labels is None:
            raise RecipeError(
                f"--val {val}: give --val-labels for a folder, or write a share of the source, as {SHARE}"
            )
        place, val_labels = expanded(val), _named_by(val_labels)
        split = _split(folder, place, lay_out(place, val_labels), val_labels, lists, LABELLED_VAL)
        return {"val_target": split, "val": SHARE}
    if val_labels is not None:
        raise RecipeError(f"--val-labels {val_labels}: belongs to --val FOLDER")
    share = val.removesuffix("%")
    if not share.isdigit() or not 0 < int(share) < 100:
        raise RecipeError(f"--val {val}: write a share between 1% and 99%, or a folder")
    return {"val": val}


def _facts(source: Path, layout: Layout, classes: int, scored: list[str]) -> Facts:
    """What the recipe is chosen by."""
    import torch

    from segda.data.files.photos import facts_of
    from segda.data.sets.specs import FOLDER
    from segda.ground.hardware import pick_device
    from segda.recipes.first import Facts

    chosen = list(layout.pairs)[:: max(1, len(layout.pairs) // MEASURED)]
    sizes = sorted(
        (facts_of(source / image).shown(turned=True) for image in chosen), key=lambda size: size[0] * size[1]
    )
    device = pick_device("auto")
    memory = torch.cuda.get_device_properties(device).total_memory / 2**30 if device.type == "cuda" else 0.0
    spec = f"{FOLDER}{OWN_DATA}:"  # beside the recipe
    sets = {"source": f"{spec}train", "target": f"{spec}target"}
    return Facts(
        sizes[len(sizes) // 2],
        layout.labelled,
        classes,
        sets,
        [f"{spec}{name}" for name in scored],
        device.type,
        memory,
    )


def _write(begun: Begun, name: str, text: str) -> None:
    from segda.ground.atomic import write_text

    write_text(begun.folder / name, text)
    begun.files.append(begun.folder / name)


def _inspect(begun: Begun, splits: Sequence[str]) -> None:
    """As check-data does, each split of files."""
    from segda.commands.check_data import check_data
    from segda.data.sets.specs import FOLDER

    for name in splits:
        begun.reports.append(check_data(f"{FOLDER}{begun.folder / OWN_DATA}:{name}", out=begun.folder / SHEETS))
