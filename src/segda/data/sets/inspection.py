"""Is a data set whole, and what is in it: counts, sizes, class shares, faults.

Every file is read; faults are collected, not stopped at. A data set without any label file is usable as a target only.
"""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from segda.data.labels.spaces import UNKNOWN
from segda.data.sets.dataset import DataSet, by_class
from segda.errors import DataError
from segda.ground.progress import track


@dataclass
class DataReport:
    """What was found of a data set.

    faults: kind -> one line for each, all of them.
    sizes: (width, height) -> images.
    class_counts: (C + 1,) pixels of each class over all readable labels, the ignored ones last.
    seen: (C + 1,) images with the class.
    notes: what the public data set holds besides, and where it comes from; no faults.
    no_sheet: why the contact sheet could not be written.
    """

    spec: str
    where: str
    classes: tuple[str, ...]
    images: int
    labels: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    class_counts: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    seen: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    faults: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    sheet: Path | None = None
    no_sheet: str = ""

    @property
    def usable(self) -> bool:
        return not self.faults

    @property
    def verdict(self) -> str:
        if not self.usable:
            return f"unusable: {sum(map(len, self.faults.values()))} faults"
        if not self.labels:
            return "usable as a target in training; no labels, so not as a source or for evaluation"
        return "usable"


def _add(report: DataReport, kind: str, line: str) -> None:
    report.faults.setdefault(kind, []).append(line)


@dataclass
class _Look:
    """What one image and its label are like; size and class_counts are None where they cannot be known."""

    size: tuple[int, int] | None = None
    class_counts: np.ndarray | None = None
    faults: list[tuple[str, str]] = field(default_factory=list)


def _look(data: DataSet, i: int, labelled: bool) -> _Look:
    found = _Look()
    try:
        height, width = data.read(i, label=False).image.shape[1:]
        found.size = (width, height)
    except DataError as error:
        found.faults.append(("unreadable files", str(error)))
    if not labelled:
        return found
    try:
        ids, table = data.label_ids(i)
    except DataError as error:
        found.faults.append(("unreadable files", str(error)))
        return found
    name = data.label_place(i)
    if found.size is not None and ids.shape != found.size[::-1]:
        sizes = f"{ids.shape[1]}x{ids.shape[0]}, its image {found.size[0]}x{found.size[1]}"
        found.faults.append(("sizes that differ", f"{name} is {sizes}"))
    counts = np.bincount(ids.ravel(), minlength=256)
    unknown = np.flatnonzero((table == UNKNOWN) & (counts > 0))
    if len(unknown):
        listed = ", ".join(f"{id} ({counts[id]} pixels)" for id in unknown)
        found.faults.append(("unknown ids", f"{name}: {listed}"))
    found.class_counts = by_class(counts, table, data.space)
    return found


def inspect(data: DataSet) -> tuple[DataReport, list[int]]:
    """Reads every file of a data set -> what was found, and the images without a fault."""
    spec = data.spec
    classes = data.space.classes
    where = ", ".join(part.where for part in data.parts)
    report = DataReport(spec, where, classes, len(data))
    report.class_counts, report.seen = np.zeros((2, len(classes) + 1), np.int64)
    labelled = [data.labelled(i) for i in range(len(data))]
    report.labels = sum(labelled)
    if report.labels:
        for i in (i for i, there in enumerate(labelled) if not there):
            _add(report, "images without label", f"{data.place(i)} (looked for {data.label_place(i)})")
    for path in data.labels_without_image():
        _add(report, "labels without image", str(path))
    at = 0
    for part in data.parts:
        report.notes += part.notes(sum(labelled[at : at + len(part)]))
        at += len(part)
        for line in part.other_names():
            _add(report, "ids of another meaning", line)
    sound = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        futures = [pool.submit(_look, data, i, labelled[i]) for i in range(len(data))]
        try:
            for i, future in enumerate(track(futures, f"reading {spec}")):
                found = future.result()
                for kind, line in found.faults:
                    _add(report, kind, line)
                if found.size is not None:
                    report.sizes[found.size] += 1
                if found.class_counts is not None:
                    report.class_counts += found.class_counts
                    report.seen += found.class_counts > 0
                if not found.faults:
                    sound.append(i)
        finally:
            for future in futures:
                future.cancel()
    return report, sound
