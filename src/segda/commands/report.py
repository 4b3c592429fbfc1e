"""`segda report`: a run on one self-contained page: numbers, curves, IoU bars, pictures of what it sees."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segda.commands.arguments import Device, Root, Run, Step, Trust
from segda.ground.choices import Weights


def report(
    run: Run,
    against: Annotated[Path | None, typer.Option(help="A source-only run to show beside it.")] = None,
    device: Device = "auto",
    root: Root = None,
    weights: Annotated[Weights, typer.Option(help="Whose pictures.")] = "student",
    step: Step = None,
    trust: Trust = (),
) -> Path:
    """Make RUN/report.html: curves, IoU bars and pictures in one self-contained file.

    It shows the target, of which no label is needed: what the network saw of it as it learnt, or what the one that
    --weights and --step name sees of it now. Its tables come from the run's reports (segda evaluate), further pictures
    from the first data set in the recipe's evaluate.data.
    """
    from segda.commands.names import look_up_runs

    look_up_runs([run])

    from segda.ground.trust import trusting
    from segda.reporting.html import write_report

    with trusting(trust):
        return write_report(Path(run), against, device, root, weights, step)
