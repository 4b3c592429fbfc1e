"""`segda train`: a recipe becomes a run folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from segda import run as runs
from segda.commands.pseudo_label import pseudo_label, rule_spec
from segda.commands.report import report
from segda.data.pseudo_labels import SUMMARY, read_summary
from segda.errors import RecipeError, RunError
from segda.evaluation.metrics import write_reports
from segda.files import write_text
from segda.hardware import environment, peak_memory
from segda.progress import Track, quietly
from segda.recipe import Recipe, load_recipe
from segda.training import loop

Say = Callable[[str], None]


def train(
    recipe: Recipe | str | Path,
    out: Path | str,
    root: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    check: bool = False,
    stages: bool = False,
    say: Say = print,
    track: Track = quietly,
) -> None:
    """Train a network by RECIPE (a shipped name or a YAML file) and write everything about it to the run folder OUT.

    The recipe is checked, the data sets are found and the network is built before the first image is read. At the end
    the run is scored on the recipe's evaluate.data and report.html is made. check: stop after a few steps on real
    data and say what the run will take. stages: first make the recipe's pseudo-labels, see `with_stages`.
    """
    out = Path(out)
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe)
    root = runs.data_root(recipe, root).absolute()
    if stages:
        if check:
            raise RecipeError("--check looks at one run, --stages makes two; check the recipe of each")
        with_stages(recipe, out, root, overwrite, say, track)
        return
    # Whoever reads the run folder later finds the data without being told again.
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"root": root})})
    if check:
        loop.trial(loop.assemble(recipe, root, None, track, say), say)
        return
    runs.check_folder(out, recipe, resume=resume, overwrite=overwrite)
    # Built before the folder is touched: a recipe that cannot run leaves nothing behind.
    training = loop.assemble(recipe, root, out.parent / ".segda", track, say)
    if not resume:
        runs.begin(out, recipe)
    else:
        training.restore(runs.load_checkpoint(out), out / "last.pt")
        runs.cut_log(out, training.t)
        say(f"resumed after step {training.t}")
    facts = environment(training.device, training.precision)
    # Target scenes are read without their labels, always; see data/stream.py.
    facts |= {"start": training.method.student.origin, "target_labels_read": False}
    write_text(out / "environment.json", json.dumps(facts, indent=2) + "\n")

    loop.fit(training, out, say, track)

    write_text(
        out / "environment.json",
        json.dumps(facts | {"peak_memory": peak_memory(training.device)}, indent=2) + "\n",
    )
    scores = loop.score(training, out, say, track)
    for dataset in training.scored:
        write_reports(out, [score for score in scores if score.protocol.data == dataset.spec])
    if training.scored:
        say(f"report: {report(out, track=track)}")
    else:
        say(f"not scored: evaluate.data is empty; `segda evaluate {out} --data NAME:SPLIT` measures it")


def with_stages(recipe: Recipe, out: Path, root: Path, overwrite: bool, say: Say, track: Track) -> None:
    """Three stages: OUT-teacher, a run of recipe.pseudo_labels.recipe; OUT-labels, its labels of the target; OUT.

    The first has this recipe's seed, device and precision. A stage whose output is there is skipped, a training that
    was interrupted goes on; `overwrite` begins all anew. Each stage leaves what its own command would.
    """
    how = recipe.pseudo_labels
    if how is None:
        raise RecipeError("--stages: the recipe has no pseudo_labels block, so it is one stage; leave out --stages")
    if recipe.data.target_labels is not None:
        raise RecipeError("--stages makes the pseudo-labels; remove data.target_labels, or train without --stages")
    teacher, labels = (out.with_name(f"{out.name}-{stage}") for stage in ("teacher", "labels"))
    same = [f"seed={recipe.seed}", f"device={recipe.device}", f"precision='{recipe.precision}'"]
    say(f"stage 1 of 3: {how.recipe} -> {teacher}")
    one_run(load_recipe(how.recipe).override(*same, *how.overrides), teacher, root, overwrite, say, track)
    say(f"stage 2 of 3: labels of {recipe.data.target} -> {labels}")
    if (labels / SUMMARY).is_file() and not overwrite:
        made_by = read_summary(labels, recipe.data.target).get("rule")
        if made_by != rule_spec(how.rule):
            raise RunError(
                f"{labels} was made by another rule ({made_by}); use a new --out, or --overwrite to begin anew"
            )
        say(f"{labels} is there; skipped")
    else:
        pseudo_label(
            [teacher], recipe.data.target, how.rule, labels, root=root, device=recipe.device,
            precision=recipe.precision, overwrite=overwrite, say=say, track=track,
        )  # fmt: skip
    say(f"stage 3 of 3: {out}")
    one_run(recipe.override(f"data.target_labels={labels.absolute()}"), out, root, overwrite, say, track)


def one_run(recipe: Recipe, out: Path, root: Path, overwrite: bool, say: Say, track: Track) -> None:
    """A stage that trains: from the start, or where it stopped, or not at all."""
    standing = "unsaved" if overwrite else runs.standing(out, recipe)
    if standing == "finished":
        say(f"{out} is there; skipped")
        return
    train(
        recipe, out, root, resume=standing == "begun", overwrite=standing == "unsaved", say=say, track=track
    )  # fmt: skip
