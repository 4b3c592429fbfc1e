"""Snapshots: what a run's networks were worth after every so many steps, and which step the labels would choose.

ADVENT and ESL report the best of their checkpoints on the very labels that they report on (`eval_UDA.py`, mode "best").
Nobody has these labels in practice, so that such a choice is an oracle's. Here it is said wherever the number is shown,
and it is never a run's result: that is the last checkpoint's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segda.errors import RunError
from segda.evaluation.metrics import Report, report_path
from segda.evaluation.protocol import EnsembleProtocol
from segda.ground.atomic import write_text
from segda.ground.choices import Weights
from segda.ground.safe_yaml import read_json

ORACLE = "oracle: chosen by target labels"
"""Stands wherever the best of several checkpoints is shown."""

LAST = "last checkpoint: the run's result"

ENDINGS: dict[Weights, str] = {"student": "-snapshots", "teacher": "-snapshots-teacher"}
"""Of the files' names, after those of reports."""


@dataclass(frozen=True)
class Snapshot:
    """A network's report after some step, and the SHA-256 of the weights' file that was measured."""

    mark: str
    report: Report


@dataclass(frozen=True)
class Snapshots:
    """All that was measured of a run's students, or of its teachers, on one data set: step -> Snapshot.

    last: the step of the run's last checkpoint, which is one of them.
    """

    data: str
    by_step: Mapping[int, Snapshot]
    last: int

    @property
    def weights(self) -> Weights:
        return self.by_step[self.last].report.protocol.weights

    def mious(self) -> dict[int, float]:
        """Step -> mIoU, by step."""
        return {step: self.by_step[step].report.miou for step in sorted(self.by_step)}

    @property
    def best(self) -> int:
        """The oracle's choice: the first step with the highest mIoU."""
        mious = self.mious()
        return max(mious, key=lambda step: -1.0 if math.isnan(mious[step]) else mious[step])

    def to_json(self) -> dict[str, Any]:
        """`steps` and what stands before it are for readers; `from_json` takes the reports."""

        def known(step: int) -> dict[str, Any]:
            miou = self.by_step[step].report.miou
            return {"step": step, "miou": None if math.isnan(miou) else miou}

        steps = sorted(self.by_step)
        return {
            "data": self.data,
            "last": {**known(self.last), "note": LAST},
            "best": {**known(self.best), "note": ORACLE},
            "mious": [known(step) for step in steps],
            "snapshots": [
                {"step": step, "sha256": self.by_step[step].mark, "report": self.by_step[step].report.to_json()}
                for step in steps
            ],
        }

    @classmethod
    def from_json(cls, table: dict[str, Any]) -> Snapshots:
        measured = {
            int(one["step"]): Snapshot(one["sha256"], Report.from_json(one["report"])) for one in table["snapshots"]
        }
        if not isinstance(table["data"], str) or not table["data"].isprintable():
            raise ValueError("the name of its data cannot be shown")
        if any(isinstance(one.report.protocol, EnsembleProtocol) for one in measured.values()):
            raise ValueError("a report of several networks")
        last = int(table["last"]["step"])
        if last not in measured:
            raise ValueError(f"no report of the last step, {last}")
        return cls(table["data"], measured, last)


def snapshots_path(run: Path, data: str, weights: Weights = "student") -> Path:
    """camvid:test:dusk -> reports/camvid-test-dusk-snapshots.json."""
    report = report_path(run, data)
    return report.with_name(f"{report.stem}{ENDINGS[weights]}.json")


def write_snapshots(run: Path, snapshots: Snapshots) -> None:
    text = json.dumps(snapshots.to_json(), allow_nan=False, indent=1) + "\n"
    write_text(snapshots_path(run, snapshots.data, snapshots.weights), text)


def read_snapshots(run: Path) -> list[Snapshots]:
    """Of each data set that a run's snapshots were measured on; RunError for a damaged file."""
    found = []
    for path in (path for ending in ENDINGS.values() for path in sorted((run / "reports").glob(f"*{ending}.json"))):
        try:
            found.append(Snapshots.from_json(read_json(path)))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise RunError(
                f"{path} holds no snapshots' reports ({type(error).__name__}: {error}); "
                "delete it and run segda evaluate --all-checkpoints again"
            ) from error
    return found
