"""Which of several networks to take where nobody has labels of the target: every snapshot of every run, by criteria.

Each network sees the images once, and between two of them a mix of both. Target labels are read where they are asked
for, to say what a criterion would have been worth (`oracle`), and never to choose.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segda.data.sets.dataset import DataSet
from segda.data.sets.labelled import open_once
from segda.errors import DataError, RecipeError, RunError, few
from segda.evaluation.certainty import labels
from segda.evaluation.criteria import CRITERIA
from segda.evaluation.domains import domain_of
from segda.evaluation.evidence import evidence
from segda.evaluation.look import Eye, Sight, look, spread
from segda.evaluation.measure import existing, facts, has_network, protocol_of, report_of
from segda.evaluation.metrics import Confusion
from segda.evaluation.snapshots import ORACLE
from segda.evaluation.soundness import refuse_bad
from segda.ground.choices import Criterion, DeviceName, PrecisionName, Weights
from segda.ground.hardware import autocast, pick_device, pick_precision
from segda.networks.network import Network
from segda.recipes.recipe import Recipe
from segda.run import data_root, load_network, load_recipe_of, refuse_twice, snapshots, step_of
from segda.run_data import measured_on, seen_from_here, space_in

log = logging.getLogger(__name__)

SOURCE: Criterion = "source"
"""The criterion that is the mIoU on labelled images of the source."""


@dataclass(frozen=True)
class Candidate:
    """One network of a run, after a step; last: the run's result."""

    run: Path
    weights: Weights
    step: int | None
    last: bool


@dataclass(frozen=True)
class Selection:
    """What the criteria say of each candidate, and which one is taken.

    scores: by criterion, of each candidate; NaN where the criterion does not apply. by: the criterion that chooses.
    source: the labelled images of the source, where there are any. oracle, mious: the labelled data that the criteria
    are judged by, and each candidate's mIoU there; none unless asked.
    """

    data: str
    images: int
    candidates: tuple[Candidate, ...]
    scores: Mapping[str, tuple[float, ...]]
    by: str
    source: str | None = None
    oracle: str | None = None
    mious: tuple[float, ...] = field(default=())

    def ranks(self, criterion: str) -> list[float]:
        """1 for the best candidate; those that tie share the mean of their places; NaN where there is no score."""
        sign = 1.0 if highest(criterion) else -1.0
        return ranks([-sign * score for score in self.scores[criterion]])

    def choice(self, criterion: str) -> int | None:
        """The candidate of the best score, the first of several; None where there is no score."""
        known = [(rank, i) for i, rank in enumerate(self.ranks(criterion)) if not math.isnan(rank)]
        return min(known)[1] if known else None

    @property
    def chosen(self) -> Candidate:
        """By the criterion that chooses."""
        choice = self.choice(self.by)
        assert choice is not None, "refused before"
        return self.candidates[choice]

    def correlation(self, criterion: str) -> float:
        """Spearman's, of the criterion's order with that of the mIoU: 1 where they are the same; needs an oracle."""
        sign = 1.0 if highest(criterion) else -1.0
        return spearman([sign * score for score in self.scores[criterion]], self.mious)

    def regret(self, criterion: str) -> float:
        """How much mIoU the oracle's choice has over the criterion's, 0 to 1; needs an oracle."""
        choice = self.choice(criterion)
        known = [miou for miou in self.mious if not math.isnan(miou)]
        return math.nan if choice is None or not known else max(known) - self.mious[choice]

    def to_json(self) -> dict[str, Any]:
        def plain(value: float) -> float | None:
            return None if math.isnan(value) else value

        def told(i: int) -> dict[str, Any]:
            one = self.candidates[i]
            known = {"run": str(one.run), "weights": one.weights, "step": one.step, "last": one.last}
            scores = {
                name: {"score": plain(of[i]), "rank": plain(self.ranks(name)[i])} for name, of in self.scores.items()
            }
            return known | {"criteria": scores} | ({"miou": plain(self.mious[i])} if self.oracle else {})

        def judged(name: str) -> dict[str, Any]:
            choice = self.choice(name)
            one: dict[str, Any] = {"chosen": choice, "best": "highest" if highest(name) else "lowest"}
            if self.oracle:
                one |= {"correlation": plain(self.correlation(name)), "regret": plain(self.regret(name))}
            return one

        best = int(np.nanargmax(self.mious)) if self.oracle and not np.isnan(self.mious).all() else None
        return {
            "data": self.data, "images": self.images, "source": self.source, "by": self.by,
            "chosen": self.choice(self.by), "candidates": [told(i) for i in range(len(self.candidates))],
            "criteria": {name: judged(name) for name in self.scores},
            "oracle": None if self.oracle is None else {"data": self.oracle, "best": best, "note": ORACLE},
        }  # fmt: skip


