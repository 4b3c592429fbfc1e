"""The flat training loop: build, resume, step, log, evaluate, save."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from torch import Tensor

from segda import run as runs
from segda.distributed import group, sharding, sync
from segda.errors import RunFailure, kept
from segda.evaluation.domains import domains_of, with_domain
from segda.evaluation.look import Eye
from segda.evaluation.measure import evaluate_network
from segda.evaluation.metrics import Report
from segda.evaluation.statistics import adopt_exact
from segda.ground.hardware import autocast, peak_memory
from segda.ground.progress import track
from segda.recipes.recipe import Recipe
from segda.reporting.tables import percent
from segda.reporting.words import meanings
from segda.scene import Batch
from segda.training import checkpoint
from segda.training.assembly import Training, plain
from segda.training.loggers import numbers_of
from segda.training.stopping import Stopping
from segda.training.timing import Pace, waiting_said
from segda.training.watching import Watch

log = logging.getLogger(__name__)


def run_steps(training: Training, run: Path, stopping: Stopping | None = None) -> None:
    """Steps from `training.t` to the recipe's end, writing log, checkpoints and scores into `run`.

    When it is asked to stop, it saves after the step that it is in, and raises KeyboardInterrupt.
    """
    recipe, stopping = training.recipe, stopping or Stopping()
    sync.compare(training.method, training.t, training.saved)
    pace, words, watch = Pace(training.t), Words(), Watch(training, run)
    with stopping.later(), closing(training.batches(recipe.steps, recipe.data.workers)) as batches:
        for _ in track(range(training.t, recipe.steps), "training", lines=False):
            with pace.waiting():
                drawn = group.all_succeed(lambda: _next(batches, stopping))
            if asked(stopping):
                break
            training.means.add(training.step(drawn))

            if training.t % recipe.log_every == 0 or training.t == recipe.steps:
                training.skips.tell(run, training.t)
                means, (seconds, waiting) = training.means.take(), pace.take(training.t)
                line = {"step": training.t, "seconds": round(seconds, 4), "waiting": round(waiting, 4)}
                with pace.paused():
                    watched = watch.look()
                group.on_rank_zero(_tell, training, run, line | means | watched | training.rates())
                words.explain(means)
                a_step, left = f"{seconds:.2f} s/step{waiting_said(waiting)}", seconds * (recipe.steps - training.t)
                log.info(f"step {training.t} of {recipe.steps}  {_said(means)}  {a_step}  {_clock(left)} to go")

            if recipe.keep_every and training.t % recipe.keep_every == 0:
                for product, module in training.products().items():
                    path = runs.snapshot_path(run, training.t, product)
                    tensors = sharding.gather_full(module.state_dict())
                    group.on_rank_zero(save_product, training, product, path, tensors)

            scoring = scores_due(recipe, training.t)
            saving = scoring or training.t % recipe.save_every == 0 or training.t == recipe.steps
            if training.t % recipe.compare_every == 0 and not saving:
                sync.compare(training.method, training.t, training.saved)
            if saving:
                training.skips.tell(run, training.t)
                save(training, run)
            if scoring and not asked(stopping):
                with stopping.later(False), pace.paused():
                    score(training, run)

        if asked(stopping):
            if training.saved != training.t:
                training.skips.tell(run, training.t)
                save(training, run)
            raise KeyboardInterrupt


def _tell(training: Training, run: Path, line: Mapping[str, Any]) -> None:
    """A line of the log, and its numbers for the tracker."""
    runs.append_log(run, line)
    if training.logger is not None:
        training.logger.log(numbers_of(line), line["step"])


def asked(stopping: Stopping) -> bool:
    """Whether any process was asked to stop: then all of them are."""
    found = group.all_reduce_max(stopping.asked or 0)
    stopping.asked = stopping.asked or found or None  # one that came meanwhile is seen by all the next time
    return found > 0


def scores_due(recipe: Recipe, t: int) -> bool:
    """Whether the run is scored after t steps; at its end it always is, see running.py."""
    return recipe.evaluate.every > 0 and t > 0 and t % recipe.evaluate.every == 0 and t < recipe.steps


def _next(batches: Iterator[tuple[Batch, ...]], stopping: Stopping) -> tuple[Batch, ...]:
    """The next step's batches; none where the loader's processes were asked to stop as well."""
    try:
        return next(batches)
    except Exception:
        if stopping.asked is None:
            raise
        return ()


def save(training: Training, run: Path) -> None:
    """Checkpoint and networks, written by the first process. Refuses weights that are not finite, or not the same in
    all processes, so that the last good ones are kept.
    """
    sync.compare(training.method, training.t, training.saved)
    group.on_rank_zero(_save, training, run, checkpoint.state_of(training))
    training.saved = training.t


def _save(training: Training, run: Path, state: Mapping[str, Any]) -> None:
    if name := checkpoint.not_finite(state["method"]):
        raise RunFailure(
            f"step {training.t}: {name} is not finite; {kept(training.saved)}; train again with a lower optim.lr, a "
            "longer optim.warmup or --precision 32"
        )
    if not (run / "recipe.yaml").is_file():
        raise RunFailure(f"{run} was removed while it was written to; train again, or put it back and use --resume")
    runs.save_checkpoint(run, state, training.recipe.keep)
    save_products(training, run, state["method"])


def save_products(training: Training, run: Path, state: Mapping[str, Tensor]) -> None:
    """What others read of a run, of the method's whole state: student, teacher, whatever else the method makes."""
    for product, place in training.method.products.items():
        tensors = {
            name.removeprefix(f"{place}."): value for name, value in state.items() if name.startswith(f"{place}.")
        }
        save_product(training, product, runs.product_path(run, product), tensors)


