"""Labelling the images of a data set where networks are sure of them: first all predictions, then the labels.

The networks see each image once; what they predict and how sure they are goes to scratch files on disk. When all images
are there, the rule's thresholds are found among all their pixels, exactly, and the labels are written. So memory does
not grow with the number of images, and an interrupted job goes on with the images that are not there yet.

Several processes share the images, and write the same bytes as one, if they have as many threads each: the last bit of
a processor's matrix product depends on that number (torchrun sets OMP_NUM_THREADS to 1 where it is not set).
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segda.data.files.images import read_ids
from segda.data.files.scratch import Scratch
from segda.data.labels.pseudo_labels import write_label
from segda.data.sets.dataset import DataSet
from segda.data.stream.augment import resize_label
from segda.distributed import group
from segda.errors import RunError
from segda.evaluation.certainty import most_probable, probabilities
from segda.evaluation.inference import Settings
from segda.evaluation.look import Eye, Sight, agreed, look, resting
from segda.ground.atomic import write_text
from segda.ground.ignore import IGNORE
from segda.ground.progress import track
from segda.pseudo_labelling.order_statistics import index_at, order_statistics
from segda.pseudo_labelling.refine import Refiner, plain
from segda.pseudo_labelling.rules import Rule, labels_kept

QUANTILES = (5, 25, 50, 75, 95)
"""Per cent of a class's pixels; their scores are in the summary."""

WRITERS = min(4, os.cpu_count() or 1)
"""Threads that write labels."""


@dataclass(frozen=True)
class Job:
    """All that is known before the first image is decoded.

    members: which networks the eyes have, for the summary. refiner: what the predictions are refined with.
    """

    out: Path
    dataset: DataSet
    spec: dict[str, Any]
    rule: Rule
    eyes: list[Eye]
    members: list[dict[str, Any]]
    precision: torch.dtype
    scratch: Scratch
    refiner: Refiner | None = None

    @property
    def look(self) -> Settings:
        """How images are brought to the networks, in which all agree: the labels' size."""
        return self.eyes[0].settings

    @property
    def classes(self) -> int:
        return len(self.dataset.space.classes)

    def windows(self) -> list[range]:
        """The images that share thresholds."""
        count = len(self.dataset)
        step = count if self.rule.images == "all" else self.rule.images
        return [range(first, min(first + step, count)) for first in range(0, count, step)]

    def marks(self) -> dict[str, Any]:
        """What scratch files are made of: with anything else they are of no use."""
        images = "".join(f"{name} {size}\n" for name, size in zip(self.dataset.names, self.scratch.sizes, strict=True))
        return {
            "data": self.dataset.spec,
            "images": hashlib.sha256(images.encode()).hexdigest(),
            "networks": [{key: value for key, value in member.items() if key != "run"} for member in self.members],
            "resize": self.look.resize and list(self.look.resize),
            "shape": self.look.shape,
            "precision": str(self.precision).removeprefix("torch."),
            "device": self.eyes[0].device.type,
            "score": self.rule.score,
            "softmax": self.rule.softmax,
            **({} if self.refiner is None else {"refinement": self.refiner.marks()}),
        }


def predict(job: Job) -> None:
    """Scratch files of the images that are not there yet."""
    due = group.from_rank_zero(lambda: [i for i in range(len(job.dataset)) if not job.scratch.has(i)])

    def write(sight: Sight) -> None:
        size, box = job.scratch.sizes[sight.index], job.look.resize
        covers = (box[1], box[0]) if box is not None and job.look.shape == "pad" else size
        if job.refiner is None:
            views = [replace(view, covers=covers, softmax=job.rule.softmax) for view in sight.views]
            label, score = most_probable(probabilities(views, size), job.rule.score)
        else:
            maps, how = job.refiner.refined(sight, covers, size)
            label, score = most_probable(maps, job.rule.score)
            # Before the scratch file, which says that the image is done.
            write_text(aligned_file(job, sight.index), how)
        if not torch.isfinite(score).all():
            raise RunError(
                f"{job.members[0]['run']}: the prediction for {sight.scene.names[0]} is not finite; use "
                "--precision 32, or a run whose training stayed finite"
            )
        job.scratch.write(sight.index, label.cpu().numpy(), score.cpu().numpy())

    with resting([] if job.refiner is None else [job.refiner.eye.network]):
        agreed(look(job.eyes, job.dataset, write, title=f"predicting {job.dataset.spec}", indices=due))


def aligned_file(job: Job, i: int) -> Path:
    """Says how the reference of image i was brought to it."""
    return job.scratch.path(i).with_suffix(".how")


