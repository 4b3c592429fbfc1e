"""The flat training loop: build, resume, step, log, evaluate, save."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segda import run as runs
from segda.commands.evaluate import evaluate_network, open_labelled
from segda.data.datasets import DataSet, open_data
from segda.data.labels import Space
from segda.data.pseudo_labels import PseudoLabels
from segda.data.stream import Pairs, class_statistics, loader
from segda.errors import RecipeError, RunFailure
from segda.evaluation.metrics import Report
from segda.hardware import autocast, leave_cores, peak_memory, pick_device, pick_precision
from segda.methods import METHODS
from segda.methods.method import Method
from segda.networks import NETWORKS
from segda.networks.network import Network
from segda.progress import Track
from segda.recipe import Recipe, build, class_named
from segda.scene import Batch
from segda.training import checkpoint
from segda.training.optim import Optim, optimisers, set_lr
from segda.training.step import train_step
from segda.training.stopping import Stopping

Say = Callable[[str], None]


@dataclass
class Means:
    """The means of a step's terms over the steps since the last line of the log."""

    sums: dict[str, Tensor] = field(default_factory=dict)
    count: int = 0

    def add(self, terms: Mapping[str, Tensor]) -> None:
        self.sums = {name: self.sums.get(name, 0) + term for name, term in terms.items()}
        self.count += 1

    def take(self) -> dict[str, float | list[float]]:
        """The means, and begins anew."""
        means = {name: _plain(total / self.count) for name, total in self.sums.items()}
        self.sums, self.count = {}, 0
        return means

    def state(self) -> dict[str, Any]:
        return {"sums": self.sums, "count": self.count}

    def restore(self, state: Mapping[str, Any], device: torch.device) -> None:
        self.sums = {name: total.to(device) for name, total in state["sums"].items()}
        self.count = state["count"]


@dataclass
class Training:
    """All that a run is made of, built and ready at step `t`."""

    recipe: Recipe
    method: Method
    optimisers: dict[str, torch.optim.Optimizer]
    scaler: torch.amp.GradScaler
    pairs: Pairs
    scored: list[DataSet]
    device: torch.device
    precision: torch.dtype
    t: int = 0
    means: Means = field(default_factory=Means)
    saved: int | None = None
    """The step after which it was last saved."""

    @cached_property
    def anchors(self) -> dict[str, str]:
        """A hash of each part of the method that never changes."""
        return {name: checkpoint.digest(anchor) for name, anchor in checkpoint.anchors(self.method).items()}

    def networks(self) -> dict[runs.Which, Network]:
        """What a run saves and scores: the student, and the teacher where the method has one."""
        teacher = getattr(self.method, "teacher", None)
        return {"student": self.method.student} | ({} if teacher is None else {"teacher": teacher.network})

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """The optimisation step that is due, and on to the next; returns its terms, detached."""
        for player, optimiser in self.optimisers.items():
            set_lr(optimiser, self.t, self.recipe.steps, settings_of(self.recipe)[player])
        # Dropout draws from torch's generator: giving it an address makes step t the same after any resume.
        torch.manual_seed(step_seed(self.recipe.seed, self.t))
        terms = train_step(self.method, batch.to(self.device), self.t, self.optimisers, self.scaler, self.precision)
        self.t += 1
        return terms

    def rates(self) -> dict[str, float]:
        """The learning rate of each player's parameter groups in the last step."""
        return {
            f"lr/{player}/{group['name']}": group["lr"]
            for player, optimiser in self.optimisers.items()
            for group in optimiser.param_groups
        }


def settings_of(recipe: Recipe) -> dict[str, Optim]:
    """The optimiser's settings of each player."""
    return {"student": recipe.optim, **recipe.players}


