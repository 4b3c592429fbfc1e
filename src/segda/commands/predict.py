"""`segda predict`: what a run's network makes of any images, see reporting/writing.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from segda.commands.arguments import Device, Precision, Root, Step, Trust, Whose
from segda.ground.choices import Ids, OnBadImage, PaletteName


def predict(
    run: Annotated[
        Path | str,
        typer.Argument(metavar="RUN", help="A run folder: the --out of `segda train`; or of `segda export`."),
    ],
    images: Annotated[
        Sequence[Path], typer.Argument(metavar="IMAGES...", help="Image files or folders of them; or --data.")
    ],
    out: Annotated[Path | str, typer.Option(help="Folder for the results, or the archive of a submission.")],
    weights: Whose = "student",
    colour: Annotated[bool, typer.Option("--colour", help="Also write each class in its colour.")] = False,
    overlay: Annotated[bool, typer.Option("--overlay", help="Also write the colours over the image.")] = False,
    entropy: Annotated[bool, typer.Option("--entropy", help="Also write a map of the network's uncertainty.")] = False,
    device: Device = "auto",
    precision: Precision = "auto",
    *,
    data: Annotated[
        str | None, typer.Option("--data", metavar="NAME:SPLIT[:CONDITION]", help="A data set; labels are not needed.")
    ] = None,
    root: Root = None,
    ids: Annotated[Ids | None, typer.Option(help="Train ids or Cityscapes' label ids [default: train].")] = None,
    opacity: Annotated[
        float | None, typer.Option(metavar="0..1", help="Of the overlay's colours [default: 0.5].")
    ] = None,
    palette: Annotated[
        PaletteName, typer.Option(help="The classes' own colours, or those that the colour-blind tell apart.")
    ] = "own",
    legend: Annotated[
        bool, typer.Option("--legend", help="Say under each picture which colour is which class.")
    ] = False,
    camera: Annotated[
        int | None, typer.Option(metavar="N", help="The camera of this number, until Ctrl-C; in place of IMAGES.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(metavar="S", help="Of a video or a camera, the first S seconds alone.")
    ] = None,
    submission: Annotated[
        str | None,
        typer.Option(
            metavar="SERVER",
            help="Make OUT the zip for a test server: cityscapes, acdc or dark-zurich; see docs/COMMANDS.md.",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Also replace files in OUT that segda predict did not write.")
    ] = False,
    on_bad_image: Annotated[
        OnBadImage, typer.Option(help="At images that cannot be used: stop before any is written, or skip them.")
    ] = "stop",
    step: Step = None,
    trust: Trust = (),
) -> list[Path]:
    """Label images: one PNG of ids an image, and pictures of it if you ask for them; or a submission to a test server.

    Or videos (MP4, MOV, AVI, MKV, WebM), or a camera: of each a video STEM_overlay.mp4, or of the pictures that you ask
    for, and how many frames a second it took.

    How an image is shown to the network (size, windows, scales, mirrored or not) is as in RUN's recipe: evaluate.*.
    An exported file (.onnx, .pt2, a folder of OpenVINO) shows them in the same way.

    IMAGES are PNG, JPEG, WebP, TIFF or BMP, RGB or greyscale, turned as their camera's tag says. A folder's subfolders
    come along and are there again in OUT. Each image gets a label map STEM.png, a palette PNG of its size whose values
    are train ids or, with --ids label, those of Cityscapes' label files (7 road, ...). On demand also STEM_colour.png,
    STEM_overlay.png (the colours over the image) and STEM_entropy.png: how unsure the network is of each pixel, H / ln
    C from 0 (certain: dark violet) over 0.5 (blue-green) to 1 (all classes equal: yellow), where H is the entropy in
    nats and C the number of classes. Dark images are lightened under the overlay. An earlier call's files of these
    names are replaced; others' are with --overwrite alone. All images are read once before anything is written, and
    those that cannot be used are named.
    """
    from segda.commands.names import look_up_runs

    look_up_runs([run])

    from segda.data.files.video import is_video
    from segda.errors import RecipeError
    from segda.ground.trust import trusting
    from segda.reporting.films import predict_films
    from segda.reporting.predictions import predict_images

    asked = (("colour", colour), ("overlay", overlay), ("entropy", entropy))
    pictures = [name for name, wanted in asked if wanted]
    films = [path for path in map(Path, images) if is_video(path)]
    if films or camera is not None:
        told = {"--data": data, "--ids": ids, "--submission": submission, "--legend": legend or None}
        told["--on-bad-image skip"] = None if on_bad_image == "stop" else on_bad_image
        if idle := [option for option, given in told.items() if given is not None]:
            raise RecipeError(f"{idle[0]} has no place with a video or a camera")
        if len(films) < len(images) or (films and camera is not None):
            raise RecipeError("give images, videos and a camera in a call each")
        with trusting(trust):
            return predict_films(
                Path(run), films if camera is None else [camera], Path(out), weights, pictures or ["overlay"], device,
                precision, opacity, palette, overwrite, step, seconds,
            )  # fmt: skip
    if seconds is not None:
        raise RecipeError(f"--seconds {seconds:g} is of a video or a camera")
    with trusting(trust):
        return predict_images(
            Path(run), images, Path(out), weights, pictures, device, precision, data, root, ids, opacity, palette,
            legend, submission, overwrite, step, on_bad_image,
        )  # fmt: skip
