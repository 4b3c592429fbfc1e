"""What a network sees in images, as label maps and pictures in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segda.data.labels.spaces import Space
from segda.data.sets.given import Given
from segda.errors import DataError, RunError
from segda.evaluation.certainty import labels, labels_and_entropy
from segda.evaluation.look import Sight
from segda.reporting.pictures import coloured, entropy_picture, overlaid

TRAIN_IDS = np.arange(256, dtype=np.uint8)


@dataclass(frozen=True)
class Planned:
    """One image and the files that will be written for it: "label", and those of the pictures that were asked
    for.
    """

    image: Given
    files: dict[str, Path]


def drawn(sight: Sight, pictures: Sequence[str], space: Space, opacity: float) -> dict[str, np.ndarray]:
    """The (H, W) train ids of an image as "label", and (H, W, 3) RGB of the pictures, by their names."""
    content: dict[str, np.ndarray] = {}
    if "entropy" in pictures:
        label, unsure = labels_and_entropy(sight.views, sight.size)
        content["entropy"] = entropy_picture(unsure.cpu().numpy(), len(space.classes))
    else:
        label = labels(sight.views, sight.size)
    content["label"] = label.cpu().numpy()
    if "colour" in pictures:
        content["colour"] = coloured(content["label"], space)
    if "overlay" in pictures:
        content["overlay"] = overlaid(sight.scene.image.permute(1, 2, 0).numpy(), content["label"], space, opacity)
    return content


def plan(images: Sequence[Given], out: Path, pictures: Sequence[str]) -> list[Planned]:
    """Which files come of which image. Errors, before anything is read, when two would come to the same
    place.
    """
    if out.exists() and not out.is_dir():
        raise RunError(f"{out} is a file; give a folder for the predictions with --out")
    if out.suffix.lower() == ".zip":
        raise RunError(f"{out}: predictions go to a folder; an archive is made with --submission")
    planned = [
        Planned(
            image,
            {"label": out / f"{image.stem}.png"} | {name: out / f"{image.stem}_{name}.png" for name in pictures},
        )
        for image in images
    ]
    # Casefolded: on some systems a.png and A.png are one file.
    owner: dict[str, Given] = {}
    for each in planned:
        for path in each.files.values():
            other = owner.setdefault(path.name.casefold(), each.image)
            if other != each.image:
                raise DataError(
                    f"{other.where} and {each.image.where} would both be written to {path}; predict them into two "
                    "folders"
                )
    given = {image.path.resolve() for image in images if image.path is not None}
    for each in planned:
        for path in each.files.values():
            if path.resolve() in given:
                raise RunError(f"{path} is one of the images and would be overwritten; choose another --out")
    return planned
