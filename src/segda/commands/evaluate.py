"""`segda evaluate`: how well a run's networks segment labelled data sets, with the protocol beside every number; the
mean of several runs' networks; every snapshot of a run. See evaluation/runs.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segda.commands.arguments import Device, Precision, Root, Runs, Step, Trust
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
    statistics: str | None = None,
    trust: Sequence[Path | str] = (),
) -> list[Report]:
    """Measure a run on labelled data sets: IoU of each class, mIoU, accuracy.

    DATA is `name:split[:condition]`, for example camvid:test:dusk; several are measured one after the other.
    Student and teacher are measured if the run has both. Image size and windows are those of the run's recipe
    (evaluate.*); labels are compared at their own size. The reports go to RUN/reports/, one JSON file a data
    set; with `step`, the networks after that step are measured, and no file is written, since they are not the run's
    result. With `statistics`, a data set, the networks' batch norms first take on the mean and variance of its images
    (evaluation/statistics.py); such reports are files of their own. A run of a class of somebody's own is refused
    unless `trust` names its folder: to import the class runs its code.
    """
    from segda.commands.names import look_up_data, look_up_runs

    look_up_runs([run])
    look_up_data(data)

    from segda.evaluation.runs import measure_run
    from segda.ground.trust import trusting

    with trusting(trust):
        return measure_run(run, data, root, weights, device, precision, step, statistics)


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
    statistics: Annotated[
        str | None,
        typer.Option(
            metavar="NAME:SPLIT[:CONDITION]",
            help="Batch norms take on the statistics of these images first; no label of theirs is read.",
        ),
    ] = None,
    step: Step = None,
    device: Device = "auto",
    precision: Precision = "auto",
    trust: Trust = (),
) -> list[Found]:
    """Measure runs on labelled data: IoU of each class, mIoU, accuracy, with the protocol beside the numbers.

    Several RUNs are measured one after the other, or with --ensemble as one. Reports go to each RUN's reports folder;
    those of an ensemble, which is no run, to --out. With --statistics of the target's images (AdaBN) the numbers show
    what these are worth without training; batch norms that training kept as they were stay so.
    """
    from segda.commands.names import look_up_data, look_up_runs

    look_up_runs(runs)
    look_up_data(data)

    from segda.evaluation.look import keep_memory_to_look
    from segda.evaluation.runs import measure_runs
    from segda.ground.trust import trusting
    from segda.run import load_recipe_of

    where = [Path(run) for run in runs]
    with trusting(trust):
        keep_memory_to_look(load_recipe_of(run).evaluate for run in where)
        return measure_runs(
            where, data, root, tuple(weights), ensemble, shares, out, all_checkpoints, device, precision, step,
            statistics,
        )  # fmt: skip
