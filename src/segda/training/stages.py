"""Stages: a recipe that trains, labels its target or translates its source, and trains again, as one command that goes
on where it stopped.

The last stage's run is OUT, as if the recipe had no stages; the output of an earlier one stands beside it: OUT-teacher,
OUT-labels. Each is what its own command would leave: a run folder, a folder of pseudo-labels, or one of translated
images. What is there is skipped, what was cut short goes on, and what is of another recipe is refused before anything
starts. A stage whose output no later one needs is left out: with labels of one's own for the last, it alone is trained.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segda.data.labels.pseudo_labels import SUMMARY, read_summary
from segda.data.sets.labelled import open_once
from segda.distributed import group
from segda.errors import RunError
from segda.evaluation.soundness import refuse_bad
from segda.pseudo_labelling.job import label_images, make_job
from segda.recipes.recipe import Labelling, Recipe, Translating, setting, stages_of
from segda.run import Standing, product_path, standing
from segda.run_data import space_of
from segda.training import assembly, loop, translation
from segda.training.running import one_writer, stoppable, train_held

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Planned:
    """A stage, with the folders of what it takes and makes. It trains `recipe`, labels as `labelling` says, or
    translates as `translating` says.
    """

    name: str
    out: Path
    recipe: Recipe
    """Of one that labels: what all stages share; of one that translates, what its translator learns."""
    labelling: Labelling | None = None
    translating: Translating | None = None
    runs: tuple[Path, ...] = ()
    """Of one that labels or translates: whose networks."""
    takes: tuple[Path, ...] = ()
    """Outputs of earlier stages."""

    @property
    def trains(self) -> bool:
        return self.labelling is None and self.translating is None

    @property
    def data(self) -> str:
        """What is labelled or translated."""
        told, domains = self.labelling or self.translating, self.recipe.data
        if told is not None and told.data is not None:
            return told.data
        forth = self.translating is not None and self.translating.to == "target"
        return domains.source.set if forth and domains.source is not None else domains.target.set

    @property
    def what(self) -> str:
        """What it does, in a few words."""
        if self.trains:
            return self.recipe.name
        return f"labels of {self.data}" if self.labelling else f"{self.data}, translated"

    def standing(self) -> Standing:
        """How far it is; RunError where the folder holds something else. Labels that are begun go on by themselves."""
        if self.labelling is not None:
            return "finished" if self._labelled(self.labelling) else "new"
        if self.translating is not None:
            return "finished" if self._translated(self.translating) else "new"
        return standing(self.out, self.recipe)

    def _labelled(self, how: Labelling) -> bool:
        if not (self.out / SUMMARY).is_file():
            return False
        summary = read_summary(self.out, self.data)
        if summary.get("rule") != how.rule:
            raise RunError(
                f"{self.out} was made by another rule ({summary.get('rule')}); use a new --out, or --overwrite to "
                "begin anew"
            )
        made_by = {one.get("sha256") for one in summary.get("runs", ())}
        for run in self.runs:
            weights = product_path(run, how.weights)
            if weights.is_file() and _digest(weights) not in made_by:
                raise RunError(
                    f"{self.out} was made by another network than that of {run}; use a new --out, or --overwrite to "
                    "begin anew"
                )
        return True

    def _translated(self, how: Translating) -> bool:
        if not (self.out / translation.SUMMARY).is_file():
            return False
        summary = translation.read_summary(self.out)
        told = (summary["data"].get("spec"), summary.get("to"))
        if told != (self.data, how.to):
            raise RunError(f"{self.out} holds images of {told[0]}, made to look like the {told[1]}; use a new --out")
        weights = product_path(self.runs[0], translation.PRODUCTS[how.to])
        if weights.is_file() and _digest(weights) != summary["network"].get("sha256"):
            raise RunError(
                f"{self.out} was made by another network than that of {self.runs[0]}; use a new --out, or --overwrite "
                "to begin anew"
            )
        return summary.get("finished") is True


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def plan(recipe: Recipe, out: Path) -> list[Planned]:
    """The stages that the last one needs, in their order; a recipe without stages is one."""
    stages = {stage.name: stage for stage in stages_of(recipe)}
    if not stages:
        return [Planned("train", out, recipe)]
    last = next(reversed(stages))
    places = {name: out if name == last else beside(out, name) for name in stages}
    due = {last}
    for name in reversed(stages):
        due |= set(stages[name].needs) if name in due else set()
    shared = recipe.model_copy(update={"stages": {}})
    planned = []
    for name, stage in stages.items():
        if name not in due:
            continue
        takes = tuple(places[one] for one in stage.needs)
        if stage.labelling is not None:
            planned.append(Planned(name, places[name], shared, stage.labelling, None, takes, takes))
        elif stage.translating is not None:
            learnt = stages[stage.translating.run].recipe
            assert learnt is not None, "refused with the recipe"
            planned.append(Planned(name, places[name], learnt, None, stage.translating, takes, takes))
        elif stage.recipe is not None:
            settings = [setting(key, str(places[one].absolute())) for key, one in stage.outputs]
            own = stage.recipe.override(*settings) if settings else stage.recipe
            planned.append(Planned(name, places[name], own, takes=takes))
    return planned


def beside(out: Path, stage: str) -> Path:
    """Where an earlier stage's output stands."""
    return out.with_name(f"{out.name}-{stage}")


