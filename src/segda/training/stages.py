"""Stages: a recipe that trains, labels its target or translates its source, and trains again, as one command that goes
on where it stopped.

The last training's run is OUT, as if the recipe had no stages; the output of any other stage stands beside it:
OUT-teacher, OUT-labels, OUT-ensemble.json. Each is what its own command would leave: a run folder, a folder of
pseudo-labels, one of translated images, or a file of an ensemble's reports. What is there is skipped, what was cut
short goes on, and what is of another recipe is refused before anything starts. A stage whose output no later one needs
is left out, unless it measures: with labels of one's own for the last, it alone is trained.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segda.data.labels.pseudo_labels import SUMMARY, read_summary
from segda.data.sets import translated
from segda.data.sets.labelled import open_once
from segda.distributed import group
from segda.errors import RunError
from segda.evaluation.ensemble import evaluate_ensemble
from segda.evaluation.metrics import read_list
from segda.evaluation.protocol import EnsembleProtocol
from segda.evaluation.soundness import refuse_bad
from segda.ground.paths import sha256_of
from segda.pseudo_labelling.job import label_images, make_job
from segda.pseudo_labelling.refine import REFINEMENTS, plain, refuse_unready
from segda.recipes.build import build
from segda.recipes.keys import Ensemble, Labelling, Translating
from segda.recipes.overriding import setting
from segda.recipes.recipe import Recipe, stages_of
from segda.reporting.tables import percent
from segda.run import Standing, product_path, standing
from segda.run_data import space_of
from segda.training import assembly, loop, translation
from segda.training.running import one_writer, stoppable, train_held

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Planned:
    """A stage, with the folders of what it takes and makes. It trains `recipe`, labels as `labelling` says, or
    translates as `translating` says, or measures as `ensemble` says.
    """

    name: str
    out: Path
    recipe: Recipe
    """Of one that translates: what its translator learns; of any other that does not train: what all stages share."""
    labelling: Labelling | None = None
    translating: Translating | None = None
    ensemble: Ensemble | None = None
    runs: tuple[Path, ...] = ()
    """Of one that does not train: whose networks."""
    takes: tuple[Path, ...] = ()
    """Outputs of earlier stages."""

    @property
    def trains(self) -> bool:
        return self.labelling is None and self.translating is None and self.ensemble is None

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
        if self.ensemble is not None:
            return f"mean of {', '.join(path.name for path in self.runs)}"
        return f"labels of {self.data}" if self.labelling else f"{self.data}, translated"

    def refuse_unready(self, root: Path) -> None:
        """RecipeError or DataError where references, or their depths, lack: before hours of training, not after."""
        if self.labelling is not None and self.labelling.refine is not None:
            images = open_once(self.data, root, space_of(self.recipe))
            refuse_unready(build(REFINEMENTS, self.labelling.refine, "refine"), images, root)

    def standing(self) -> Standing:
        """How far it is; RunError where the folder holds something else. Labels that are begun go on by themselves."""
        if self.labelling is not None:
            return "finished" if self._labelled(self.labelling) else "new"
        if self.translating is not None:
            return "finished" if self._translated(self.translating) else "new"
        if self.ensemble is not None:
            return "finished" if self._measured(self.ensemble) else "new"
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
        size = summary.get("input", {}).get("resize")
        if how.resize is not None and size != list(how.resize):
            raise RunError(f"{self.out} is of another size ({size}); use a new --out, or --overwrite to begin anew")
        refined = summary.get("refinement") or {}
        if _settings_of(how) != _but_run(refined.get("settings")):
            raise RunError(
                f"{self.out} was refined otherwise ({refined.get('settings')}); use a new --out, or --overwrite to "
                "begin anew"
            )
        made_by = {one.get("sha256") for one in (*summary.get("runs", ()), refined.get("network", {}))}
        by = () if how.refine is None or how.refine.get("run") is None else (Path(how.refine["run"]),)
        for run in (*self.runs, *by):
            weights = product_path(run, how.weights)
            if weights.is_file() and sha256_of(weights) not in made_by:
                raise RunError(
                    f"{self.out} was made by another network than that of {run}; use a new --out, or --overwrite to "
                    "begin anew"
                )
        if (count := len(summary.get("runs", ()))) != len(self.runs):
            raise RunError(
                f"{self.out} was made by the mean of {count} networks, not of {len(self.runs)}; use a new --out, or "
                "--overwrite to begin anew"
            )
        return True

    def _translated(self, how: Translating) -> bool:
        if not (self.out / translated.SUMMARY).is_file():
            return False
        summary = translated.read_summary(self.out)
        told = (summary["data"].get("spec"), summary.get("to"))
        if told != (self.data, how.to):
            raise RunError(f"{self.out} holds images of {told[0]}, made to look like the {told[1]}; use a new --out")
        if summary.get("enlarge") != how.enlarge:
            raise RunError(
                f"{self.out} was enlarged otherwise ({summary.get('enlarge')}); use a new --out, or --overwrite to "
                "begin anew"
            )
        weights = product_path(self.runs[0], translation.PRODUCTS[how.to])
        if weights.is_file() and sha256_of(weights) != summary["network"].get("sha256"):
            raise RunError(
                f"{self.out} was made by another network than that of {self.runs[0]}; use a new --out, or --overwrite "
                "to begin anew"
            )
        return summary.get("finished") is True

    def _measured(self, how: Ensemble) -> bool:
        """Whether all is measured, and of the networks that the runs have now; RunError for another mean's numbers."""
        if not self.out.is_file():
            return False
        protocols = [report.protocol for report in read_list(self.out)]
        means = [one for one in protocols if isinstance(one, EnsembleProtocol)]
        made_by = {(one.mean, *(member.run for member in one.members)) for one in means}
        if made_by != {(how.mean, *map(str, self.runs))}:
            raise RunError(
                f"{self.out} is of other runs or another mean; use a new --out, or --overwrite to begin anew"
            )
        networks = [product_path(run, "student") for run in self.runs]
        begun = self.out.stat().st_mtime_ns
        return {one.data for one in protocols} == set(self.recipe.evaluate.data) and all(
            path.is_file() and path.stat().st_mtime_ns <= begun for path in networks
        )


