"""`segda train`: a recipe becomes a run folder."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from segda import run as runs
from segda.errors import RecipeError
from segda.recipes.recipe import Recipe, load_recipe
from segda.training.max_batch import probe
from segda.training.running import train_run
from segda.training.stages import check_stages, plan, run_stages

log = logging.getLogger(__name__)


def train(
    recipe: Recipe | str | Path,
    out: Path | str,
    root: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    check: bool = False,
    allow_changed: Sequence[str] = (),
    max_batch: bool = False,
) -> None:
    """Train a network by RECIPE (a shipped name, a YAML file, blocks) and write all about it to the run folder OUT.

    The recipe is checked, the data sets are found and the network is built before the first image is read. At the end
    the run is scored on the recipe's evaluate.data and report.html is made. check: stop after a few steps on real
    data and say what the run will take. max_batch: instead of that, say how many scenes a step fit in memory; no data
    are needed, see training/max_batch.py. A recipe of several stages runs them all, the last into OUT; see
    training/stages.py.

    resume: go on from the last checkpoint, to the same end as if nothing had happened; begin where there is none yet.
    allow_changed: keys of the recipe that may differ then. After Ctrl-C or SIGTERM: Interrupted, with all steps saved.
    """
    out = Path(out)
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe)
    planned = plan(recipe, out)
    if max_batch:
        if check or resume or overwrite or allow_changed:
            raise RecipeError("--max-batch trains nothing; leave out --check, --resume and --overwrite")
        for stage in planned:
            if stage.labelling is None:
                if len(planned) > 1:
                    log.info(f"stage {stage.name}")
                probe(stage.recipe)
        return
    if resume and overwrite:
        raise RecipeError("--resume goes on, --overwrite begins anew; give one of them")
    if allow_changed and not resume:
        raise RecipeError("--allow-changed is about a run that goes on; it has no effect without --resume")
    if len(planned) > 1 and allow_changed:
        raise RecipeError("--allow-changed changes one run, and the recipe has stages; resume that of the stage")
    root = runs.data_root(recipe, root).absolute()
    if check:
        check_stages(planned, root)
    elif len(planned) > 1:
        run_stages(planned, root, overwrite)
    else:
        train_run(planned[0].recipe, out, root, resume, overwrite, allow_changed)