def run_stages(planned: Sequence[Planned], root: Path, overwrite: bool) -> None:
    """Each stage that is not finished; overwrite: all, from their beginning."""
    last = planned[-1]
    trained = [stage.out for stage in planned if stage.trains]
    with stoppable(last.recipe, last.out) as attempt, one_writer(*trained):
        if not overwrite:
            group.on_rank_zero(lambda: [stage.standing() for stage in planned])
        for number, stage in enumerate(planned, 1):
            log.info(f"stage {number} of {len(planned)}, {stage.name}: {stage.what} -> {stage.out}")
            so_far = "unsaved" if overwrite else group.from_rank_zero(stage.standing)
            if so_far == "finished":
                log.info(f"{stage.out} is there; skipped")
                continue
            if stage.trains:
                with stoppable(stage.recipe, stage.out) as own:
                    train_held(own, stage.recipe, stage.out, root, so_far == "begun", so_far == "unsaved", ())
            elif stage.translating is not None:
                _translate(stage, stage.translating, root, overwrite)
            elif stage.labelling is not None:
                _label(stage, stage.labelling, root, overwrite)
            attempt.kept = f"{stage.out} and what is before it are there"


def _label(stage: Planned, how: Labelling, root: Path, overwrite: bool) -> None:
    recipe = stage.recipe
    label_images(
        lambda: make_job(
            list(stage.runs), stage.data, how.rule, stage.out, (), root, how.weights, None, recipe.device,
            recipe.precision, False,
        ),
        overwrite=overwrite, score=False,
    )  # fmt: skip


def _translate(stage: Planned, how: Translating, root: Path, overwrite: bool) -> None:
    (run,), recipe = stage.runs, stage.recipe
    translation.translate_images(
        lambda: translation.make_job(
            run, stage.data, stage.out, how.to, root, None, recipe.device, recipe.precision
        ),
        overwrite=overwrite,
    )  # fmt: skip


def check_stages(planned: Sequence[Planned], root: Path) -> None:
    """A few steps of each stage that trains on what is there, and a look at the images that are labelled."""
    for stage in planned:
        if len(planned) > 1:
            log.info(f"stage {stage.name}")
        missing = [place for place in stage.takes if not place.exists()]
        if not stage.trains:
            dataset = open_once(stage.data, root, space_of(stage.recipe))
            log.info(f"{len(dataset)} images of {stage.data} to {'label' if stage.labelling else 'translate'}")
        elif missing:
            log.info(f"not checked: it takes {', '.join(map(str, missing))}, which is not there yet")
        else:
            with stoppable(stage.recipe, stage.out):
                training = assembly.assemble(stage.recipe, root, None)
                refuse_bad(training.scored)
                loop.trial(training)