def highest(criterion: str) -> bool:
    """Whether the highest value of a criterion is the best."""
    return criterion == SOURCE or CRITERIA[criterion].best == "highest"


def ranks(values: Sequence[float]) -> list[float]:
    """1 for the lowest; equal ones share the mean of their places; NaN for NaN."""
    return [
        math.nan
        if math.isnan(value)
        else 1 + sum(other < value for other in values) + (sum(other == value for other in values) - 1) / 2
        for value in values
    ]


def spearman(one: Sequence[float], other: Sequence[float]) -> float:
    """The correlation of the ranks of two scores of the same things, -1 to 1, over those that have both; NaN where all
    of one score are equal, or fewer than two have both.
    """
    both = [(a, b) for a, b in zip(one, other, strict=True) if not (math.isnan(a) or math.isnan(b))]
    if len(both) < 2:
        return math.nan
    a, b = (np.array(ranks(values)) for values in zip(*both, strict=True))
    a, b = a - a.mean(), b - b.mean()
    spread = math.sqrt((a @ a) * (b @ b))
    return float(a @ b) / spread if spread else math.nan


def select_network(
    runs: Sequence[Path],
    data: str | None,
    by: Criterion,
    images: int,
    source: str | None,
    oracle: str | None,
    root: Path | None,
    weights: Sequence[Weights],
    step: int | None,
    device: DeviceName,
    precision: PrecisionName,
) -> Selection:
    """See commands/select.py, whose function this is."""
    if images < 2:
        raise RecipeError(f"--images {images}: criteria compare images; give 2 or more")
    refuse_twice(runs)
    recipes = {run: load_recipe_of(run) for run in runs}
    candidates = [one for run in runs for one in _candidates(run, weights, step)]
    _refuse_other_classes(runs)
    recipe = recipes[runs[0]]
    place = data_root(recipe, root)
    target = open_once(_target(recipes) if data is None else data, place, space_in(runs[0]))
    of_source = _source_data(runs[0], recipe, source, place)
    judged = None if oracle is None else measured_on(runs[0], oracle, place)
    refuse_bad([one for one in (of_source, judged) if one is not None])
    if by == SOURCE and of_source is None:
        raise RecipeError("--by source: there are no labelled images of the source; name some with --source NAME:SPLIT")
    where = pick_device(device)
    dtype = pick_precision(precision, where)

    scores: dict[str, list[float]] = {name: [] for name in (*CRITERIA, *([] if of_source is None else [SOURCE]))}
    mious: list[float] = []
    for run, at in dict.fromkeys((one.run, one.step) for one in candidates):
        networks = _networks(run, at, where)
        eyes = {
            which: Eye(network, recipes[run].evaluate, where, autocast(where, dtype))
            for which, network in networks.items()
        }
        wanted = [one.weights for one in candidates if (one.run, one.step) == (run, at)]
        title = f"{run.name} after step {at}"
        seen = evidence(eyes, target, spread(len(target), images), title)
        for name, criterion in CRITERIA.items():
            scores[name] += [criterion.of(seen[which]) for which in wanted]
        own = {which: eyes[which] for which in wanted}
        if of_source is not None:
            told = _mious(own, of_source, spread(len(of_source), images), run, at, dtype, title)
            scores[SOURCE] += [told[which] for which in wanted]
        if judged is not None:
            told = _mious(own, judged, range(len(judged)), run, at, dtype, title)
            mious += [told[which] for which in wanted]
    found = Selection(
        target.spec, min(len(target), images), tuple(candidates), {name: tuple(of) for name, of in scores.items()}, by,
        None if of_source is None else of_source.spec, oracle, tuple(mious),
    )  # fmt: skip
    if found.choice(by) is None:
        raise RunError(f"--by {by}: no candidate has a value of it ({NEEDS.get(by, 'see --help')}); choose another")
    return found


