"""`segda convert`: checkpoints of other code bases to ours, ready to measure and to use, and ours to theirs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segda import run as runs
from segda.conversion.asked import (
    OURS,
    Asked,
    Converted,
)
from segda.conversion.to_ours import ours
from segda.conversion.to_theirs import back
from segda.errors import RecipeError
from segda.networks.weights.layouts import LAYOUTS
from segda.recipes.recipe import Recipe, load_recipe


def convert(
    given: Path | str,
    out: Path | str,
    source: str | None = None,
    target: str = OURS,
    recipe: Recipe | str | Path | None = None,
    leave_out: Sequence[str] = (),
    weights: runs.Which = "student",
    overwrite: bool = False,
    allow_missing: bool = False,
    step: int | None = None,
) -> Converted:
    """A checkpoint from the style of `source` to that of `target`; one of the two is "segda", the other in LAYOUTS.

    To ours: `out` is a run folder, which evaluate, predict and network.weights take, or a .safetensors file. `given` is
    a file, a folder of Hugging Face's kind, or the name of a model on its hub. Without `source`, the names in the file
    and the recipe say which style it is. `recipe` says which network it is, on which classes, and how it is measured;
    for an encoder alone it is not needed. Of a checkpoint with several networks of a training, `weights` says which.
    From ours: `given` is a run folder (`weights` and `step` say which of its networks) or a .safetensors file, `out` a
    .pth state dict, or a folder for Hugging Face.
    Tensors that have no place there are an error, and so are those of the network that the file lacks. The first may be
    agreed to by the beginnings of their names, `leave_out`, which does without any tensor of the file; the second by
    `allow_missing`: they stay at the random start of the recipe's seed. Nothing in a file is executed.
    """
    given, out = Path(given), Path(out)
    if source == target or (source not in (None, OURS) and target != OURS):
        raise RecipeError(
            f"convert from {source} to {target}: one of them must be {OURS} and the other one of {', '.join(LAYOUTS)}"
        )
    if step is not None and target == OURS:
        raise RecipeError(f"--step {step} is of a run of ours; it has no effect without --to")
    agreement = (weights, tuple(leave_out), allow_missing, overwrite, step)
    if target != OURS:
        return back(given, Asked(out, target, *agreement))
    if isinstance(recipe, str | Path):
        recipe = load_recipe(recipe)
    return ours(given, out, source, recipe, agreement)
