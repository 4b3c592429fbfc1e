"""What a run sees of its target while it learns: the same few images early, in the middle and at the end.

No label of the target is needed, and none is read. A run folder keeps it in `watched/`:

    watched.json         the images' names; of each moment the step, mean entropy, share of confident pixels and of each
                         class; the classes' shares in labels of the source
    0.png                image 0, as wide as a report shows it
    0-0000040.png        what was predicted of it after step 40, in the classes' colours
    0-0000040-H.png      the entropy of that, on the scale of pictures.py
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segda.data.files.images import read_image
from segda.data.sets.dataset import DataSet
from segda.errors import DataError, RunError
from segda.evaluation.certainty import surveyed
from segda.evaluation.look import Eye, Sight, look, spread
from segda.ground.atomic import atomic_write, cannot_write, write_text
from segda.ground.memory import lacks_memory
from segda.ground.safe_yaml import one_line, read_json
from segda.ground.sealed import with_digest, without_digest
from segda.reporting.pictures import coloured, entropy_picture, png, shrunk
from segda.scene import Scene

log = logging.getLogger(__name__)

FOLDER = "watched"

PICTURE = 400
"""Pixels: how wide a picture of a report is at most."""

IMAGES = 4
"""So many images are watched at most; no more than a report shows (evaluate.report_images)."""

LABELS = 16
"""So many labels of the source say how large its classes are."""

CONFIDENT = 0.968
"""tau: a pixel whose class is this probable counts as confident [code DAFormer, pseudo_threshold]."""


@dataclass(frozen=True)
class Moment:
    """What a network says of the images after a step.

    entropy: mean over pixels, in nats. confident: share of pixels whose class has a probability above CONFIDENT.
    shares: of the pixels, by class. pictures: of each image (H, W, 3) uint8 RGB, predictions and entropies; none where
    only the numbers were read.
    """

    step: int
    entropy: float
    confident: float
    shares: Mapping[str, float]
    pictures: Sequence[tuple[np.ndarray, np.ndarray]] = ()

    def numbers(self) -> dict[str, float]:
        """For the log."""
        return {"watched/entropy": self.entropy, "watched/confident": self.confident}

    def sentence(self, source: Mapping[str, float] | None) -> str:
        said = f"mean entropy {self.entropy:.2f} nats, {100 * self.confident:.0f} % of the pixels confident"
        if source is None:
            return said
        apart = sorted(source, key=lambda name: -abs(self.shares[name] - source[name]))[:3]
        shares = ", ".join(f"{name} {100 * self.shares[name]:.0f} % ({100 * source[name]:.0f})" for name in apart)
        return f"{said}; least like the source's labels: {shares}"


@dataclass(frozen=True)
class Watched:
    """All that was seen of a target. source: the classes' shares in its labels; None where there is no source."""

    data: str
    names: tuple[str, ...]
    moments: tuple[Moment, ...]
    source: Mapping[str, float] | None


class Readable:
    """Some images of a data set, by their place in `numbers`."""

    def __init__(self, data: DataSet, numbers: Sequence[int]):
        self.data, self.numbers = data, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def read(self, i: int, label: bool = False) -> Scene:
        return self.data.read(self.numbers[i])


def readable(data: DataSet, most: int) -> list[int]:
    """Up to `most` image numbers, evenly spread, but for those that cannot be read: these are left out and named."""
    found = []
    for i in spread(len(data), most):
        try:
            data.read(i)
            found.append(i)
        except DataError as error:
            log.warning(f"not watched: {error}")
    return found


def is_no_obstacle(error: Exception) -> bool:
    """Whether an error with which a network looks at a target is no reason to stop: images that are not there, or that
    it cannot be shown, or memory that does not suffice.
    """
    return isinstance(error, DataError) or lacks_memory(error)


def observe(eye: Eye, images: Readable, step: int) -> Moment:
    """What the network says of the images. No random number is drawn; the network is in its mode again afterwards."""
    space = images.data.space
    entropies, confident, counts, pictures, pixels = 0.0, 0, np.zeros(len(space.classes), np.int64), [], 0

    def each(sight: Sight) -> None:
        nonlocal entropies, confident, counts, pixels
        seen = surveyed(sight.views, sight.size, torch.arange(1))
        label, entropy = seen.label.cpu().numpy(), seen.entropy.cpu().numpy()
        pixels += label.size
        entropies += float(entropy.sum(dtype=np.float64))
        confident += int((seen.confidence > CONFIDENT).sum())
        counts += np.bincount(label.ravel(), minlength=len(counts))
        told = shrunk(coloured(label, space), PICTURE, flat=True)
        pictures.append((told, shrunk(entropy_picture(entropy, len(counts)), PICTURE, flat=False)))

    for _ in look([eye], images, each, title=f"{images.data.spec} after step {step}", split=False):
        pass
    shares = dict(zip(space.classes, (counts / pixels).tolist(), strict=True))
    return Moment(step, entropies / pixels, confident / pixels, shares, pictures)