NEEDS = {
    "agreement": "it needs runs with a teacher",
    "mixval": "it needs two images",
    "transfer-score": "it needs networks whose last layer is a convolution to the classes",
}
"""Why a criterion may have no value."""


def _candidates(run: Path, weights: Sequence[Weights], step: int | None) -> list[Candidate]:
    """The networks of a run, by step; the last stands for a snapshot of its step, which holds the same weights."""
    found = []
    for which in existing(run, weights, step):
        last = step_of(run, which)
        steps = {*snapshots(run, which), last} if step is None else {step}
        found += [Candidate(run, which, at, at == last) for at in steps]
    order: tuple[Weights, ...] = ("student", "teacher")
    return sorted(found, key=lambda one: (-1 if one.step is None else one.step, order.index(one.weights)))


def _networks(run: Path, step: int | None, device: torch.device) -> dict[Weights, Network]:
    """Student and teacher of a step; the teacher where there is one."""
    both: tuple[Weights, ...] = ("student", "teacher")
    return {
        which: load_network(run, which, device, None if step == step_of(run, which) else step)
        for which in both
        if has_network(run, which, step)
    }


def _refuse_other_classes(runs: Sequence[Path]) -> None:
    for run in runs:
        if space_in(run).classes != space_in(runs[0]).classes:
            raise RunError(f"{run} has other classes than {runs[0]}; select among runs of the same classes")


def _target(recipes: Mapping[Path, Recipe]) -> str:
    """The data set that all of them adapt to."""
    found = {run: seen_from_here(run, recipe.data.target.set) for run, recipe in recipes.items()}
    if len(set(found.values())) > 1:
        raise RecipeError(
            f"the runs adapt to different data ({few(sorted(set(found.values())), 5)}); say on which images to compare "
            "them: --data NAME:SPLIT"
        )
    return next(iter(found.values()))


def _source_data(run: Path, recipe: Recipe, given: str | None, root: Path) -> DataSet | None:
    """Labelled images of the source: those that are named, else the first of evaluate.data that are of the source."""
    if given is not None:
        if domain_of(given, recipe) == "target":
            raise RecipeError(f"--source {given}: is of the target, whose labels choose nothing; see --oracle")
        return measured_on(run, given, root)
    own = [spec for spec in recipe.evaluate.data if domain_of(spec, recipe) == "source"]
    if not own:
        return None
    try:
        return measured_on(run, seen_from_here(run, own[0]), root)
    except DataError as error:
        log.warning(f"no criterion {SOURCE}: {error}")
        return None


def _mious(
    eyes: Mapping[Weights, Eye],
    dataset: DataSet,
    order: Sequence[int],
    run: Path,
    step: int | None,
    precision: torch.dtype,
    title: str,
) -> dict[Weights, float]:
    """The mIoU of each network on these images of a labelled data set."""
    counts = {which: Confusion(len(dataset.space.classes), eye.device) for which, eye in eyes.items()}

    def each(sight: Sight) -> None:
        assert sight.scene.label is not None
        for which, views in zip(eyes, sight.by_eye, strict=True):
            counts[which].add(sight.scene.label, labels(views, sight.size))

    seen = list(eyes.values())
    for _ in look(seen, dataset, each, title=f"{title}, {dataset.spec}", indices=order, label=True, split=False):
        pass
    return {
        which: report_of(
            count.counts(), protocol_of(dataset, eyes[which].settings, **facts(run, which, precision, step)), dataset
        ).miou
        for which, count in counts.items()
    }