def assemble(recipe: Recipe, root: Path, cache: Path | None, track: Track, say: Say) -> Training:
    """Builds the whole run from a recipe, the cheap checks first. Class statistics are cached in the folder `cache`."""
    device = pick_device(recipe.device)
    precision = pick_precision(recipe.precision, device)
    leave_cores(recipe.data.workers)
    space = runs.space_of(recipe)
    source, target = (open_data(spec, root, space) for spec in (recipe.data.source, recipe.data.target))
    scored = [open_labelled(spec, root, space) for spec in recipe.evaluate.data]

    pseudo_labels = target_labels(recipe, target, space)

    torch.manual_seed(recipe.seed)
    network: Network = build(NETWORKS, recipe.network, "network", class_names=space.classes)
    say(network.origin)
    method: Method = build(METHODS, recipe.method, "method", student=network).to(device).train()

    statistics = None
    if recipe.data.rare_class is not None:
        statistics = class_statistics(source, cache, track)
    pairs = Pairs(
        source, target, recipe.seed, recipe.data.source_augment, recipe.data.target_augment,
        recipe.data.rare_class, statistics, network.fill, pseudo_labels,
    )  # fmt: skip
    return Training(
        recipe,
        method,
        optimisers(method, settings_of(recipe)),
        torch.amp.GradScaler(device.type, enabled=precision is torch.float16),
        pairs,
        scored,
        device,
        precision,
    )


def target_labels(recipe: Recipe, target: DataSet, space: Space) -> PseudoLabels | None:
    """The pseudo-labels that the recipe names, for a method that learns from them; RecipeError for one alone."""
    folder, name = recipe.data.target_labels, recipe.method["name"]
    learns = class_named(METHODS, recipe.method, "method").learns_target_labels
    if learns and folder is None:
        raise RecipeError(
            f"data.target_labels: method {name} learns from pseudo-labels; give the folder that `segda pseudo-label` "
            f"wrote for {recipe.data.target}, or train with --stages"
        )
    if folder is None:
        return None
    if not learns:
        raise RecipeError(f"data.target_labels: has no effect with method {name}; remove it")
    return PseudoLabels.open(folder, target, space)


def fit(training: Training, run: Path, say: Say, track: Track, stopping: Stopping | None = None) -> None:
    """Steps from `training.t` to the recipe's end, writing log, checkpoints and scores into `run`.

    When it is asked to stop, it saves after the step that it is in, and raises KeyboardInterrupt.
    """
    recipe, stopping = training.recipe, stopping or Stopping()
    begin, since = time.monotonic(), training.t
    batches = loader(training.pairs, recipe.data.batch, training.t, recipe.steps, recipe.data.workers, recipe.seed)
    with stopping.later():
        for _ in track(range(training.t, recipe.steps), "training", lines=False):
            batch = _next(batches, stopping)
            if batch is None:
                break
            training.means.add(training.step(batch))

            if training.t % recipe.log_every == 0 or training.t == recipe.steps:
                means = training.means.take()
                seconds = (time.monotonic() - begin) / (training.t - since)
                line = {"step": training.t, "seconds": round(seconds, 4), **means, **training.rates()}
                runs.append_log(run, line)
                left = seconds * (recipe.steps - training.t)
                say(f"step {training.t} of {recipe.steps}  {_said(means)}  {seconds:.2f} s/step  {_clock(left)} to go")
                begin, since = time.monotonic(), training.t

            if recipe.keep_every and training.t % recipe.keep_every == 0:
                path = runs.snapshot_path(run, training.t)
                runs.save_network(path, training.method.student, recipe.network, training.t)

            scoring = scores_due(recipe, training.t)
            if training.t % recipe.save_every == 0 or training.t == recipe.steps or scoring:
                save(training, run)
            if stopping.asked is not None:
                break
            if scoring:
                paused = time.monotonic()
                with stopping.later(False):
                    score(training, run, say, track)
                begin += time.monotonic() - paused

        if stopping.asked is not None:
            if training.saved != training.t:
                save(training, run)
            raise KeyboardInterrupt


def scores_due(recipe: Recipe, t: int) -> bool:
    """Whether the run is scored after t steps; at its end it always is, see commands/train.py."""
    return recipe.evaluate.every > 0 and t > 0 and t % recipe.evaluate.every == 0 and t < recipe.steps


def _next(batches: Iterator[Batch], stopping: Stopping) -> Batch | None:
    """The next batch; None where there is none since the loader's processes were asked to stop as well."""
    try:
        return next(batches)
    except Exception:
        if stopping.asked is None:
            raise
        return None


