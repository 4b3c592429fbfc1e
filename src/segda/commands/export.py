"""`segda export`: a run's network as a file that runs without segda, see exporting/."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segda.commands.arguments import Root, Run, Step, Trust, Whose
from segda.ground.choices import ExportPrecision, ExportTo, GivenAs, Said

if TYPE_CHECKING:
    from segda.exporting.job import Done


def export(
    run: Run,
    to: Annotated[ExportTo, typer.Option(help="The format.")] = "onnx",
    out: Annotated[
        Path | str | None,
        typer.Option(help="File to write; a folder for openvino and huggingface [default: beside RUN, with its name]."),
    ] = None,
    *,
    size: Annotated[
        str, typer.Option(metavar="any|WxH", help="The size of images: any, or one, to which predict stretches them.")
    ] = "any",
    weights: Whose = "student",
    precision: Annotated[
        ExportPrecision, typer.Option(help="Of its weights; int8 is OpenVINO's, with maps of eight bits as well.")
    ] = "32",
    input: Annotated[
        GivenAs, typer.Option("--input", help="RGB as uint8 from 0 to 255, or as float from 0 to 1.")
    ] = "uint8",
    output: Annotated[
        Said, typer.Option("--output", help="What comes out for each pixel: its class, or each class's probability.")
    ] = "ids",
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="NAME:SPLIT",
            help="Images to compare with, and to find int8's ranges by; no label is read [default: RUN's target].",
        ),
    ] = None,
    score: Annotated[
        str | None,
        typer.Option(
            metavar="NAME:SPLIT",
            help="Also measure network and file on labelled data [default: none; with int8 RUN's first evaluate.data].",
        ),
    ] = None,
    root: Root = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT, if segda export wrote it.")] = False,
    step: Step = None,
    trust: Trust = (),
) -> Done:
    """Write RUN's network as a file to deploy: ONNX, a program of torch, OpenVINO, or a folder for Hugging Face.

    Normalisation and upsampling are inside. In go images (B, 3, H, W), RGB; out come classes (B, H, W) or probabilities
    (B, C, H, W), at the images' size. The file says which classes these are, and their colours. Before it is kept, it
    is read again and compared with the network on images of the target: how many pixels have the same class, and by how
    much probabilities differ, stands in the output. `segda predict OUT IMAGES` takes it as it takes a run.
    """
    from segda.commands.names import look_up_runs

    look_up_runs([run])

    from segda.exporting.job import Asked, export_run
    from segda.ground.trust import trusting

    with trusting(trust):
        place = None if out is None else Path(out)
        return export_run(
            Asked(Path(run), to, place, size, weights, precision, input, output, data, score, root, step, overwrite)
        )
