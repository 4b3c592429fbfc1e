"""`segda train`: a recipe becomes a run folder."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from segda import run as runs
from segda.commands.pseudo_label import pseudo_label, rule_spec
from segda.commands.report import report
from segda.data.labels.pseudo_labels import SUMMARY, read_summary
from segda.distributed import group
from segda.errors import Interrupted, RecipeError, RunError, RunFailure
from segda.evaluation.metrics import Report, write_reports
from segda.ground.atomic import write_text
from segda.ground.hardware import environment, peak_memory, pick_device
from segda.recipes.diff import Changes, admit, admit_processes, told
from segda.recipes.recipe import Recipe, load_recipe, parse_recipe
from segda.training import assembly, checkpoint, loop
from segda.training.max_batch import probe
from segda.training.stopping import Stopping

log = logging.getLogger(__name__)


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
    root = runs.data_root(recipe, root).absolute()
    if resume and overwrite:
        raise RecipeError("--resume goes on, --overwrite begins anew; give one of them")
    if allow_changed and not resume:
        raise RecipeError("--allow-changed is about a run that goes on; it has no effect without --resume")
    if stages and (check or allow_changed):
        what = "--check looks at" if check else "--allow-changed changes"
        raise RecipeError(f"{what} one run, --stages makes two; {'check the recipe of each' if check else 'resume it'}")
    # Whoever reads the run folder later finds the data without being told again.
    at_root = recipe.model_copy(update={"data": recipe.data.model_copy(update={"root": root})})
    training: assembly.Training | None = None
    with Stopping() as stopping:
        try:
            with _all_processes(recipe):
                if check:
                    loop.trial(assembly.assemble(at_root, root, None))
                elif stages:
                    with_stages(recipe, out, root, overwrite)
                else:
                    training, facts = _ready(at_root, out, root, resume, overwrite, allow_changed)
                    _to_the_end(training, out, facts, stopping)
        except Interrupted:
            raise
        except (KeyboardInterrupt, group.Unanswered) as error:
            # One that is asked to stop while it scores leaves at once; the others, asked as well, wait for it in vain.
            if isinstance(error, group.Unanswered) and stopping.asked is None:
                raise
            saved = None if training is None else training.saved
            what = "nothing new is saved" if saved is None else f"{out} is saved after step {saved}"
            raise Interrupted(f"stopped by {stopping.name}; {what}", stopping.exit_code, saved is not None) from None


@contextmanager
def _all_processes(recipe: Recipe) -> Iterator[None]:
    """Joins those that torchrun started. RecipeError, said by the first, where this machine has no such device."""
    if group.world() == 1:
        yield
        return
    device = group.own_device(pick_device(recipe.device))
    with group.joined(device, timedelta(seconds=recipe.patience)):
        yield


def _ready(
    recipe: Recipe,
    out: Path,
    root: Path,
    resume: bool,
    overwrite: bool,
    allow_changed: Sequence[str],
) -> tuple[assembly.Training, dict[str, Any]]:
    """The training at the step where it begins or goes on, its folder as it was then, and the facts in that folder."""
    key = str(out.absolute())
    resume, overwrite = AGAIN.get(group.remembered(key), (resume, overwrite))
    state, changes = group.all_succeed(lambda: _found(out, recipe, resume, overwrite, allow_changed))
    steps = group.all_gather_object(None if state is None else state["t"])
    group.on_rank_zero(_refuse_others, out, steps)
    # Built before the folder is touched: a recipe that cannot run leaves nothing behind.
    training = assembly.assemble(recipe, root, out.parent / ".segda")
    if state is not None:
        group.all_succeed(lambda: checkpoint.restore(training, state, out / "last.pt"))
    facts = environment(training.device, training.precision)
    # Target scenes are read without their labels, always; see data/stream/stream.py.
    facts |= {"start": training.method.student.origin, "target_labels_read": False}
    if state is None:
        group.remember(key, "beginning")
    group.on_rank_zero(_begin, training, out, state, changes, resume, facts)
    group.remember(key, "begun")
    return training, facts


AGAIN = {"beginning": (False, True), "begun": (True, False)}
"""How far the processes were when torchrun started them again -> whether to resume, whether to overwrite."""


def _found(
    out: Path, recipe: Recipe, resume: bool, overwrite: bool, allow_changed: Sequence[str]
) -> tuple[dict[str, Any] | None, Changes]:
    """The state in a run's folder that is to go on, None where it begins, and what has changed since."""
    runs.check_folder(out, recipe, resume=resume, overwrite=overwrite)
    last = out / "last.pt"
    if not resume or not last.exists():
        return None, {}
    state = runs.load_checkpoint(out)
    changes = admit(out, parse_recipe(state["recipe"], str(last)), recipe, allow_changed)
    return state, changes | admit_processes(out, state["made_by"].get("processes", 1), group.world(), allow_changed)


