"""What several commands of the command line share: choices and options, and how they print."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from segda.errors import visible


class Device(StrEnum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


class Precision(StrEnum):
    auto = "auto"
    full = "32"
    bf16 = "bf16"
    half = "16"


class Weights(StrEnum):
    student = "student"
    teacher = "teacher"


class Mean(StrEnum):
    logits = "logits"
    probabilities = "probabilities"


class Ids(StrEnum):
    train = "train"
    label = "label"


class What(StrEnum):
    methods = "methods"
    networks = "networks"
    benchmarks = "benchmarks"
    datasets = "datasets"
    recipes = "recipes"
    sweeps = "sweeps"


DeviceOption = Annotated[
    Device, typer.Option(help="Where to compute; auto takes cuda, mps or cpu, the first there is.")
]
PrecisionOption = Annotated[
    Precision,
    typer.Option(help="Type of the networks' arithmetic; auto is bf16 where the hardware has it, else 32."),
]
OwnDevice = Annotated[Device | None, typer.Option(help="Where to compute [default: the recipe's, else auto].")]
OwnPrecision = Annotated[Precision | None, typer.Option(help="Arithmetic [default: the recipe's, else auto].")]
RootOption = Annotated[
    Path | None,
    typer.Option("--root", "--data-root", help="Folder of the data sets [default: the recipe's, $SEGDA_DATA, data/]."),
]
WorkersOption = Annotated[
    int | None, typer.Option(metavar="N", help="Processes; 0 is this one alone [default: one a processor core].")
]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder: the --out of `segda train`.")]
StepOption = Annotated[
    int | None,
    typer.Option(metavar="N", help="The networks after that step (recipe key keep_every) [default: the last]."),
]
CheckOption = Annotated[
    bool,
    typer.Option(
        "--check", help="Build all, take a few steps on real data, say what the run will take; write nothing."
    ),
]
MaxBatchOption = Annotated[
    bool,
    typer.Option(
        "--max-batch", help="Say how many scenes a step fit in this machine's memory; reads no data, writes nothing."
    ),
]
DataFileOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="FILE.yaml",
        help="With blocks: your own data, evaluate, steps and seed, as a recipe has them.",
    ),
]


def show(renderable) -> None:
    """Prints a table; into a file or a pipe as wide as it likes, so that no word is broken."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    console.print(renderable)


def echo(text: str) -> None:
    """Prints a line, or several, at once."""
    print("\n".join(map(visible, text.split("\n"))), flush=True)
