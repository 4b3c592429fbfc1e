"""What several commands ask for: types with the words that the command line shows for them.

The commands' own files, and so this one, import no library that takes long: the help shows them all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segda.ground.choices import DeviceName, PrecisionName, Weights

if TYPE_CHECKING:
    from segda.data.labels.spaces import Space as Space
    from segda.recipes.recipe import Recipe

    RecipeLike = Recipe | str | Path
    RuleLike = str | Mapping[str, Any]
else:  # what can be typed of it
    RecipeLike = RuleLike = str
    Space = object

Run = Annotated[Path | str, typer.Argument(metavar="RUN", help="A run folder: the --out of `segda train`.")]
Runs = Annotated[
    Sequence[Path | str], typer.Argument(metavar="RUN...", help="Run folders: the --out of `segda train`.")
]
Data = Annotated[str, typer.Option(metavar="NAME:SPLIT[:CONDITION]", help="A data set.")]
Root = Annotated[
    Path | None,
    typer.Option("--root", "--data-root", help="Folder of the data sets [default: the recipe's, $SEGDA_DATA, data/]."),
]
DataFile = Annotated[
    Path | str | None,
    typer.Option(
        "--data",
        metavar="FILE.yaml",
        help="With blocks: your own data, evaluate, steps and seed, as a recipe has them.",
    ),
]
Settings = Annotated[
    Sequence[str],
    typer.Option("--set", metavar="KEY=VALUE", help="Change one key, e.g. optim.lr=1e-4. Repeatable."),
]
Trust = Annotated[
    Sequence[Path | str],
    typer.Option(
        "--trust",
        metavar="RUN",
        help="Import the classes of its own that RUN names: their code runs; or read the pickle of a model on the hub, "
        "or a .pt2 file. "
        "Repeatable.",
    ),
]
Whose = Annotated[Weights, typer.Option(help="Whose weights.")]
Step = Annotated[
    int | None, typer.Option(metavar="N", help="The weights after this step, of those kept [default: the last].")
]
DEVICE = "auto|cpu|cuda|cuda:N|mps"
Device = Annotated[
    DeviceName,
    typer.Option(metavar=DEVICE, help="Where to compute; auto takes cuda, mps or cpu, the first there is."),
]
Precision = Annotated[
    PrecisionName,
    typer.Option(help="Type of the networks' arithmetic; auto is bf16 where the hardware has it, else 32."),
]
OwnDevice = Annotated[
    DeviceName | None, typer.Option(metavar=DEVICE, help="Where to compute [default: the recipe's, else auto].")
]
OwnPrecision = Annotated[PrecisionName | None, typer.Option(help="Arithmetic [default: the recipe's, else auto].")]
Workers = Annotated[
    int | None, typer.Option(metavar="N", help="Processes; 0 is this one alone [default: one a processor core].")
]
