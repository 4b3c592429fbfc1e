"""What labels of somebody's own hold: ids, colours, a mask for each class, or shapes with names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from segda.data.labels.annotations import SUFFIXES as ANNOTATIONS
from segda.data.labels.annotations import read_drawings
from segda.data.labels.own_labels import colours_in, stored
from segda.errors import RecipeError
from segda.ground.ignore import IGNORE
from segda.ground.progress import track
from segda.ground.safe_yaml import read_json

LOOKED_AT = 60
"""Label files that are read for a first look, evenly spread over all."""

MOST_COLOURS = 256
"""A picture with more has been smoothed, resized or photographed."""

INSTANCE = 1000
"""Ids of instances are class * 1000 + number in Cityscapes and what follows it."""

Colour = tuple[int, int, int]


@dataclass
class Values:
    """What a first look found.

    kind: ids; colours; masks, a file for each class; shapes, with names of classes. pixels: id or colour -> how many
    pixels have it; of shapes: name -> how many there are. palette: id -> the colour that its files show it in.
    looked_at: files.
    """

    kind: Literal["ids", "colours", "masks", "shapes"]
    pixels: Counter = field(default_factory=Counter)
    palette: dict[int, Colour] = field(default_factory=dict)
    looked_at: int = 0

    def share(self, value: object) -> float:
        return self.pixels[value] / max(1, self.pixels.total())

    @property
    def binary(self) -> bool:
        """Black and white: 0 and 255, where 255 is something."""
        return self.kind == "ids" and set(self.pixels) == {0, IGNORE}


def survey(labels: Sequence[Path], classes: Sequence[str] = ()) -> Values:
    """A first look at label files. classes: those that have a file each.

    RecipeError for what cannot be labels, or cannot be told apart.
    """
    chosen = [labels[k] for k in np.linspace(0, len(labels) - 1, min(LOOKED_AT, len(labels))).astype(int)]
    if classes:
        return Values("masks", Counter(dict.fromkeys(classes, 0)), looked_at=len(labels))
    if chosen[0].suffix.lower() in ANNOTATIONS:
        return _shapes(chosen)
    found = Values("ids", looked_at=len(chosen))
    for path in track(chosen, "looking at labels"):
        _add(found, path)
    if found.kind == "ids" and len(found.pixels) >= IGNORE and max(found.pixels) <= IGNORE:
        raise RecipeError(
            f"{chosen[0].parent}: labels have {len(found.pixels)} values of grey, so they are photographs, or masks "
            "that were smoothed, resized or saved as JPEG; export them again, exactly as they were drawn"
        )
    high = max((id for id in found.pixels if isinstance(id, int)), default=0)
    if high >= INSTANCE and len({id // INSTANCE for id in found.pixels}) * 2 < len(found.pixels):
        raise RecipeError(
            f"{chosen[0].parent}: labels have ids up to {high}, as numbers of instances (class x 1000 + number); take "
            "the labels whose values are classes (in Cityscapes' layout those named _labelIds)"
        )
    return found


def _add(found: Values, path: Path) -> None:
    """Counts one file's pixels. The first file says whether labels are ids or colours."""
    kept = stored(path)
    values = kept.values
    grey = values.ndim == 2 or bool((values == values[..., :1]).all())
    kind: Literal["ids", "colours"] = "ids" if grey else "colours"
    if found.kind != kind and found.pixels:
        # A picture in colours may happen to be grey all over, as one of nothing but black.
        if kind == "colours" and set(found.pixels) <= {0, IGNORE}:
            found.pixels = Counter({(id, id, id): count for id, count in found.pixels.items()})
        elif kind == "colours":
            raise RecipeError(f"{path}: is a picture in colours, the labels before it are ids; give labels of one kind")
    if kind == "colours" or found.kind == "colours":
        found.kind = "colours"
        pixels = np.repeat(values[..., None], 3, 2) if values.ndim == 2 else values
        found.pixels.update(dict(colours_in(pixels)))
        if len(found.pixels) > MOST_COLOURS:
            raise RecipeError(
                f"{path}: labels have over {MOST_COLOURS} colours, so they are photographs (--source and --labels the "
                "wrong way round?), or masks that were smoothed, resized or saved as JPEG; export them again"
            )
        return
    ids, counts = np.unique(values if values.ndim == 2 else values[..., 0], return_counts=True)
    if kept.bits == 1:
        ids = ids * (IGNORE if IGNORE in found.pixels else 1)
    found.pixels.update({int(id): int(count) for id, count in zip(ids, counts, strict=True)})
    if kept.palette is not None:
        for id in ids:
            red, green, blue = kept.palette[id]
            found.palette.setdefault(int(id), (int(red), int(green), int(blue)))


def _shapes(chosen: Sequence[Path]) -> Values:
    """Names of the shapes of labelme's files, of the categories of one of COCO's, of the shapes of another tool's."""
    found = Values("shapes", looked_at=len(chosen))
    for path in chosen:
        try:
            tree = read_json(path) if path.suffix.lower() == ".json" else None
            if not isinstance(tree, Mapping):
                found.pixels.update(shape.name for drawing in read_drawings(path).values() for shape in drawing.shapes)
            elif "categories" in tree:
                names = {one["id"]: one["name"] for one in tree["categories"]}
                found.pixels.update(dict.fromkeys(names.values(), 0))
                found.pixels.update(names[one["category_id"]] for one in tree.get("annotations", ()))
            else:
                found.pixels.update(shape["label"] for shape in tree["shapes"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RecipeError(
                f"{path}: neither labelme's JSON nor COCO's ({type(error).__name__}: {error}); export it again, or as "
                "PNG"
            ) from None
    return found
