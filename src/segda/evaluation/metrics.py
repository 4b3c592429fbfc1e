"""Confusion: which class was predicted where which was true; Recognised: the same with a right to say nothing; Report:
IoU and accuracy, with their protocol.

The numbers are those of mmsegmentation's `intersect_and_union` (DAFormer's evaluation): pixels are summed
over the whole data set first, a class without pixels and predictions has no IoU and does not enter the mean.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segda.data.sets.specs import file_name
from segda.errors import RunError, few
from segda.evaluation.protocol import EnsembleProtocol, Protocol, Statistics, protocol_from_json
from segda.ground.atomic import write_text
from segda.ground.ignore import IGNORE
from segda.ground.safe_yaml import read_json

NAMED = 5
"""Classes that a remark names."""

MOST = 1 << 50
"""Pixels of a report's entry: the sum of all stays below 2^63."""


class Confusion:
    """Running counts of (label, prediction) pairs on one device, int64.

    One row for each of the 256 values that a label can have: counting needs neither a mask nor a branch,
    which makes it ten times faster than selecting the valid pixels first, and the rows that nobody asks about
    are cut off in `counts`.
    """

    def __init__(self, classes: int, device: torch.device | str = "cpu"):
        self.classes = classes
        self.rows = torch.zeros(256 * classes, dtype=torch.int64, device=device)

    def add(self, label: Tensor, prediction: Tensor) -> None:
        """Counts two equally shaped maps of train ids; labels in 0..255, predictions in 0..C-1, any integer
        types.
        """
        assert label.shape == prediction.shape, f"label {tuple(label.shape)}, prediction {tuple(prediction.shape)}"
        # int32: half the memory traffic of int64, and 256 C fits.
        pair = (label.to(self.rows.device, torch.int32) * self.classes).add_(prediction.to(self.rows.device))
        self.rows += torch.bincount(pair.flatten(), minlength=len(self.rows))

    def counts(self) -> np.ndarray:
        """(C + 1, C) int64: [label, prediction] pixels; the last row holds labels that are neither a class
        nor IGNORE.

        Whatever is predicted on the last row's pixels is wrong: they enter the union of the predicted class,
        as in mmsegmentation. Labels read through a label space have none.
        """
        rows = self.rows.view(256, self.classes).cpu().numpy()
        other = rows[self.classes : IGNORE].sum(0, keepdims=True)
        return np.concatenate([rows[: self.classes], other])


class Recognised:
    """Running counts for UIoU, uncertainty-aware IoU: a network may say nothing where it is not sure, and is right to
    where nobody could tell (Sakaridis et al., ICCV 2019, sec. 4). The authors' code has none of it, and no value of
    theirs is known: it is the paper's definition in our words.

    thresholds: confidences below which a prediction counts as none; at 1 / C and below, UIoU is IoU.
    """

    def __init__(self, classes: int, thresholds: Sequence[float], device: torch.device | str = "cpu"):
        self.classes, self.thresholds = classes, tuple(thresholds)
        self.kinds = torch.zeros(len(self.thresholds), 5, classes, dtype=torch.int64, device=device)

    def add(self, label: Tensor, invalid: Tensor, prediction: Tensor, confidence: Tensor) -> None:
        """Four equally shaped maps: train ids, whether nobody could tell, train ids, confidence of these."""
        known = label.to(self.kinds.device) < self.classes
        true, predicted = (one.to(self.kinds.device)[known].long() for one in (label, prediction))
        blind, sure = (one.to(self.kinds.device)[known] for one in (invalid, confidence))
        right = true == predicted
        for counts, threshold in zip(self.kinds, self.thresholds, strict=True):
            silent = sure < threshold
            kinds = (
                (true, ~silent & right), (true, silent & blind), (predicted, ~silent & ~right),
                (true, ~silent & ~right), (true, silent & ~blind),
            )  # fmt: skip
            for row, (of, where) in zip(counts, kinds, strict=True):
                row += torch.bincount(of[where], minlength=self.classes)

    def counts(self) -> np.ndarray:
        """(thresholds, 5, C) int64: pixels of a class that are predicted (TP), rightly left out (TI), predicted but of
        another class (FP), predicted as another (FN), and left out though they can be told (FI).
        """
        return self.kinds.cpu().numpy()

    def rates(self) -> list[float]:
        """UIoU at each threshold."""
        return [_uiou(counts) for counts in self.counts()]


def _uiou(counts: np.ndarray) -> float:
    """(5, C) of Recognised -> the mean over classes of (TP + TI) / (TP + TI + FP + FN + FI)."""
    return _mean(_ratio(counts[:2].sum(0), counts.sum(0)))