def save(training: Training, run: Path) -> None:
    """Checkpoint and networks. Refuses weights that are not finite, so that the last good ones are kept."""
    for name, value in training.method.state_dict().items():
        # A level that has seen nothing is NaN on purpose.
        if value.is_floating_point() and not value.isfinite().all() and name != "level.value":
            raise RunFailure(
                f"step {training.t}: {name} is not finite; the last checkpoint is kept; train again with a lower "
                "optim.lr, a longer optim.warmup or --precision 32"
            )
    if not (run / "recipe.yaml").is_file():
        raise RunFailure(f"{run} was removed while it was written to; train again, or put it back and use --resume")
    runs.save_checkpoint(run, checkpoint.state_of(training), training.recipe.keep)
    training.saved = training.t
    save_networks(training, run)


def save_networks(training: Training, run: Path) -> None:
    """What others read of a run: the student and, where there is one, the teacher."""
    for which, network in training.networks().items():
        runs.save_network(run / runs.FILES[which], network, training.recipe.network, training.t)


def score(training: Training, run: Path, say: Say, track: Track) -> list[Report]:
    """Scores student and teacher on the recipe's data sets and logs their mIoU."""
    precision = str(training.precision).removeprefix("torch.")
    reports = []
    for dataset in training.scored:
        mious: dict[str, float] = {}
        for which, network in training.networks().items():
            known = {"weights": which, "step": training.t, "recipe": training.recipe.name, "precision": precision}
            casting = autocast(training.device, training.precision)
            report = evaluate_network(
                network, dataset, training.recipe.evaluate, training.device, casting, known, track
            )
            mious[which] = report.miou
            reports.append(report)
        # JSON has no NaN: null where no class of the network is labelled.
        known = {which: None if math.isnan(miou) else miou for which, miou in mious.items()}
        runs.append_log(run, {"step": training.t, "evaluation": dataset.spec, **known})
        values = "  ".join(f"{which} {miou:.1%}" for which, miou in mious.items())
        say(f"step {training.t}  {dataset.spec}  {values}")
    return reports


def step_seed(seed: int, t: int) -> int:
    """A different seed of torch's generator for each step of each run, 63 bits."""
    return int(np.random.SeedSequence([seed, t]).generate_state(1, np.uint64)[0] >> 1)


def trial(training: Training, say: Say) -> None:
    """`--check`: three steps on real data, then parameters, memory, seconds a step and the estimated total."""
    recipe = training.recipe
    marks = [time.monotonic()]
    for batch in loader(training.pairs, recipe.data.batch, 0, min(3, recipe.steps), 0, recipe.seed):
        terms = training.step(batch)
        marks.append(time.monotonic())
    say(_said({name: _plain(term) for name, term in terms.items()}))
    for player in training.method.players:
        groups = getattr(training.method, player).groups().values()
        say(f"parameters: {player} {sum(parameter.numel() for group in groups for parameter in group):,}")
    say(_room(training))
    say(f"peak memory: {peak_memory(training.device) / 2**30:.2f} GiB on {training.device}, {training.precision}")
    # The quickest, since the first step also warms caches up.
    seconds = min(after - before for before, after in pairwise(marks))
    say(f"seconds a step: {seconds:.2f}; {recipe.steps} steps: about {_clock(seconds * recipe.steps)}")


def _room(training: Training) -> str:
    """What the run folder will take: a checkpoint is written before the one that it replaces goes."""
    recipe, one = training.recipe, checkpoint.size(training)
    networks = [
        sum(value.nbytes for value in network.state_dict().values()) for network in training.networks().values()
    ]
    snapshots = recipe.steps // recipe.keep_every if recipe.keep_every else 0
    total = one * (2 + recipe.keep) + sum(networks) + snapshots * networks[0]
    kept = f", {recipe.keep} older ones kept" if recipe.keep else ""
    return f"checkpoint: {_bytes(one)}{kept}; the run folder: up to {_bytes(total)}"


def _bytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.2f} MB"


def _plain(term: Tensor) -> float | list[float]:
    """A scalar, or a histogram, of which five digits are enough in a log."""
    value = term.tolist()
    return value if isinstance(value, float) else [round(share, 5) for share in value]


def _said(terms: Mapping[str, float | list[float]]) -> str:
    """The terms in one line; quantiles (H/source/q05) and histograms are for the log alone."""
    return "  ".join(
        f"{name} {value:.4f}" for name, value in terms.items() if isinstance(value, float) and name.count("/") < 2
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
