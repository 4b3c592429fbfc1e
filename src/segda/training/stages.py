"""Trainings of several stages: a teacher, its pseudo-labels, and the run that learns from them."""

from __future__ import annotations

import logging
from pathlib import Path

from segda import run as runs
from segda.data.labels.pseudo_labels import SUMMARY, read_summary
from segda.distributed import group
from segda.errors import RecipeError, RunError
from segda.pseudo_labelling.job import label_images, make_job
from segda.pseudo_labelling.rules import rule_spec
from segda.recipes.recipe import Recipe, load_recipe
from segda.training.running import train_run

log = logging.getLogger(__name__)


def with_stages(recipe: Recipe, out: Path, root: Path, overwrite: bool) -> None:
    """Three stages: OUT-teacher, a run of recipe.pseudo_labels.recipe; OUT-labels, its labels of the target; OUT.

    The first has this recipe's seed, and what of it depends on the machine (device, precision, recompute, shard,
    patience). A stage whose output is there is skipped, a training that was interrupted goes on; `overwrite` begins all
    anew. Each stage leaves what its own command would.
    """
    teacher, labels = (out.with_name(f"{out.name}-{stage}") for stage in ("teacher", "labels"))
    labeller = group.all_succeed(lambda: _labeller(recipe))
    how = recipe.pseudo_labels
    log.info(f"stage 1 of 3: {how.recipe} -> {teacher}")
    one_run(labeller, teacher, root, overwrite)
    log.info(f"stage 2 of 3: labels of {recipe.data.target.set} -> {labels}")
    if not overwrite and group.from_rank_zero(lambda: _labelled(recipe, labels)):
        log.info(f"{labels} is there; skipped")
    else:
        label_images(
            lambda: make_job(
                [teacher], recipe.data.target.set, how.rule, labels, (), root, "student", None, recipe.device,
                recipe.precision, False,
            ),
            overwrite=overwrite, score=False,
        )  # fmt: skip
    log.info(f"stage 3 of 3: {out}")
    one_run(recipe.override(f"data.target.labels={labels.absolute()}"), out, root, overwrite)


def _labeller(recipe: Recipe) -> Recipe:
    """The recipe of the first stage. RecipeError where there are no stages to make."""
    how = recipe.pseudo_labels
    if how is None:
        raise RecipeError("--stages: the recipe has no pseudo_labels block, so it is one stage; leave out --stages")
    if recipe.data.target.labels is not None:
        raise RecipeError("--stages makes the pseudo-labels; remove data.target.labels, or train without --stages")
    same = [
        f"{key}={getattr(recipe, key)}" for key in ("seed", "device", "activation_checkpointing", "shard", "patience")
    ]
    return load_recipe(how.recipe).override(*same, f"precision='{recipe.precision}'", *how.overrides)


def _labelled(recipe: Recipe, labels: Path) -> bool:
    """Whether the second stage's labels are there. RunError where another rule made them."""
    if not (labels / SUMMARY).is_file():
        return False
    made_by = read_summary(labels, recipe.data.target.set).get("rule")
    if made_by != rule_spec(recipe.pseudo_labels.rule):
        raise RunError(f"{labels} was made by another rule ({made_by}); use a new --out, or --overwrite to begin anew")
    return True


def one_run(recipe: Recipe, out: Path, root: Path, overwrite: bool) -> None:
    """A stage that trains: from the start, or where it stopped, or not at all."""
    standing = "unsaved" if overwrite else group.from_rank_zero(lambda: runs.standing(out, recipe))
    if standing == "finished":
        log.info(f"{out} is there; skipped")
        return
    train_run(recipe, out, root, standing == "begun", standing == "unsaved", ())