def save_product(training: Training, product: str, path: Path, tensors: Mapping[str, Tensor]) -> None:
    recipe = training.recipe
    segmenters = {str(which): network for which, network in training.segmenters().items()}
    if product in segmenters:
        runs.save_network(path, segmenters[product], recipe.network, training.t, tensors)
    else:
        runs.save_product(path, recipe.method, training.t, tensors)


def finish(training: Training, run: Path) -> None:
    """Gives the student that the run keeps the exact statistics that the recipe asks for. The last checkpoint keeps the
    running ones: a training that goes on from it does as if nothing had happened, and to do this again changes nothing.

    Each process does the same with all images; the first writes.
    """
    recipe = training.recipe
    if not recipe.exact_statistics:
        return
    opened = training.sets()
    sets = [opened[f"data.{name}.set"] for name in recipe.exact_statistics]
    network = runs.load_network(run, "student", training.device)
    eye = Eye(network, recipe.evaluate, training.device, autocast(training.device, training.precision))
    said = " and ".join(f"{len(images)} images of {images.spec}" for images in sets)
    norms = group.all_succeed(lambda: adopt_exact(eye, sets, title="exact statistics"))
    group.on_rank_zero(save_product, training, "student", runs.product_path(run, "student"), network.state_dict())
    log.info(f"student: {norms} batch norm{'s' * (norms > 1)} with the statistics of {said}")
    Watch(training, run).look_again(network)


