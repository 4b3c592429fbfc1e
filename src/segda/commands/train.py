"""`segda train`: a recipe becomes a run folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segda import run as runs
from segda.errors import RecipeError
from segda.recipes.recipe import Recipe, load_recipe
from segda.training import assembly, loop
from segda.training.max_batch import probe
from segda.training.running import stoppable, train_run
from segda.training.stages import with_stages


def train(
    recipe: Recipe | str | Path,
    out: Path | str,
    root: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    check: bool = False,
    stages: bool = False,
    allow_changed: Sequence[str] = (),
    max_batch: bool = False,
) -> None:
    """Train a network by RECIPE (a shipped name or a YAML file) and write everything about it to the run folder OUT.

    The recipe is checked, the data sets are found and the network is built before the first image is read. At the end
    the run is scored on the recipe's evaluate.data and report.html is made. check: stop after a few steps on real
    data and say what the run will take. max_batch: instead of that, say how many scenes a step fit in memory; no data
    are needed, see training/max_batch.py. stages: first make the recipe's pseudo-labels, see `with_stages`.

    resume: go on from the last checkpoint, to the same end as if nothing had happened; begin where there is none yet.
    allow_changed: keys of the recipe that may differ then. After Ctrl-C or SIGTERM: Interrupted, with all steps saved.
    """
    out = Path(out)
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe)
    if max_batch:
        if check or stages or resume or overwrite or allow_changed:
            raise RecipeError("--max-batch trains nothing; leave out --check, --stages, --resume and --overwrite")
        probe(recipe)
        return
    if resume and overwrite:
        raise RecipeError("--resume goes on, --overwrite begins anew; give one of them")
    if allow_changed and not resume:
        raise RecipeError("--allow-changed is about a run that goes on; it has no effect without --resume")
    if stages and (check or allow_changed):
        what = "--check looks at" if check else "--allow-changed changes"
        raise RecipeError(f"{what} one run, --stages makes two; {'check the recipe of each' if check else 'resume it'}")
    root = runs.data_root(recipe, root).absolute()
    if check:
        with stoppable(recipe, out):
            loop.trial(assembly.assemble(recipe, root, None))
    elif stages:
        with stoppable(recipe, out):
            with_stages(recipe, out, root, overwrite)
    else:
        train_run(recipe, out, root, resume, overwrite, allow_changed)
