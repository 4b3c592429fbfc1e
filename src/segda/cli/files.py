"""The commands of the command line that look at files, make some and change some: no network is trained or asked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segda.cli.options import DataFileOption, RootOption, StepOption, Weights, What, WorkersOption, echo, show

app = typer.Typer()


@app.command()
def convert(
    given: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A checkpoint of other code or a Hugging Face folder; or a run of ours."),
    ],
    out: Annotated[
        Path, typer.Option(help="Run folder or .safetensors file to write; with --to a .pth file, or a folder.")
    ],
    source: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="STYLE", help="advent, daformer, hrda, segformer, ... [default: told from its names]"
        ),
    ] = None,
    target: Annotated[
        str, typer.Option("--to", metavar="STYLE", help="To go back: daformer, huggingface, ...")
    ] = "segda",
    recipe: Annotated[str | None, typer.Option(help="Says what network it is, and how it is measured.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="Change one KEY=VALUE of the recipe.")] = None,
    leave_out: Annotated[
        list[str] | None, typer.Option(metavar="PREFIX", help="Do without the tensors of the file that begin so.")
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Start at random what the network has and the file has not.")
    ] = False,
    weights: Annotated[Weights, typer.Option(help="Whose, of a run folder or a training's file.")] = Weights.student,
    step: StepOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what OUT holds.")] = False,
) -> None:
    """Make a run folder of a checkpoint that other code has trained, to measure and to use it; or the other way round.

    segda convert gta2cityscapes_advent.pth --from advent --recipe advent_gta5_cityscapes --out runs/authors
    """
    from segda.commands.convert import convert as translate
    from segda.recipes.recipe import load_recipe

    loaded = load_recipe(recipe).override(*(settings or [])) if recipe else None
    agreement = (leave_out or (), str(weights), overwrite, allow_missing)
    done = translate(given, out, source, target, loaded, *agreement, step)
    echo("\n".join(done.lines()))


@app.command()
def draw(
    spec: Annotated[
        str, typer.Argument(metavar="streets:SPLIT:CONDITION", help="What to draw, e.g. streets:train:fog.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to write; must be empty or new.")],
    count: Annotated[int, typer.Option(help="How many scenes.")] = 20,
    size: Annotated[str, typer.Option(metavar="HEIGHTxWIDTH", help="Pixels of a scene.")] = "512x1024",
) -> None:
    """Write drawn street scenes as files in the Cityscapes layout: images, label ids, train ids and depth."""
    from segda.commands.draw import draw_files
    from segda.errors import RecipeError

    height, cross, width = size.partition("x")
    if not (cross and height.isdigit() and width.isdigit()):
        raise RecipeError(f"--size {size}: write HEIGHTxWIDTH in pixels, for example 512x1024")
    written = draw_files(spec, count, out, (int(height), int(width)))
    echo(f"{len(written)} files in {out}")


@app.command("check-data")
def check_data(
    spec: Annotated[str, typer.Argument(metavar="NAME:SPLIT[:CONDITION]", help="The data to look at.")],
    root: RootOption = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the contact sheet [default: check-data].")] = None,
) -> None:
    """Look through a data set before training on it: counts, sizes, classes, and every file that cannot be used.

    Writes a contact sheet (image beside its labels) to look at. Exit code 1 when the data cannot be used.
    """
    from segda.commands.check_data import check_data as look
    from segda.reporting.tables import data_table
    from segda.run import data_root

    found = look(spec, data_root(None, root), out=out or Path("check-data"))
    show(data_table(found))
    if not found.usable:
        raise typer.Exit(1)


@app.command("list")
def list_(what: Annotated[What, typer.Argument(help="What to list.")]) -> None:
    """Name the blocks (methods, networks, benchmarks), data sets, recipes or sweeps there are, a line each."""
    from segda.commands.list import list_ as listing

    show(listing(str(what)))


@app.command()
def recipe(
    name: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A shipped recipe, a YAML file, or blocks with + between them.")
    ],
    data: DataFileOption = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one key. Repeatable.")
    ] = None,
    to: Annotated[Path | None, typer.Option("--to", metavar="FILE.yaml", help="Write it there.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace FILE.yaml.")] = False,
) -> None:
    """Print a recipe as one flat file, with the source of each number beside it.

    What is printed is itself a recipe: copy it with --to mine.yaml, change it, and segda train mine.yaml.
    """
    from segda.commands.recipe import recipe as flat
    from segda.commands.recipe import write

    text = flat(name, data, settings or ())
    if to is None:
        echo(text.rstrip("\n"))
    else:
        write(text, to, overwrite)
        echo(str(to))


@app.command()
def prepare(
    spec: Annotated[str, typer.Argument(metavar="NAME[:SPLIT]", help="The data set, or one split of it.")],
    root: RootOption = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write [default: prepared/NAME].")] = None,
    cache: Annotated[bool, typer.Option("--cache", help="Write beside the data's own labels instead.")] = False,
    space: Annotated[
        str | None,
        typer.Option(help="What the ids mean [default: cityscapes-19 where the data have no other classes]."),
    ] = None,
    statistics_only: Annotated[bool, typer.Option("--statistics-only", help="Write no labels.")] = False,
    workers: WorkersOption = None,
) -> None:
    """Write labels as train ids, and class statistics, as the tools of DAFormer and EB_DA read them.

    Interrupted, it goes on where it was when it is called again. Nothing that is there is replaced.
    """
    from segda.commands.prepare import prepare as write

    echo("\n".join(write(spec, root, out, cache, space, statistics_only, workers).lines()))


@app.command("make-fog")
def make_fog(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Holds leftImg8bit, disparity and camera.")],
    beta: Annotated[list[float], typer.Option(help="Attenuation per metre, as 0.01; several are several images.")],
    out: Annotated[Path, typer.Option(help="Folder to write; may be DIR.")],
    workers: WorkersOption = None,
) -> None:
    """Make foggy images of clear ones with disparities, as Foggy Cityscapes was made of Cityscapes.

    Interrupted, it goes on where it was when it is called again. Nothing that is there is replaced.
    """
    from segda.commands.make_fog import make_fog as make

    echo("\n".join(make(folder, beta, out, workers).lines()))


@app.command("make-rain")
def make_rain(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Holds leftImg8bit, disparity and camera.")],
    alpha: Annotated[list[str], typer.Option(help="Strength: 0.01, 0.02 or 0.03; several are several images.")],
    out: Annotated[Path, typer.Option(help="Folder to write; may be DIR.")],
    pattern: Annotated[
        list[int] | None, typer.Option(help="Number of the streaks, 1 to 12; several likewise [default: 1].")
    ] = None,
    workers: WorkersOption = None,
) -> None:
    """Make rainy images of clear ones with disparities, by the model of Rain Cityscapes; the streaks are drawn.

    Interrupted, it goes on where it was when it is called again. Nothing that is there is replaced.
    """
    from segda.commands.make_rain import make_rain as make

    echo("\n".join(make(folder, alpha, pattern or [1], out, workers).lines()))