def _settings_of(how: Labelling) -> dict[str, Any] | None:
    """Of a refinement, as a folder's summary has them, but for the run: its network is known by its digest."""
    return None if how.refine is None else _but_run(plain(build(REFINEMENTS, how.refine, "refine")))


def _but_run(settings: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if settings is None else {key: value for key, value in settings.items() if key != "run"}


def plan(recipe: Recipe, out: Path) -> list[Planned]:
    """The stages that the last training and those that measure need, in their order; a recipe without stages is one."""
    stages = {stage.name: stage for stage in stages_of(recipe)}
    if not stages:
        return [Planned("train", out, recipe)]
    last = [name for name, stage in stages.items() if stage.recipe is not None][-1]
    places = {name: out if name == last else beside(out, name) for name in stages}
    places |= {name: beside(out, f"{name}.json") for name, stage in stages.items() if stage.ensemble is not None}
    due = {last, *(name for name, stage in stages.items() if stage.ensemble is not None)}
    for name in reversed(stages):
        due |= set(stages[name].needs) if name in due else set()
    shared = recipe.model_copy(update={"stages": {}})
    planned = []
    for name, stage in stages.items():
        if name not in due:
            continue
        takes = tuple(places[one] for one in stage.needs)
        if stage.labelling is not None:
            runs = tuple(places[one] for one in stage.labelling.runs)
            how = stage.labelling
            for _, one in stage.outputs:  # the network that looks at references
                how = how.model_copy(update={"refine": {**(how.refine or {}), "run": str(places[one].absolute())}})
            planned.append(Planned(name, places[name], shared, how, runs=runs, takes=takes))
            continue
        if stage.recipe is not None:
            settings = [setting(key, str(places[one].absolute())) for key, one in stage.outputs]
            own = stage.recipe.override(*settings) if settings else stage.recipe
            planned.append(Planned(name, places[name], own, takes=takes))
            continue
        learnt = stages[stage.translating.run].recipe if stage.translating else shared
        assert learnt is not None, "refused with the recipe"
        planned.append(
            Planned(name, places[name], learnt, None, stage.translating, stage.ensemble, runs=takes, takes=takes)
        )
    return planned


def last_trained(planned: Sequence[Planned]) -> Planned:
    """The stage whose run is OUT."""
    return [stage for stage in planned if stage.trains][-1]


def beside(out: Path, stage: str) -> Path:
    """Where the output of another stage stands."""
    return out.with_name(f"{out.name}-{stage}")


def run_stages(planned: Sequence[Planned], root: Path, overwrite: bool) -> None:
    """Each stage that is not finished; overwrite: all, from their beginning."""
    for stage in planned:
        stage.refuse_unready(root)
    trained = [stage.out for stage in planned if stage.trains]
    last = last_trained(planned)
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
            elif stage.ensemble is not None:
                _measure(stage, stage.ensemble, root)
            attempt.kept = f"{stage.out} and what is before it are there"


def _label(stage: Planned, how: Labelling, root: Path, overwrite: bool) -> None:
    recipe = stage.recipe
    label_images(
        lambda: make_job(
            list(stage.runs), stage.data, how.rule, stage.out, (), root, how.weights, None, recipe.device,
            recipe.precision, False, how.resize, how.refine,
        ),
        overwrite=overwrite, score=False,
    )  # fmt: skip


def _translate(stage: Planned, how: Translating, root: Path, overwrite: bool) -> None:
    (run,), recipe = stage.runs, stage.recipe
    translation.translate_images(
        lambda: translation.make_job(
            run, stage.data, stage.out, how.to, root, None, recipe.device, recipe.precision, how.enlarge
        ),
        overwrite=overwrite,
    )  # fmt: skip


def _measure(stage: Planned, how: Ensemble, root: Path) -> None:
    recipe = stage.recipe
    reports = evaluate_ensemble(
        stage.runs, recipe.evaluate.data, how.mean, None, root, out=stage.out, device=recipe.device,
        precision=recipe.precision,
    )  # fmt: skip
    for report in reports:
        log.info(f"{report.protocol.data}  mIoU of the mean {percent(report.miou)}")


def check_stages(planned: Sequence[Planned], root: Path) -> None:
    """A few steps of each stage that trains on what is there, and a look at the images that are labelled."""
    for stage in planned:
        stage.refuse_unready(root)
        if len(planned) > 1:
            log.info(f"stage {stage.name}")
        missing = [place for place in stage.takes if not place.exists()]
        if stage.ensemble is not None:
            log.info(f"not checked: it measures the {stage.what}")
        elif not stage.trains:
            dataset = open_once(stage.data, root, space_of(stage.recipe))
            log.info(f"{len(dataset)} images of {stage.data} to {'label' if stage.labelling else 'translate'}")
        elif missing:
            log.info(f"not checked: it takes {', '.join(map(str, missing))}, which is not there yet")
        else:
            with stoppable(stage.recipe, stage.out):
                training = assembly.assemble(stage.recipe, root, None)
                refuse_bad(training.scored, training.segmenters().values(), stage.recipe.evaluate)
                loop.trial(training)
