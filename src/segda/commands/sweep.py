"""`segda sweep`: the runs of a sweep file, one after the other, see training/sweep.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segda.commands.arguments import OwnDevice, OwnPrecision, Root, Trust

if TYPE_CHECKING:
    from segda.training.sweep import Outcome


def sweep(
    file: Annotated[Path | str, typer.Argument(metavar="FILE", help="A YAML file of axes, or a shipped one's name.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the run folders [default: the file's].")] = None,
    settings: Annotated[
        Sequence[str], typer.Option("--set", metavar="KEY=VALUE", help="Change one key in all runs. Repeatable.")
    ] = (),
    root: Root = None,
    device: OwnDevice = None,
    precision: OwnPrecision = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the runs' commands; start none.")] = False,
    trust: Trust = (),
) -> Outcome:
    """Train every combination of FILE's recipes, seeds and settings, and compare their means over the seeds.

    All is checked before the first run begins. A run that fails stops no other; the exit code is 1 then. Called again,
    it skips what is finished and goes on with what is not.
    """
    from segda.ground.trust import trusting
    from segda.training.sweep import Outcome, plan, script, train_all

    with trusting(trust):
        planned = plan(file, out, settings, root, device, precision)
        return Outcome(script=list(script(planned))) if dry_run else train_all(planned)
