"""`segda pseudo-label`: labels for the images of a data set, where runs' networks are sure of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segda.commands.arguments import Device, Precision, Root, RuleLike, Step, Trust, Whose
from segda.errors import RecipeError

if TYPE_CHECKING:
    from segda.pseudo_labelling.label import Job


def pseudo_label(
    runs: Annotated[
        Sequence[Path | str], typer.Argument(metavar="RUN...", help="Run folders; of several, the mean counts.")
    ],
    data: Annotated[str, typer.Option(metavar="NAME:SPLIT[:CONDITION]", help="The images to label.")],
    rule: Annotated[
        RuleLike,
        typer.Option(help="entropy-median (ESL), class-median (BDL), quantile (FDA) or fixed; see rules.yaml."),
    ],
    out: Annotated[Path | str, typer.Option(help="Folder for the labels; a later `segda train` reads it.")],
    settings: Annotated[
        Sequence[str],
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting of the rule, e.g. floor=0.2. Repeatable."),
    ] = (),
    root: Root = None,
    weights: Whose = "student",
    device: Device = "auto",
    precision: Precision = "auto",
    *,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin anew in an OUT that holds labels.")] = False,
    score: Annotated[
        bool,
        typer.Option("--score", help="When all is written, compare with the true labels; for the report only."),
    ] = False,
    refine: Annotated[
        RuleLike | None,
        typer.Option(
            metavar="references",
            help="Fuse each prediction with that of the image's reference (MGCDA); see refine.yaml.",
        ),
    ] = None,
    refine_settings: Annotated[
        Sequence[str],
        typer.Option(
            "--refine-set",
            metavar="KEY=VALUE",
            help="A setting of it: references=NAME:SPLIT, alignment=none|filter|geometry, run=RUN, ... Repeatable.",
        ),
    ] = (),
    step: Step = None,
    resize: Annotated[
        str | tuple[int, int] | None,
        typer.Option(metavar="WIDTHxHEIGHT", help="Size of images and labels [default: evaluate.resize of the RUNs]."),
    ] = None,
    trust: Trust = (),
) -> dict[str, Any]:
    """Label the images of a data set where RUN's network is sure of them: stage two of self-training.

    One PNG of train ids an image, with 255 where the rule keeps no label, a summary and a contact sheet. Labels have
    the size that the runs' recipes give an image (evaluate.resize), or --resize. Memory does not grow with the number
    of images; scratch files on disk do, and are removed at the end. A call that was interrupted goes on when it is
    repeated. Also under torchrun; with the same OMP_NUM_THREADS, the result is the same to the bit.

    With --refine references, what the networks say of an image is fused with what they (or another run's network, run=)
    say of its reference, the same place by day: as it is, smoothed along the image's edges (alignment=filter), or
    moved to the image's camera by features and the reference's depth (alignment=geometry, depth=DIR).
    """
    from segda.commands.names import look_up_data, look_up_runs

    look_up_runs(runs)
    look_up_data([data])

    from segda.ground.trust import trusting
    from segda.pseudo_labelling.job import label_images, make_job

    box = _box(resize) if isinstance(resize, str) else resize

    def job() -> Job:
        return make_job(
            list(map(Path, runs)), data, rule, Path(out), settings, root, weights, step, device, precision, score,
            box, refine, refine_settings,
        )  # fmt: skip

    with trusting(trust):
        return label_images(job, overwrite=overwrite, score=score)


def _box(size: str) -> tuple[int, int]:
    """(width, height) of "1024x512"."""
    width, cross, height = size.partition("x")
    if not (cross and width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise RecipeError(f"--resize {size}: write WIDTHxHEIGHT in pixels, for example 1024x512")
    return int(width), int(height)
