"""`segda select`: which of several networks to take, without labels of the target; see evaluation/selection.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segda.commands.arguments import Device, Precision, Root, Runs, Step, Trust
from segda.ground.choices import Criterion, Weights

if TYPE_CHECKING:
    from segda.evaluation.selection import Selection

STUDENT: tuple[Weights, ...] = ("student",)


def select(
    runs: Runs,
    data: Annotated[
        str | None,
        typer.Option(metavar="NAME:SPLIT[:CONDITION]", help="Images to judge by [default: the runs' target]."),
    ] = None,
    by: Annotated[Criterion, typer.Option(help="The criterion that chooses.")] = "nuclear-norm",
    images: Annotated[int, typer.Option(metavar="N", help="So many of the images, evenly spread.")] = 100,
    source: Annotated[
        str | None,
        typer.Option(
            metavar="NAME:SPLIT[:CONDITION]",
            help="Labelled images of the source [default: those of the first run's evaluate.data].",
        ),
    ] = None,
    oracle: Annotated[
        str | None,
        typer.Option(
            metavar="NAME:SPLIT[:CONDITION]",
            help="Labelled images of the target: says what each criterion is worth; they choose nothing.",
        ),
    ] = None,
    root: Root = None,
    weights: Annotated[
        Sequence[Weights],
        typer.Option(help="Whose weights; repeatable [default: student, see docs/results/select.md]."),
    ] = STUDENT,
    step: Step = None,
    device: Device = "auto",
    precision: Precision = "auto",
    trust: Trust = (),
) -> Selection:
    """Choose among runs and their snapshots without target labels, by criteria that look at predictions alone.

    Each RUN's last network and its snapshots (recipe key keep_every) are candidates, students alone unless --weights
    says otherwise: a teacher of few steps is sure of what is wrong, and nearly every criterion takes it. A table has
    what each criterion says of each, its rank, and the network that the criterion of --by takes. What the criteria
    are and how they can be fooled stands in evaluation/criteria.py; how well they chose, in docs/results/select.md. No
    target label is read unless --oracle names data: then the table says how each criterion's order agrees with that of
    the mIoU there (Spearman's rank correlation), and how many points its choice lies below the best.
    """
    from segda.commands.names import look_up_runs

    look_up_runs(runs)

    from segda.evaluation.selection import select_network
    from segda.ground.trust import trusting

    with trusting(trust):
        return select_network(
            list(map(Path, runs)), data, by, images, source, oracle, root, tuple(weights), step, device, precision
        )
