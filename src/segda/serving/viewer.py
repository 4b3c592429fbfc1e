"""What networks say of one image or of a short video, as pictures for a page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segda.data.files import video
from segda.data.files.photos import facts_of, read_photo
from segda.data.labels.spaces import Space, as_hex
from segda.errors import DataError, RecipeError
from segda.evaluation.certainty import labels, labels_and_entropy
from segda.evaluation.inference import views
from segda.evaluation.look import Eye
from segda.evaluation.soundness import refuse_too_small
from segda.ground.choices import DeviceName, PrecisionName, Weights
from segda.reporting.pictures import coloured, data_uri, entropy_picture, shrunk
from segda.reporting.predictions import told
from segda.reporting.tables import names_of

WIDEST, FRAME_WIDEST = 1280, 640
"""Pixels of the width at which the page has an image, and each frame of a video."""

FRAMES = 16
"""Of a video."""

MEGAPIXELS = 25
"""Of an image that is taken. A larger one would keep others waiting for minutes."""


@dataclass(frozen=True)
class Viewer:
    """A network, what it is called on the page, and its classes. sure: it gives classes alone."""

    name: str
    space: Space
    eye: Eye

    @property
    def sure(self) -> bool:
        return bool(getattr(self.eye.network, "sure", False))


def viewers_of(places: Sequence[Path], weights: Weights, device: DeviceName, precision: PrecisionName) -> list[Viewer]:
    """One for each run or exported file, of the same classes."""
    found = []
    for place, name in zip(places, names_of(places), strict=True):
        space, _, seen = told(place, weights, device, precision, None)
        eye = seen()
        eye.network.eval()
        found.append(Viewer(name, space, eye))
    refuse_other_classes(found)
    return found


def refuse_other_classes(viewers: Sequence[Viewer]) -> None:
    """RecipeError where two cannot be compared."""
    first, *others = viewers
    for other in others:
        if other.space.classes != first.space.classes:
            only = sorted({*other.space.classes} ^ {*first.space.classes})
            raise RecipeError(
                f"{other.name} and {first.name} have other classes ({', '.join(only) or 'in another order'}); show two "
                "networks of the same ones"
            )


def about(viewers: Sequence[Viewer]) -> dict[str, Any]:
    """What the page has to know before it shows anything."""
    space = viewers[0].space
    return {
        "names": [viewer.name for viewer in viewers],
        "classes": [{"name": name, "colour": as_hex(space.colours[name])} for name in space.classes],
        "entropy": not all(viewer.sure for viewer in viewers),
        "videos": video.SUFFIXES,
    }


def shown(path: Path, viewers: Sequence[Viewer]) -> list[dict[str, Any]]:
    """An image, or frames of a video, and what each network says of it. DataError for a file that is neither, or is
    too large or too small.
    """
    frames = []
    for second, image, widest in _images(path):
        pixels = shrunk(np.ascontiguousarray(image.permute(1, 2, 0).numpy()), widest, flat=False)
        size = {"height": image.shape[1], "width": image.shape[2]}
        seen = [seen_by(viewer, image, path, widest) for viewer in viewers]
        frames.append({"second": second, **size, "image": data_uri(pixels, "JPEG"), "seen": seen})
    return frames


def _images(path: Path) -> Iterator[tuple[float | None, Tensor, int]]:
    """The second in a video, (3, H, W) uint8 RGB, and how wide the page has it."""
    if video.is_video(path):
        yield from ((second, frame, FRAME_WIDEST) for second, frame in video.frames_of(path, FRAMES))
        return
    height, width = facts_of(path).size
    if height * width > MEGAPIXELS * 1_000_000:
        raise DataError(
            f"{path}: {width}x{height} is more than the {MEGAPIXELS} megapixels that this page takes; use segda predict"
        )
    yield None, read_photo(path), WIDEST


def seen_by(viewer: Viewer, image: Tensor, path: Path, widest: int) -> dict[str, Any]:
    """image: (3, H, W) uint8 RGB. The label's picture, the share of each class, and how unsure the network is: a
    picture of the entropy, and its mean as a share of ln C; both None of one that gives classes alone.
    """
    size, eye = (image.shape[1], image.shape[2]), viewer.eye
    refuse_too_small(str(path), size, eye.network, eye.settings)
    seen = views(eye.network, image, eye.settings, eye.device, eye.autocast)
    count, unsure, picture = len(viewer.space.classes), None, None
    with torch.inference_mode():
        if viewer.sure:
            label = labels(seen, size)
        else:
            label, entropy = labels_and_entropy(seen, size)
            unsure = float(entropy.mean()) / math.log(max(count, 2))
            picture = data_uri(shrunk(entropy_picture(entropy.cpu().numpy(), count), widest, flat=True), "PNG")
    ids = label.cpu().numpy()
    return {
        "label": data_uri(shrunk(coloured(ids, viewer.space), widest, flat=True), "PNG"),
        "entropy": picture,
        "unsure": unsure,
        "shares": (np.bincount(ids.ravel(), minlength=256)[:count] / ids.size).tolist(),
    }
