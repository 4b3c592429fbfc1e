"""A folder of pseudo-labels: what `segda pseudo-label` writes and what training reads as the target's labels.

    STEM.png               train ids of each image, 255 where no label was kept: a palette PNG in the space's colours
    pseudo_labels.json     how they were made: data, networks, rule, thresholds; written last, so it says: all is here
    contact_sheet.jpg      some of them to look at

A label shows the whole of its image at the size of the network's input, without what was filled up around it. A folder
without the JSON file, for example one of ground truth, is refused: the labels of the target stay unseen.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from segda.data.files.images import read_ids
from segda.data.files.signed import signature
from segda.data.labels.spaces import Space
from segda.data.sets.dataset import DataSet
from segda.data.sets.specs import data_sets
from segda.data.stream.augment import scaled_size
from segda.data.stream.settings import Shape
from segda.errors import DataError
from segda.ground.atomic import atomic_write, write_text
from segda.ground.ignore import IGNORE
from segda.ground.safe_yaml import read_json
from segda.ground.sealed import with_digest, without_digest

SUMMARY = "pseudo_labels.json"
SHEET = "contact_sheet.jpg"
WRITER = "segda pseudo-label"
"""Signs the labels' files."""

FORMAT = "segda pseudo-labels 1"


@dataclass(frozen=True)
class PseudoLabels:
    """The pseudo-labels of a data set's images, in its order.

    resize, shape: how images were brought to the network that made them, see Augment.
    """

    folder: Path
    data: str
    names: tuple[str, ...]
    classes: int
    resize: tuple[int, int] | None
    shape: Shape

    @classmethod
    def open(cls, folder: Path | str, dataset: DataSet, space: Space) -> PseudoLabels:
        """The folder, once it is known to hold a label in this space for each image; opens no label.

        DataError, naming the file, for no folder, none of ours, other classes, other data, or a missing label.
        """
        folder = Path(folder)
        summary = read_summary(folder, dataset.spec)
        path = folder / SUMMARY
        try:
            data, made_for = summary["data"], tuple(summary["class_names"])
            resize, shape = summary["input"]["resize"], summary["input"]["shape"]
        except (KeyError, TypeError) as error:
            raise DataError(f"{path} lacks {error}; it was edited or damaged: make the labels anew") from error
        if made_for != space.classes:
            first = next((pair for pair in zip(made_for, space.classes, strict=False) if pair[0] != pair[1]), None)
            other = f"{len(made_for)} classes" if first is None else f"{first[0]!r}"
            ours = f"{len(space.classes)}" if first is None else f"{first[1]!r}"
            raise DataError(f"{path}: its labels have {other} where {space.name} has {ours}; make labels in this space")
        if not isinstance(data, str) or shape not in get_args(Shape) or not (resize is None or _is_size(resize)):
            raise DataError(f"{path}: data or input is of another kind; it was edited or damaged: make the labels anew")
        if data_sets(data) != data_sets(dataset.spec):
            raise DataError(f"{path}: these are labels of {data}, not of {dataset.spec}; give the folder made for it")
        if missing := [name for name in dataset.names if not (folder / f"{name}.png").is_file()]:
            raise DataError(
                f"{folder / missing[0]}.png: no such pseudo-label ({len(missing)} of {len(dataset)} images of "
                f"{dataset.spec} have none; the folder was made for {data}); make labels for {dataset.spec}"
            )
        resize = None if resize is None else tuple(resize)
        return cls(folder, dataset.spec, dataset.names, len(space.classes), resize, shape)

    def path(self, i: int) -> Path:
        return self.folder / f"{self.names[i]}.png"

    def read(self, i: int, size: tuple[int, int] | None = None) -> Tensor:
        """(h, w) uint8 train ids of image i, IGNORE where no label was kept.

        size: (height, width) of the image, for the check that this is a label of it. DataError, naming the file, for
        what cannot be read, is no class, or has not the size that the image had in front of the network.
        """
        ids = read_ids(self.path(i))
        foreign = ids[(ids >= self.classes) & (ids != IGNORE)]
        if foreign.size:
            raise DataError(
                f"{self.path(i)} has the value {foreign.min()} ({foreign.size} pixels), which is neither one of "
                f"{self.classes} classes nor {IGNORE}; it is no pseudo-label: make it anew"
            )
        if size is not None and (due := scaled_size(size, self.resize, self.shape)) != ids.shape:
            found, image, right = (f"{width}x{height}" for height, width in (ids.shape, size, due))
            raise DataError(
                f"{self.path(i)} is {found}, where the label of its {image} image in {self.data} is {right}; make the "
                "labels anew from these images"
            )
        return torch.from_numpy(ids)


def _is_size(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(type(side) is int and side > 0 for side in value)


def read_summary(folder: Path, spec: str = "NAME:SPLIT") -> dict[str, Any]:
    """What pseudo_labels.json says; DataError when the folder is none of ours or not finished."""
    path = folder / SUMMARY
    way_out = f"make it with `segda pseudo-label RUN --data {spec} --out {folder}`"
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of pseudo-labels; {way_out}")
    if not path.is_file():
        raise DataError(f"{folder} has no {SUMMARY}: it holds no pseudo-labels, or not yet all of them; {way_out}")
    try:
        summary = read_json(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); make the labels anew") from error
    if not isinstance(summary, dict) or summary.get("format") != FORMAT:
        found = summary.get("format") if isinstance(summary, dict) else type(summary).__name__
        raise DataError(f"{path}: is not of the format {FORMAT!r} (but {found!r}); {way_out}")
    try:
        return without_digest(summary)
    except ValueError as error:
        raise DataError(f"{path}: {error}; make the labels anew") from error


def write_label(folder: Path, name: str, label: np.ndarray, space: Space) -> None:
    """(h, w) uint8 train ids as NAME.png, whole or not at all; signed."""
    picture = Image.fromarray(label)
    picture.putpalette(space.palette().tobytes())
    content = io.BytesIO()
    picture.save(content, "PNG", pnginfo=signature(WRITER))
    with atomic_write(folder / f"{name}.png") as partial:
        partial.write_bytes(content.getvalue())


def write_summary(folder: Path, summary: Mapping[str, Any]) -> None:
    """pseudo_labels.json, the last file of a folder."""
    values = with_digest({"format": FORMAT, **summary})
    write_text(folder / SUMMARY, json.dumps(values, indent=1, allow_nan=False) + "\n")
