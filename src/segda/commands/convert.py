"""`segda convert`: checkpoints of other code bases to ours, ready to measure and to use, and ours to theirs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segda.commands.arguments import RecipeLike, Settings, Step, Trust
from segda.errors import RecipeError
from segda.ground.choices import AnyWeights, Weights

if TYPE_CHECKING:
    from segda.conversion.asked import Converted


def convert(
    given: Annotated[
        Path | str,
        typer.Argument(metavar="FILE", help="A checkpoint of other code or a Hugging Face folder; or a run of ours."),
    ],
    out: Annotated[
        Path | str, typer.Option(help="Run folder or .safetensors file to write; with --to a .pth file, or a folder.")
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
    recipe: Annotated[RecipeLike | None, typer.Option(help="Says what network it is, and how it is measured.")] = None,
    leave_out: Annotated[
        Sequence[str], typer.Option(metavar="PREFIX", help="Do without the tensors of the file that begin so.")
    ] = (),
    weights: Annotated[
        AnyWeights, typer.Option(help="Whose, of a run folder or a training's file; ema is the teacher's.")
    ] = "student",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what OUT holds.")] = False,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Start at random what the network has and the file has not.")
    ] = False,
    light: Annotated[
        Path | str | None,
        typer.Option(metavar="FILE", help="Of DANNet: what relights, beside FILE; for a recipe with network relit."),
    ] = None,
    step: Step = None,
    settings: Settings = (),
    trust: Trust = (),
) -> Converted:
    """Make a run folder of a checkpoint that other code has trained, to measure and to use it; or the other way round.

    segda convert gta2cityscapes_advent.pth --from advent --recipe advent_gta5_cityscapes --out runs/authors

    To ours: OUT is a run folder, which evaluate, predict and network.weights take, or a .safetensors file. FILE is a
    file, a folder of Hugging Face's kind, or the name of a model on its hub. Without --from, the names in the file and
    the recipe say which style it is; an encoder alone needs no recipe. --weights says which network of a training.
    DANNet keeps what relights in a second file: --light reads it, --to writes it, as OUT_light.pth.
    From ours: FILE is a run folder (--weights and --step say which of its networks) or a .safetensors file, OUT a .pth
    state dict, or a folder for Hugging Face.

    Tensors that have no place there are an error, and so are those of the network that the file lacks. --leave-out
    agrees to the first by the beginnings of their names, --allow-missing to the second: they stay at the random start
    of the recipe's seed. Nothing in a file is executed.
    """
    from segda.commands.names import look_up_recipe

    look_up_recipe(recipe)

    from segda.conversion.asked import OURS, TRANSLATORS, Asked
    from segda.conversion.to_ours import ours
    from segda.conversion.to_theirs import back
    from segda.ground.trust import trusting
    from segda.networks.weights.layouts import LAYOUTS
    from segda.recipes.recipe import Recipe, load_recipe

    given, out = Path(given), Path(out)
    if source == target or (source not in (None, OURS) and target != OURS):
        styles = ", ".join((*LAYOUTS, TRANSLATORS))
        raise RecipeError(
            f"convert from {source} to {target}: one of them must be {OURS} and the other one of {styles}"
        )
    if step is not None and target == OURS:
        raise RecipeError(f"--step {step} is of a run of ours; it has no effect without --to")
    if light is not None and target != OURS:
        raise RecipeError(f"--light {light}: has no effect with --to, which writes it beside OUT; remove it")
    if recipe is None and settings:
        raise RecipeError(f"--set {settings[0]} changes a recipe; add --recipe")
    which: Weights = "teacher" if weights == "ema" else weights
    agreement = (which, tuple(leave_out), allow_missing, overwrite, step)
    with trusting(trust):
        if target != OURS:
            return back(given, Asked(out, target, *agreement))
        if recipe is not None:
            recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
            recipe = recipe.override(*settings) if settings else recipe
        return ours(given, out, source, recipe, agreement, None if light is None else Path(light))
