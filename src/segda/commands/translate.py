"""`segda translate`: the images of a data set in the style of another, see training/translation.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segda.commands.arguments import Device, Precision, Root, RuleLike, Run, Step, Trust
from segda.ground.choices import Domain

if TYPE_CHECKING:
    from segda.training.translation import Job


def translate(
    run: Run,
    data: Annotated[str, typer.Option(metavar="NAME:SPLIT[:CONDITION]", help="The images to translate.")],
    out: Annotated[Path | str, typer.Option(help="Folder for the images; data.source.images of a recipe takes it.")],
    to: Annotated[Domain, typer.Option(help="The domain that they are to look like.")] = "target",
    root: Root = None,
    device: Device = "auto",
    precision: Precision = "auto",
    *,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Make all images anew in an OUT that has been made of the same data.")
    ] = False,
    enlarge: Annotated[
        RuleLike | None,
        typer.Option(
            metavar="joint",
            help="Bring what is painted to its original's size, along the original's edges (MGCDA); see enlarge.yaml.",
        ),
    ] = None,
    enlarge_settings: Annotated[
        Sequence[str],
        typer.Option("--enlarge-set", metavar="KEY=VALUE", help="A setting of it, e.g. space=0.5. Repeatable."),
    ] = (),
    step: Step = None,
    trust: Trust = (),
) -> dict[str, Any]:
    """Translate the images of a data set with RUN's translator: its source to look like its target, or back.

    Each image keeps the path and the name that it has in its data set. It has the size at which the translator was
    trained, or with --enlarge that of its original. OUT also gets a summary and a contact sheet of images before and
    after. Each image's own statistics count, as in training. A call that was interrupted goes on when it is repeated.
    Also under torchrun.
    """
    from segda.commands.names import look_up_data, look_up_runs

    look_up_runs([run])
    look_up_data([data])

    from segda.ground.trust import trusting
    from segda.training.translation import make_job, translate_images

    def job() -> Job:
        return make_job(Path(run), data, Path(out), to, root, step, device, precision, enlarge, enlarge_settings)

    with trusting(trust):
        return translate_images(job, overwrite=overwrite)
