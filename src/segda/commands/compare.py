"""`segda compare`: several runs beside each other, see reporting/comparison.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segda.commands.arguments import Step, Trust
from segda.ground.choices import Weights

if TYPE_CHECKING:
    from segda.reporting.comparison import Comparison


def compare(
    runs: Annotated[Sequence[Path], typer.Argument(metavar="RUN...", help="Run folders with reports.")],
    seeds: Annotated[bool, typer.Option("--seeds", help="Mean ± deviation of runs that differ in the seed.")] = False,
    weights: Annotated[Weights | None, typer.Option(help="Whose numbers [default: the students'].")] = None,
    step: Step = None,
    trust: Trust = (),
) -> Comparison:
    """Compare runs: mIoU on each data set, the target first, and how many points it is above the first RUN's.

    Of two runs a sentence says what the second one gained. Only the run folders' reports are read; measure a run first
    with segda evaluate RUN --data NAME:SPLIT. An ensemble's file of reports (segda evaluate --ensemble --out FILE.json)
    stands among them like a run. --step takes the numbers that segda evaluate RUN --all-checkpoints has measured.
    """
    from segda.commands.names import look_up_runs

    look_up_runs(runs)

    from segda.ground.trust import trusting
    from segda.reporting.comparison import side_by_side

    with trusting(trust):
        return side_by_side(runs, seeds, weights, step)