def uiou_thresholds(classes: int) -> tuple[float, ...]:
    """From where UIoU is IoU up to nearly certain."""
    return (1 / classes, *(tenth / 10 for tenth in range(1, 10) if tenth / 10 > 1 / classes))


@dataclass(frozen=True, eq=False)
class Report:
    """What one network, or an ensemble, does on one data set. All rates are in [0, 1]; NaN (null in JSON) where a class
    has no pixels.
    """

    protocol: Protocol | EnsembleProtocol
    class_names: tuple[str, ...]
    counts: np.ndarray
    """(C + 1, C) pixels, see Confusion.counts: everything else follows from it."""
    views: Mapping[str, tuple[str | tuple[str, ...], ...]] = field(default_factory=dict)
    """Title of a further mean -> the classes, or groups of classes, whose IoU it goes over, see Space.views. Predicted
    are all classes; in a group, one taken for another is right.
    """
    recognised: Mapping[float, np.ndarray] = field(default_factory=dict)
    """Threshold -> (5, C) of Recognised.counts, on data that say where nobody could tell; elsewhere none."""

    @property
    def uiou(self) -> dict[float, float]:
        """Threshold of confidence -> UIoU."""
        among = [name in self.over for name in self.class_names]
        return {threshold: _uiou(counts[:, among]) for threshold, counts in self.recognised.items()}

    @property
    def iou(self) -> np.ndarray:
        """(C,) intersection / union = hits / (labelled + predicted - hits); NaN for a class neither labelled
        nor predicted.
        """
        hits, labelled, predicted = self._areas()
        return self._measured(_ratio(hits, labelled + predicted - hits))

    @property
    def accuracy(self) -> np.ndarray:
        """(C,) hits / labelled pixels of the class (its recall); NaN for a class without labelled pixels."""
        hits, labelled, _ = self._areas()
        return self._measured(_ratio(hits, labelled))

    @property
    def miou(self) -> float:
        """Mean IoU over the classes that have one; NaN if none has."""
        return _mean(self.iou)

    @property
    def mean_accuracy(self) -> float:
        """Mean accuracy over the classes that have one; NaN if none has."""
        return _mean(self.accuracy)

    @property
    def pixel_accuracy(self) -> float:
        """Hits of all classes / pixels labelled with a class, of those that means go over."""
        hits, labelled, _ = self._areas()
        among = [name in self.over for name in self.class_names]
        return float(_ratio(hits[among].sum(), labelled[among].sum()))

    @property
    def over(self) -> tuple[str, ...]:
        """The classes that means go over."""
        return self.class_names if self.protocol.over is None else self.protocol.over

    def remarks(self) -> list[str]:
        """What a mean does not say of the classes, where it does not go over all of them, or some are not labelled."""
        said = []
        if len(self.over) < len(self.class_names):
            said.append(f"mean over {len(self.over)} of {len(self.class_names)} classes: {few(self.over, NAMED)}")
        labelled = zip(self.class_names, self.counts.sum(1), strict=False)
        if never := [name for name, pixels in labelled if name in self.over and not pixels]:
            said.append(f"no labelled pixel of {few(never, NAMED)}: IoU 0 where predicted, else left out")
        if self.recognised:
            told = ", ".join(f"{100 * rate:.1f} ({threshold:.2f})" for threshold, rate in self.uiou.items())
            said.append(f"UIoU (below a confidence nothing is said): {told}; unverified, see docs/FIDELITY.md")
        return said

    def _measured(self, rates: np.ndarray) -> np.ndarray:
        """(C,) rates; NaN for a class that means do not go over."""
        return np.where([name in self.over for name in self.class_names], rates, np.nan)

    @property
    def share(self) -> np.ndarray:
        """(C,) share of each class among the pixels labelled with a class."""
        _, labelled, _ = self._areas()
        return _ratio(labelled, labelled.sum())

    def _areas(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        classes = len(self.class_names)
        return self.counts.diagonal()[:classes], self.counts[:classes].sum(1), self.counts.sum(0)

    def view(self, name: str) -> float:
        """Mean IoU over the classes (or groups) of a view that have one; NaN if none has."""
        areas = []
        for one in self.views[name]:
            members = [self.class_names.index(each) for each in ((one,) if isinstance(one, str) else one)]
            hits = self.counts[np.ix_(members, members)].sum()
            areas.append((hits, self.counts[members].sum() + self.counts[:, members].sum() - hits))
        hits, union = np.array(areas).T
        return _mean(_ratio(hits, union))

    def rates(self) -> dict[str, float]:
        """The summary numbers by the names they have in tables."""
        views = {name: self.view(name) for name in self.views}
        return {
            "mIoU": self.miou, **views, "mean accuracy": self.mean_accuracy, "pixel accuracy": self.pixel_accuracy,
        }  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """Plain lists and numbers. Rates are there for readers; `from_json` computes them anew from the
        counts.
        """

        def known(values: np.ndarray) -> dict[str, float | None]:
            return {name: _null(value) for name, value in zip(self.class_names, values, strict=True)}

        return {
            "protocol": self.protocol.to_json(),
            "miou": _null(self.miou),
            "views": {
                name: {"miou": _null(self.view(name)), "classes": list(classes)} for name, classes in self.views.items()
            },
            "mean_accuracy": _null(self.mean_accuracy),
            "pixel_accuracy": _null(self.pixel_accuracy),
            "iou": known(self.iou),
            "accuracy": known(self.accuracy),
            "classes": list(self.class_names),
            "counts": self.counts.tolist(),
            "uiou": [
                {"threshold": threshold, "uiou": _null(self.uiou[threshold]), "counts": counts.tolist()}
                for threshold, counts in self.recognised.items()
            ],
        }

    @classmethod
    def from_json(cls, table: dict[str, Any]) -> Report:
        names = tuple(table["classes"])
        if not all(isinstance(name, str) and name.isprintable() for name in names) or len(set(names)) < len(names):
            raise ValueError("names of classes that cannot be shown, or that repeat")
        counts = _pixels(table["counts"], (len(names) + 1, len(names)))
        # Older reports have no views, and no UIoU.
        recognised = {float(row["threshold"]): _pixels(row["counts"], (5, len(names))) for row in table.get("uiou", ())}
        views = {
            name: tuple(one if isinstance(one, str) else tuple(one) for one in view["classes"])
            for name, view in table.get("views", {}).items()
        }
        for name, classes in views.items():
            if not {each for one in classes for each in ((one,) if isinstance(one, str) else one)} <= set(names):
                raise ValueError(f"view {name!r} of classes that are not in the report")
            if not name.isprintable() or not classes or not all(classes):
                raise ValueError(f"view {name!r} is empty, or has a name that cannot be shown")
        protocol = protocol_from_json(table["protocol"])
        if protocol.over is not None and (not protocol.over or not set(protocol.over) <= set(names)):
            raise ValueError("means over classes that are not in the report")
        return cls(protocol, names, counts, views, recognised)


def _pixels(rows: list[list[int]], shape: tuple[int, int]) -> np.ndarray:
    """Numbers of pixels in JSON; ValueError for anything else."""
    if not all(type(pixels) is int and 0 <= pixels < MOST for row in rows for pixels in row):
        raise ValueError("counts that are no numbers of pixels")
    counts = np.array(rows, np.int64)
    if counts.shape != shape:
        raise ValueError(f"counts of shape {counts.shape} for {shape[1]} classes")
    return counts


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def _mean(rates: np.ndarray) -> float:
    known = rates[~np.isnan(rates)]
    return float(known.mean()) if len(known) else math.nan


def _null(rate: float) -> float | None:
    return None if math.isnan(rate) else float(rate)


def report_path(run: Path, data: str, statistics: Statistics | None = None) -> Path:
    """Where a run folder keeps what was measured on a data set: camvid:test:dusk ->
    reports/camvid-test-dusk.json; with statistics of camvid:val -> reports/camvid-test-dusk-statistics-camvid-val.json.
    """
    other = "" if statistics is None else f"-statistics-{file_name(statistics.data)}"
    return run / "reports" / f"{file_name(data)}{other}.json"


def write_reports(run: Path, reports: Sequence[Report]) -> Path:
    """The reports of one data set (student, then teacher if there is one) as one JSON list, atomically."""
    (path,) = {report_path(run, report.protocol.data, report.protocol.statistics) for report in reports}
    write_list(path, reports)
    return path


def write_list(path: Path, reports: Sequence[Report]) -> None:
    """Any reports as one JSON list, atomically."""
    write_text(path, json.dumps([report.to_json() for report in reports], allow_nan=False, indent=1) + "\n")


def read_reports(run: Path) -> list[Report]:
    """All that was measured of a run, by data set, its own networks first; none when nothing was. RunError for a
    damaged file.
    """
    # Reports of snapshots are files of another kind: see snapshots.py.
    paths = sorted(
        path
        for path in (run / "reports").glob("*.json")
        if not path.stem.endswith(("-snapshots", "-snapshots-teacher"))
    )
    found = [report for path in paths for report in read_list(path)]
    return sorted(found, key=lambda report: report.protocol.statistics is not None)


def read_list(path: Path) -> list[Report]:
    """A file of reports; RunError when it is none."""
    try:
        return [Report.from_json(table) for table in read_json(path)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(
            f"{path} is not a report of segda ({type(error).__name__}: {error}); delete it and run segda evaluate again"
        ) from error
