"""Is a data set whole, and what is in it: counts, sizes, class shares, faults.

Every file is read; faults are collected, not stopped at. A data set without any label file is usable as a target only.
"""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from segda.data.labels.mistaken import MANY
from segda.data.labels.spaces import UNKNOWN
from segda.data.sets.dataset import DataSet, by_class
from segda.data.sets.own import OwnFiles
from segda.errors import DataError
from segda.ground.ignore import IGNORE
from segda.ground.progress import track

MOST_IGNORED = 1 / 3
"""A share of ignored pixels above it is hardly meant: public data sets have a tenth."""

LISTED_IDS = 8
"""Ids in a line."""

EXAMPLES = 3
"""Files that a note names."""


@dataclass
class DataReport:
    """What was found of a data set.

    faults: kind -> one line for each, all of them.
    sizes: (width, height) -> images.
    class_counts: (C + 1,) pixels of each class over all readable labels, the ignored ones last.
    seen: (C + 1,) images with the class.
    notes: what the public data set holds besides, and where it comes from; what is done with files; no faults.
    doubts: why a network may learn nothing of it that was meant.
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
    doubts: list[str] = field(default_factory=list)
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
        if self.doubts:
            return (
                f"usable, if {'this is' if len(self.doubts) == 1 else 'these are'} meant: see the lines marked with ?"
            )
        return "usable"


def _add(report: DataReport, kind: str, line: str) -> None:
    report.faults.setdefault(kind, []).append(line)


@dataclass
class _Look:
    """What one image and its label are like; size and class_counts are None where they cannot be known.

    ignored: ids that mean nothing -> pixels. unknown: ids without a name.
    """

    size: tuple[int, int] | None = None
    class_counts: np.ndarray | None = None
    faults: list[tuple[str, str]] = field(default_factory=list)
    remarks: list[tuple[str, str]] = field(default_factory=list)
    ignored: Counter[int] = field(default_factory=Counter)
    unknown: list[int] = field(default_factory=list)


def _look(data: DataSet, i: int, labelled: bool) -> _Look:
    found = _Look()
    try:
        height, width = data.read(i, label=False).image.shape[1:]
        found.size = (width, height)
    except DataError as error:
        found.faults.append(("unreadable files", str(error)))
    part, k = data.at(i)
    if found.size is not None:
        with suppress(DataError):  # of the label, which is said below
            found.remarks = part.remarks(k)
    if not labelled:
        return found
    try:
        ids, table = data.label_ids(i)
    except DataError as error:
        found.faults.append(("unreadable files", str(error)))
        return found
    if found.size is not None and ids.shape != found.size[::-1]:
        found.faults.append(("sizes that differ", part.differ(k, ids.shape, found.size[::-1])))
    counts = np.bincount(ids.ravel(), minlength=len(table))
    found.unknown = np.flatnonzero((table == UNKNOWN) & (counts > 0)).tolist()
    if found.unknown:
        listed = ", ".join(f"{id} ({counts[id]} pixels)" for id in found.unknown[:LISTED_IDS])
        more = ", ..." if len(found.unknown) > LISTED_IDS else ""
        found.faults.append(("unknown ids", f"{data.label_place(i)}: {listed}{more}"))
    found.ignored = Counter({int(id): int(counts[id]) for id in np.flatnonzero((table == IGNORE) & (counts > 0))})
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
    promised = any(part.promised for part in data.parts)
    if report.labels or promised:
        for i in (i for i, there in enumerate(labelled) if not there):
            _add(report, "images without label", f"{data.place(i)} (looked for {data.label_place(i)})")
    for path in data.labels_without_image():
        _add(report, "labels without image", str(path))
    at = 0
    for part in data.parts:
        report.notes += part.notes(sum(labelled[at : at + len(part)]))
        report.doubts += part.doubts()
        at += len(part)
        for line in part.other_names():
            _add(report, "ids of another meaning", line)
    sound = []
    ignored: Counter[int] = Counter()
    unknown: Counter[int] = Counter()
    remarks: dict[str, list[str]] = {}
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        futures = [pool.submit(_look, data, i, labelled[i]) for i in range(len(data))]
        try:
            for i, future in enumerate(track(futures, f"reading {spec}")):
                found = future.result()
                for kind, line in found.faults:
                    _add(report, kind, line)
                for what, where_seen in found.remarks:
                    remarks.setdefault(what, []).append(where_seen)
                ignored += found.ignored
                unknown.update(found.unknown)
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
    report.notes += [_noted(what, seen) for what, seen in remarks.items()]
    has_ids = not any(isinstance(part, OwnFiles) and part.has_names for part in data.parts)
    report.doubts += _doubts(report, ignored, unknown, has_ids)
    return report, sound


def _noted(what: str, seen: list[str]) -> str:
    shown = ", ".join(seen[:EXAMPLES])
    return f"{len(seen)} {what}: {shown}{', ...' if len(seen) > EXAMPLES else ''}"


def _doubts(report: DataReport, ignored: Counter[int], unknown: Counter[int], has_ids: bool) -> list[str]:
    """What in the labels speaks against learning from them. ignored: pixels of each id that means nothing; unknown:
    labels with each id that has no name; has_ids: whether ids are what the labels hold, not colours or names.
    """
    total = int(report.class_counts.sum())
    if not total:
        return []
    doubts = []
    there = [name for name, pixels in zip(report.classes, report.class_counts, strict=False) if pixels]
    gone = [name for name in report.classes if name not in there]
    share = report.class_counts[-1] / total
    if not there:
        doubts.append("no pixel is labelled as any class: a network learns nothing from these labels")
    elif len(there) == 1:
        doubts.append(f"{there[0]} is the only class that occurs: there is nothing to tell apart")
    if gone and there:
        doubts.append(
            f"{', '.join(gone)}: no pixel is labelled so; a network never learns {'it' if len(gone) == 1 else 'them'}"
        )
    if share > MOST_IGNORED:
        ids = ", ".join(f"{id} ({pixels} pixels)" for id, pixels in ignored.most_common(LISTED_IDS))
        most = ignored.most_common(1)[0][0]
        way = "is that meant?"
        if report.doubts:
            way = "of classes that the space lacks"
        elif has_ids and (gone or len(there) < 2):
            way = f"is {most} a class? then name it, as {(gone or ['NAME'])[0]}: {{id: {most}}}"
        doubts.append(f"{100 * share:.0f} % of the pixels are ignored{f', of the ids {ids}' if has_ids else ''}; {way}")
    if 0 < len(unknown) <= MANY:
        ids = ", ".join(map(str, sorted(unknown)))
        doubts.append(f"no class has the ids {ids}; give them to classes, or write ignored: [{ids}]")
    return doubts