def label_shares(source: DataSet) -> dict[str, float] | None:
    """The share of each class in some of a data set's labels; None where none of these can be read."""
    total = np.zeros(len(source.space.classes), np.int64)
    for i in spread(len(source), LABELS):
        try:
            total += source.class_counts(i)[:-1]
        except DataError as error:
            log.warning(f"not counted: {error}")
    if not total.sum():
        return None
    return dict(zip(source.space.classes, (total / total.sum()).tolist(), strict=True))


def picture(images: Readable, k: int) -> np.ndarray:
    """(H, W, 3) uint8 RGB: image k as wide as a report shows it."""
    return shrunk(images.read(k).image.permute(1, 2, 0).numpy(), PICTURE, flat=False)


def shown(images: Readable, moment: Moment) -> dict[str, np.ndarray]:
    """The pictures of a moment for a tracker, by names that are the same in each: `watched/0/prediction`. Numbers are
    those of the files in the run folder; whose they are, watched.json says.
    """
    found: dict[str, np.ndarray] = {}
    for k, (prediction, entropy) in enumerate(moment.pictures):
        told = {"image": picture(images, k), "prediction": prediction, "entropy": entropy}
        found |= {f"watched/{k}/{name}": pixels for name, pixels in told.items()}
    return found


def keep(run: Path, images: Readable, moment: Moment, source: Mapping[str, float] | None) -> None:
    """Adds a moment to those of a run folder, in place of one of the same step."""
    folder = run / FOLDER
    names = tuple(images.data.names[i] for i in images.numbers)
    before = read_watched(run)
    same = before is not None and (before.data, before.names) == (images.data.spec, names)
    others = [one for one in (before.moments if before is not None and same else ()) if one.step != moment.step]
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    for k in range(len(images)):
        _write(folder / f"{k}.png", png(picture(images, k)))
        for ending, pixels in zip(("", "-H"), moment.pictures[k], strict=True):
            _write(folder / f"{k}-{moment.step:07d}{ending}.png", png(pixels))
    moments = sorted([*others, moment], key=lambda one: one.step)
    _write_numbers(folder, Watched(images.data.spec, names, tuple(moments), source))


def forget(run: Path, step: int) -> None:
    """Removes the moments after a step, of a run that goes on from there."""
    watched = read_watched(run)
    if watched is None or all(moment.step <= step for moment in watched.moments):
        return
    kept = [moment for moment in watched.moments if moment.step <= step]
    _write_numbers(run / FOLDER, Watched(watched.data, watched.names, tuple(kept), watched.source))
    for path in (run / FOLDER).glob("*.png"):
        if (found := OWN.fullmatch(path.name)) and found["step"] and int(found["step"]) > step:
            path.unlink(missing_ok=True)


OWN = re.compile(r"\d+(-(?P<step>\d{7,})(-H)?)?\.png|watched\.json")
"""The names of the files."""


def read_watched(run: Path) -> Watched | None:
    """The numbers of a run folder; None where nothing was watched. RunError for a damaged file."""
    path = run / FOLDER / "watched.json"
    if not path.exists():
        return None
    try:
        tree = without_digest(read_json(path))
        moments = tuple(
            Moment(int(one["step"]), float(one["entropy"]), float(one["confident"]), dict(one["shares"]))
            for one in tree["moments"]
        )
        return Watched(str(tree["data"]), tuple(map(str, tree["names"])), moments, tree["source"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{path} cannot be read ({one_line(error)}); remove it to go on without it") from error


def pictures(run: Path, k: int, step: int | None = None) -> Iterator[np.ndarray]:
    """(H, W, 3) uint8 RGB: image k or, of a moment, its prediction and its entropy. RunError for a damaged file."""
    for ending in ("",) if step is None else (f"-{step:07d}", f"-{step:07d}-H"):
        path = run / FOLDER / f"{k}{ending}.png"
        try:
            yield read_image(path).permute(1, 2, 0).numpy()
        except DataError as error:
            raise RunError(
                f"{path} cannot be shown ({one_line(error)}); remove {path.parent} to go on without"
            ) from error


def _write_numbers(folder: Path, watched: Watched) -> None:
    tree: dict[str, Any] = {
        "data": watched.data,
        "names": list(watched.names),
        "moments": [
            {"step": one.step, "entropy": one.entropy, "confident": one.confident, "shares": dict(one.shares)}
            for one in watched.moments
        ],
        "source": watched.source,
    }
    write_text(folder / "watched.json", json.dumps(with_digest(tree), indent=1) + "\n")


def _write(path: Path, content: bytes) -> None:
    with atomic_write(path) as partial:
        partial.write_bytes(content)
