"""A run folder begins, or goes on where it stopped, and comes to its end."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from segda import run as runs
from segda.distributed import group
from segda.errors import Interrupted, RunError, RunFailure
from segda.evaluation.metrics import Report, write_reports
from segda.evaluation.soundness import refuse_bad
from segda.ground.alone import first_alone_in
from segda.ground.atomic import write_text
from segda.ground.hardware import environment, peak_memory, pick_device
from segda.ground.trust import read_from
from segda.parts.given import given_in
from segda.recipes.diff import Changes, admit, admit_files, admit_processes, told
from segda.recipes.recipe import Recipe, parse_recipe
from segda.reporting import watched
from segda.reporting.comparison import beside
from segda.reporting.html import write_report
from segda.run_data import changed_files, record, refuse_other_classes
from segda.training import assembly, checkpoint, loop
from segda.training.loggers import check_logger, logger_of
from segda.training.stopping import Stopping

log = logging.getLogger(__name__)


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
    check_logger(recipe.logger)
    key = str(out.absolute())
    resume, overwrite = AGAIN.get(group.remembered(key), (resume, overwrite))
    state, changes = group.all_succeed(lambda: _found(out, recipe, resume, overwrite, allow_changed))
    steps = group.all_gather_object(None if state is None else state["t"])
    group.on_rank_zero(_refuse_others, out, steps)
    # Built before the folder is touched: a recipe that cannot run leaves nothing behind.
    # A constant is the student as it began, so that needs its start again.
    fresh = state is None or bool(state["constants"])
    training = assembly.assemble(recipe, root, out.parent / ".segda", fresh)
    if state is None:
        refuse_bad(training.scored, training.segmenters().values(), recipe.evaluate)
    else:
        group.all_succeed(lambda: checkpoint.restore(training, state, out / "last.pt"))
    facts = environment(training.device, training.precision)
    # Target scenes are read without their labels, always; see data/stream/stream.py.
    facts |= {"start": student.origin} if (student := training.segmenters().get("student")) else {}
    facts |= {"target_labels_read": False}
    if state is not None and "start" in facts:
        facts["start"] = runs.read_environment(out).get("start", facts["start"])
    if given := {one.name: one.origin for one in given_in(training.method).values()}:
        facts["given"] = given
    if state is None:
        group.remember(key, "beginning")
    else:
        other = group.from_rank_zero(lambda: admit_files(out, changed_files(out, training.sets()), allow_changed))
        changes = changes | other
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
    checkpoint.check_form(state, last)
    with read_from(out):
        begun_with = parse_recipe(state["recipe"], str(last))
    changes = admit(out, begun_with, recipe, allow_changed, done=state["t"] == recipe.steps)
    refuse_other_classes(out, recipe)
    return state, changes | admit_processes(out, state["made_by"]["processes"], group.world(), allow_changed)


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
        watched.forget(out, training.t)
        runs.write_recipe(out, training.recipe)
        loop.save_products(training, out, state["method"])
        log.info(f"resumed after step {training.t}")
        now = checkpoint.maker(training.device, training.precision)
        moved = {key: (before, now.get(key)) for key, before in state["made_by"].items() if before != now.get(key)}
        if moved:
            log.warning(f"last bits may differ, since the checkpoint was made elsewhere: {told(moved)}")
        earlier = [one for one in runs.read_environment(out).get("resumed", []) if one["step"] <= training.t]
        facts["resumed"] = [*earlier, {"step": training.t, "recipe": changes, "made_by": moved}]
    record(out, training.recipe, training.sets())
    write_text(out / "environment.json", json.dumps(facts, indent=2) + "\n")


def _to_the_end(training: assembly.Training, out: Path, facts: dict[str, Any], stopping: Stopping) -> None:
    recipe = training.recipe
    with _underway(), logger_of(recipe, out, training.t) as training.logger:
        due = loop.scores_due(recipe, training.t)
        if due and group.from_rank_zero(lambda: not runs.scored_at(out, training.t)):
            loop.score(training, out)
        loop.run_steps(training, out, stopping)
        loop.finish(training, out)
        scores = loop.score(training, out)
        facts = facts | {"peak_memory": peak_memory(training.device)}
        group.on_rank_zero(_report, training, out, facts, scores)


def _report(training: assembly.Training, out: Path, facts: dict[str, Any], scores: list[Report]) -> None:
    write_text(out / "environment.json", json.dumps(facts, indent=2) + "\n")
    for dataset in training.scored:
        write_reports(out, [score for score in scores if score.protocol.data == dataset.spec])
    wanted = training.recipe.evaluate.report_images > 0
    if training.scored or wanted:
        log.info(f"report: {write_report(out)}")
    if training.scored:
        measured = beside({out.name: scores}, {out.name: training.recipe})
        log.info(f"{measured.hidden()[0]}; see segda compare {out}")
    elif not training.segmenters():
        log.info(f"not scored: method {training.recipe.method['name']} trains no segmentation network")
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


@dataclass
class Attempt:
    """What is begun, and who asks it to stop."""

    stopping: Stopping
    training: assembly.Training | None = None
    kept: str = ""
    """What of it is there already, for what is done in several stages."""


@contextmanager
def stoppable(recipe: Recipe, out: Path) -> Iterator[Attempt]:
    """Joins the processes, and ends the block after a signal of ASKED with Interrupted, which says what is saved."""
    with Stopping() as stopping:
        attempt = Attempt(stopping)
        try:
            with _all_processes(recipe):
                yield attempt
        except Interrupted as stop:
            raise Interrupted(str(stop), stop.exit_code, stop.saved or bool(attempt.kept)) from None
        except (KeyboardInterrupt, group.Unanswered) as error:
            # One that is asked to stop while it scores leaves at once; the others, asked as well, wait for it in vain.
            if isinstance(error, group.Unanswered) and stopping.asked is None:
                raise
            saved = None if attempt.training is None else attempt.training.saved
            what = "nothing new is saved" if saved is None else f"{out} is saved after step {saved}"
            what, goes_on = attempt.kept or what, saved is not None or bool(attempt.kept)
            raise Interrupted(f"stopped by {stopping.name}; {what}", stopping.exit_code, goes_on) from None


TRAINS = "another process trains in {folder}"

PATIENCE = 60.0
"""Seconds in which processes that torchrun ends leave their folder to those that it starts in their place."""


@contextmanager
def one_writer(*folders: Path) -> Iterator[None]:
    """Keeps all others from writing into the folders of a training while the block lasts. RunError, in all processes,
    where one is at work there.

    What is no run's folder is left alone: it is refused by whoever looks at it next.
    """
    key = f"{folders[-1].absolute()} is held"
    before = group.remembered(key)
    own = group.all_succeed(lambda: [folder for folder in folders if not runs.is_strange(folder)])
    with first_alone_in(own, TRAINS, patience=PATIENCE if before else 0):
        group.remember(key, "held")
        yield


def train_run(
    recipe: Recipe,
    out: Path,
    root: Path,
    resume: bool,
    overwrite: bool,
    allow_changed: Sequence[str],
) -> None:
    """One run, from its first step or its last checkpoint to its end, in a folder that no other process writes to."""
    with stoppable(recipe, out) as attempt, one_writer(out):
        train_held(attempt, recipe, out, root, resume, overwrite, allow_changed)


def train_held(
    attempt: Attempt,
    recipe: Recipe,
    out: Path,
    root: Path,
    resume: bool,
    overwrite: bool,
    allow_changed: Sequence[str],
) -> None:
    """The same for whoever is asked to stop, and keeps the others out of the folder."""
    # Whoever reads the run folder later finds the data without being told again.
    at_root = recipe.model_copy(update={"data": recipe.data.model_copy(update={"root": root})})
    attempt.training, facts = _ready(at_root, out, root, resume, overwrite, allow_changed)
    _to_the_end(attempt.training, out, facts, attempt.stopping)