def _refuse_others(out: Path, steps: Sequence[int | None]) -> None:
    """RunError unless all processes have found the same checkpoint."""
    for number, step in enumerate(steps):
        if step != steps[0]:
            first, other = ("no checkpoint" if t is None else f"one of step {t}" for t in (steps[0], step))
            raise RunError(
                f"{out}: process 0 finds {first} there, process {number} {other}; give all machines one folder "
                "(docs/CLUSTER.md)"
            )


def _begin(
    training: assembly.Training,
    out: Path,
    state: dict[str, Any] | None,
    changes: Changes,
    resume: bool,
    facts: dict[str, Any],
) -> None:
    """The folder of a run that begins, or as it was after the step from which it goes on; adds that to the facts."""
    if state is None:
        runs.begin(out, training.recipe)
        if resume:
            log.info(f"nothing to resume in {out}: begins at the first step")
    else:
        done = training.t == training.recipe.steps  # the end is scored again, since its report may not be there
        runs.forget_after(out, training.t, None if done else {dataset.spec for dataset in training.scored})
        write_text(out / "recipe.yaml", training.recipe.to_yaml())
        loop.save_networks(training, out, state["method"])
        log.info(f"resumed after step {training.t}")
        now = checkpoint.maker(training.device, training.precision)
        moved = {key: (before, now.get(key)) for key, before in state["made_by"].items() if before != now.get(key)}
        if moved:
            log.warning(f"last bits may differ, since the checkpoint was made elsewhere: {told(moved)}")
        earlier = [one for one in runs.read_environment(out).get("resumed", []) if one["step"] <= training.t]
        facts["resumed"] = [*earlier, {"step": training.t, "recipe": changes, "made_by": moved}]
    write_text(out / "environment.json", json.dumps(facts, indent=2) + "\n")


def _to_the_end(training: assembly.Training, out: Path, facts: dict[str, Any], stopping: Stopping) -> None:
    with _underway():
        due = loop.scores_due(training.recipe, training.t)
        if due and group.from_rank_zero(lambda: not runs.scored_at(out, training.t)):
            loop.score(training, out)
        loop.run_steps(training, out, stopping)
        scores = loop.score(training, out)
        facts = facts | {"peak_memory": peak_memory(training.device)}
        group.on_rank_zero(_report, training, out, facts, scores)


def _report(training: assembly.Training, out: Path, facts: dict[str, Any], scores: list[Report]) -> None:
    write_text(out / "environment.json", json.dumps(facts, indent=2) + "\n")
    for dataset in training.scored:
        write_reports(out, [score for score in scores if score.protocol.data == dataset.spec])
    if training.scored:
        log.info(f"report: {report(out)}")
    else:
        log.info(f"not scored: evaluate.data is empty; `segda evaluate {out} --data NAME:SPLIT` measures it")


@contextmanager
def _underway() -> Iterator[None]:
    """A folder that could be written to, and cannot any more, is no mistake of whoever gave the command."""
    try:
        yield
    except RunFailure:
        raise
    except RunError as error:
        raise RunFailure(str(error)) from error


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
        pseudo_label(
            [teacher], recipe.data.target.set, how.rule, labels, root=root, device=recipe.device,
            precision=recipe.precision, overwrite=overwrite,
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
    train(recipe, out, root, resume=standing == "begun", overwrite=standing == "unsaved")
