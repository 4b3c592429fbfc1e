"""`segda pseudo-label`: labels for the images of a data set, where runs' networks are sure of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segda.ground.choices import DeviceName, PrecisionName, Weights
from segda.pseudo_labelling.job import label_images, make_job
from segda.pseudo_labelling.label import Job


def pseudo_label(
    runs: Sequence[Path | str],
    data: str,
    rule: str | Mapping[str, Any],
    out: Path | str,
    settings: Sequence[str] = (),
    root: Path | None = None,
    weights: Weights = "student",
    device: DeviceName = "auto",
    precision: PrecisionName = "auto",
    *,
    overwrite: bool = False,
    score: bool = False,
    step: int | None = None,
) -> dict[str, Any]:
    """Label the images of a data set where runs' networks are sure of them, into the folder OUT; returns its summary.

    Of several runs, the mean of the probabilities counts. The rule is a name of RULES, with the settings of rules.yaml
    and `settings` ("KEY=VALUE") changed, or a mapping of its name and all its settings. Labels have the size that the
    runs' recipes give an image (evaluate.resize). A call that was interrupted goes on where it stopped. score: when the
    labels are written, compare them with the data set's own; for the report only. weights, step: the students or the
    teachers, the last or those after that step.
    """

    def job() -> Job:
        return make_job(
            list(map(Path, runs)), data, rule, Path(out), settings, root, weights, step, device, precision, score
        )

    return label_images(job, overwrite=overwrite, score=score)