def refinement(job: Job) -> dict[str, Any]:
    """For the summary: what predictions were refined with, and how many references were aligned in which way."""
    if job.refiner is None:
        return {}
    ways = Counter(aligned_file(job, i).read_text() for i in range(len(job.dataset)))
    settings = plain(job.refiner.settings)
    told = {"settings": settings, "network": job.refiner.member, "aligned": dict(sorted(ways.items()))}
    return {"refinement": told}


def write_labels(job: Job) -> dict[str, Any]:
    """Finds the thresholds, writes this process's labels, and returns the summary of all."""
    everything = range(len(job.dataset))

    def statistics(images: range, indices: Callable[[int], Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
        def parts() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            return map(job.scratch.read, track(group.own_share(images), "thresholds"))

        return order_statistics(parts, job.classes, indices, group.all_reduce_sum)

    def threshold_index(pixels: int) -> tuple[int, ...]:
        index = job.rule.index(pixels)
        return () if index is None else (index,)

    thresholds = []
    for window in job.windows():
        _, found = statistics(window, threshold_index)
        found = found[:, 0] if found.shape[1] else np.zeros(job.classes)
        thresholds.append([job.rule.threshold(float(score)) for score in found])
    pixels, quantiles = statistics(everything, lambda n: [index_at(share / 100, n) for share in QUANTILES])
    bounds, shared = np.array(thresholds), len(job.windows()[0])

    def write(i: int) -> np.ndarray:
        label = labels_kept(job.rule, *job.scratch.read(i), bounds[i // shared])
        write_label(job.out, job.dataset.names[i], label, job.dataset.space)
        return np.bincount(label.ravel(), minlength=256)[: job.classes]

    own = group.own_share(everything)

    def write_own() -> np.ndarray:
        pool = ThreadPoolExecutor(WRITERS, "write")
        kept = np.zeros(job.classes, np.int64)
        try:
            for _, counts in zip(track(own, "writing labels"), pool.map(write, own), strict=True):
                kept += counts
        finally:
            pool.shutdown(cancel_futures=True)
        return kept

    kept = group.all_reduce_sum(group.all_succeed(write_own))
    classes = [
        {
            "name": name,
            "thresholds": [window[c] for window in thresholds],
            "pixels": int(pixels[c]),
            "kept": int(kept[c]),
            "kept_share": int(kept[c]) / int(pixels[c]) if pixels[c] else None,
            "quantiles": {
                str(share): float(score) for share, score in zip(QUANTILES, quantiles[c], strict=True) if pixels[c]
            },
        }
        for c, name in enumerate(job.dataset.space.classes)
    ]
    return {
        "data": job.dataset.spec,
        "images": len(job.dataset),
        "space": job.dataset.space.name,
        "class_names": job.dataset.space.classes,
        "input": {"resize": job.look.resize, "shape": job.look.shape},
        "rule": job.spec,
        "score_of_a_pixel": job.rule.score,
        "windows": len(thresholds),
        "runs": job.members,
        **refinement(job),
        "precision": str(job.precision).removeprefix("torch."),
        "pixels": int(pixels.sum()),
        "kept": int(kept.sum()),
        "kept_share": float(kept.sum() / pixels.sum()),
        "classes": classes,
    }


def compare_with_truth(job: Job) -> dict[str, Any]:
    """How many of the predicted and of the kept pixels are right, by predicted class, where the truth is known.

    Of written labels, against the data set's own at their size: for the report only, nothing is made of it.
    """

    counts = np.zeros((4, job.classes), np.int64)  # known, of these right; known and kept, of these right

    def compare(sight: Sight) -> None:
        i = sight.index
        assert sight.scene.label is not None
        truth = resize_label(sight.scene.label, job.scratch.sizes[i], job.look.kernel).numpy()
        predicted, _ = job.scratch.read(i)
        known, right = truth != IGNORE, truth == predicted
        kept = read_ids(job.out / f"{job.dataset.names[i]}.png") != IGNORE
        for row, pixels in enumerate((known, right, known & kept, right & kept)):
            counts[row] += np.bincount(predicted[pixels], minlength=job.classes)

    agreed(look([], job.dataset, compare, title="comparing", label=True))
    counts = group.all_reduce_sum(counts)

    def rates(known: int, right: int, kept: int, kept_right: int) -> dict[str, float | None]:
        return {
            "accuracy_predicted": right / known if known else None,
            "accuracy_kept": kept_right / kept if kept else None,
        }

    names = job.dataset.space.classes
    return {
        "note": "hidden labels: measured with the data set's own labels, which a target does not have",
        **rates(*map(int, counts.sum(1))),
        "classes": {name: rates(*map(int, column)) for name, column in zip(names, counts.T, strict=True)},
    }
