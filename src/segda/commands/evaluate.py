"""`segda evaluate`: how well a run's networks segment labelled data sets, with the protocol beside every number; the
mean of several runs' networks; every snapshot of a run. See evaluation/runs.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segda.commands.arguments import Device, Precision, Root, Runs, Step
from segda.ground.choices import DeviceName, Mean, PrecisionName, Weights

if TYPE_CHECKING:
    from segda.evaluation.metrics import Report
    from segda.evaluation.runs import Found

STUDENT_AND_TEACHER: tuple[Weights, ...] = ("student", "teacher")


def evaluate(
    run: Path | str,
    data: Sequence[str],
    root: Path | None = None,
    weights: Sequence[Weights] = STUDENT_AND_TEACHER,
    device: DeviceName = "auto",
    precision: PrecisionName = "auto",
    step: int | None = None,
) -> list[Report]:
    """Measure a run on labelled data sets: IoU of each class, mIoU, accuracy.

    DATA is `name:split[:condition]`, for example camvid:test:dusk; several are measured one after the other.
    Student and teacher are measured if the run has both. Image size and windows are those of the run's recipe
    (evaluate.*); labels are compared at their own size. The reports go to RUN/reports/, one JSON file a data
    set; with `step`, the networks after that step are measured, and no file is written, since they are not the run's
    result.
    """
    from segda.evaluation.runs import measure_run

    return measure_run(run, data, root, weights, device, precision, step)


def evaluate_runs(
    runs: Runs,
    data: Annotated[
        Sequence[str], typer.Option("--data", metavar="NAME:SPLIT[:CONDITION]", help="Labelled data. Repeatable.")
    ],
    root: Root = None,
    weights: Annotated[
        Sequence[Weights], typer.Option(help="Whose weights [default: student and, where there is one, teacher].")
    ] = STUDENT_AND_TEACHER,
    ensemble: Annotated[
        Mean | None, typer.Option(help="Measure the RUNs as one: the mean of their networks' logits or probabilities.")
    ] = None,
    shares: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="Each RUN's share in the ensemble [default: equal ones].")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Where to write the ensemble's report [default: nowhere].")
    ] = None,
    all_checkpoints: Annotated[
        bool, typer.Option("--all-checkpoints", help="Measure every snapshot (recipe key keep_every).")
    ] = False,
    step: Step = None,
    device: Device = "auto",
    precision: Precision = "auto",
) -> list[Found]:
    """Measure runs on labelled data: IoU of each class, mIoU, accuracy, with the protocol beside the numbers.

    Several RUNs are measured one after the other, or with --ensemble as one. Reports go to each RUN's reports folder;
    those of an ensemble, which is no run, to --out.
    """
    from segda.evaluation.runs import measure_runs

    where = [Path(run) for run in runs]
    return measure_runs(
        where, data, root, tuple(weights), ensemble, shares, out, all_checkpoints, device, precision, step
    )
