"""Which image shows the same place by day, in normal conditions: ACDC's and Dark Zurich's references.

ACDC's reference of an image has its name with `_ref`. Dark Zurich pairs its training images in the lists of `corresp/`
(`corresp/train/night/...csv`: a line `train/night/GOPR0351/GOPR0351_frame_000001,train/day/...`), and those of val and
test by name: `val/night/GOPR0356/KEY_rgb_anon.png` with `val_ref/day/GOPR0356_ref/KEY_ref..._rgb_anon.png`.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

from segda.data.files.archives import read_bytes
from segda.data.sets.datasets import DataSet
from segda.data.sets.trees import fields
from segda.errors import DataError, RecipeError

CORRESPONDENCES = ("corresp/{split}/*.csv", "corresp/{split}/*/*.csv", "corresp/{split}/*/*/*.csv")


def references(data: DataSet) -> tuple[Path | None, ...]:
    """The reference of each image of acdc or dark-zurich, None for one that has none.

    RecipeError for another data set; DataError where there are no references at all.
    """
    found = {"acdc": _acdc, "dark-zurich": _dark_zurich}.get(data.spec.split(":")[0])
    if found is None:
        raise RecipeError(f"{data.spec}: only the images of acdc and dark-zurich have references")
    names = found(data)
    if not any(names):
        raise DataError(
            f"{data.spec}: no image in {data.folder} has a reference; get them from {data.row.page} and see "
            "docs/DATA.md"
        )
    return tuple(None if name is None else data.tree.path(name) for name in names)


def _acdc(data: DataSet) -> list[str | None]:
    template = "rgb_anon/{condition}/{split}_ref/{sequence}/{key}_rgb_ref_anon.png".replace("{split}", data.split)
    there = set(data.tree.matches((template,)))
    names = [template.format(**_place(data, image)) for image in data.images]
    return [name if name in there else None for name in names]


def _dark_zurich(data: DataSet) -> list[str | None]:
    if data.split == "train":
        partner = _correspondences(data)
        keys = (f"{data.split}/{'/'.join(_place(data, image).values())}" for image in data.images)
        return [f"rgb_anon/{partner[key]}_rgb_anon.png" if key in partner else None for key in keys]
    by_key = {}
    for name in data.tree.matches((f"rgb_anon/{data.split}_ref/day/{{sequence}}/{{key}}_rgb_anon.png",)):
        key, ref, _ = Path(name).name.partition("_ref")
        if ref:
            by_key[key] = name
    return [by_key.get(_place(data, image)["key"]) for image in data.images]


def _place(data: DataSet, image: str) -> dict[str, str]:
    return fields(image, data.row.image_files(data.split))


def _correspondences(data: DataSet) -> dict[str, str]:
    """Image -> reference, both without their ending; DataError for a line that is no pair."""
    partner: dict[str, str] = {}
    for name in data.tree.matches(tuple(path.replace("{split}", data.split) for path in CORRESPONDENCES)):
        path = data.tree.path(name)
        try:
            lines = list(csv.reader(io.StringIO(read_bytes(path).decode("utf-8"))))
        except (OSError, ValueError, csv.Error) as error:
            raise DataError(f"{path}: is no list of pairs ({error}); download the archive again") from None
        for number, line in enumerate(lines, 1):
            if len(line) < 2:
                raise DataError(f"{path}: line {number} is no pair of images; download the archive again")
            partner[line[0].strip()] = line[1].strip()
    return partner