def score(training: Training, run: Path) -> list[Report]:
    """Scores student and teacher on the recipe's data sets and logs their mIoU; says the student's, if there is one."""
    precision = str(training.precision).removeprefix("torch.")
    reports = []
    # Shards have been saved just before, whole; each process scores its own images with a network of its own. In the
    # end the saved student may have exact statistics, see `finish`.
    finished = training.t == training.recipe.steps and bool(training.recipe.exact_statistics)
    saved = training.sharded or finished
    networks = {
        which: runs.load_network(run, which, training.device) if saved else network
        for which, network in training.segmenters().items()
    }
    domains = domains_of([dataset.spec for dataset in training.scored], [training.recipe])
    for dataset in sorted(training.scored, key=lambda one: list(domains).index(one.spec)):
        mious: dict[str, float] = {}
        remarks: list[str] = []
        for which, network in networks.items():
            known = {"weights": which, "step": training.t, "recipe": training.recipe.name, "precision": precision}
            casting = autocast(training.device, training.precision)
            report = evaluate_network(network, dataset, training.recipe.evaluate, training.device, casting, known)
            mious[which] = report.miou
            remarks = remarks or report.remarks()
            reports.append(report)
        # JSON has no NaN: null where no class of the network is labelled.
        scores = {which: None if math.isnan(miou) else miou for which, miou in mious.items()}
        group.on_rank_zero(_tell, training, run, {"step": training.t, "evaluation": dataset.spec, **scores})
        shown = next(iter(mious))
        whose = "" if shown == "student" else f" of the {shown}"
        place = with_domain(dataset.spec, domains[dataset.spec])
        log.info(f"step {training.t}  {place}  mIoU{whose} {'; '.join([percent(mious[shown]), *remarks])}")
    return reports


def trial(training: Training) -> None:
    """`--check`: three steps on real data, then parameters, memory, seconds a step and the estimated total."""
    recipe = training.recipe
    marks = [time.monotonic()]
    batches = training.batches(min(3, recipe.steps), 0)
    for _ in range(min(3, recipe.steps)):
        terms = training.step(group.all_succeed(lambda: next(batches)))
        marks.append(time.monotonic())
    means = {name: plain(term) for name, term in terms.items()}
    Words().explain(means)
    log.info(_said(means))
    for player in training.method.players:
        groups = training.method.player(player).groups().values()
        log.info(f"parameters: {player} {sum(parameter.numel() for group in groups for parameter in group):,}")
    log.info(_room(training))
    log.info(f"peak memory: {peak_memory(training.device) / 2**30:.2f} GiB on {training.device}, {training.precision}")
    # The quickest, since the first step also warms caches up.
    seconds = min(after - before for before, after in pairwise(marks))
    log.info(f"seconds a step: {seconds:.2f}; {recipe.steps} steps: about {_clock(seconds * recipe.steps)}")


def _room(training: Training) -> str:
    """What the run folder will take: a checkpoint is written before the one that it replaces goes."""
    recipe, one = training.recipe, checkpoint.size(training)
    products = [sum(value.nbytes for value in module.state_dict().values()) for module in training.products().values()]
    snapshots = recipe.steps // recipe.keep_every if recipe.keep_every else 0
    total = one * (2 + recipe.keep) + (1 + snapshots) * sum(products)
    kept = f", {recipe.keep} older ones kept" if recipe.keep else ""
    return f"checkpoint: {_bytes(one)}{kept}; the run folder: up to {_bytes(total)}"


def _bytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.2f} MB"


def _shown(terms: Mapping[str, float | list[float]]) -> dict[str, float]:
    """What a line on the screen says; quantiles (H/source/q05) and histograms are for the log alone."""
    return {name: value for name, value in terms.items() if isinstance(value, float) and name.count("/") < 2}


def _said(terms: Mapping[str, float | list[float]]) -> str:
    """The terms in one line."""
    return "  ".join(f"{name} {value:.4f}" for name, value in _shown(terms).items())


@dataclass
class Words:
    """The words of the lines on the screen that have been explained."""

    explained: set[str] = field(default_factory=set)

    def explain(self, terms: Mapping[str, float | list[float]]) -> None:
        """Says in a line what the words of the next one mean, each once: some begin in the middle of a training."""
        new = {word: said for word, said in meanings(_shown(terms)).items() if word not in self.explained}
        if new:
            log.info("; ".join(f"{word}: {said}" for word, said in new.items()))
        self.explained |= new.keys()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
