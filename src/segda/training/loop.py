"""The flat training loop: build, resume, step, log, evaluate, save."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
from segda.errors import RecipeError, RunError, WeightsError
from segda.evaluation.metrics import Report
from segda.hardware import autocast, leave_cores, peak_memory, pick_device, pick_precision
from segda.methods import METHODS
from segda.methods.method import Method
from segda.networks import NETWORKS
from segda.networks.network import Network
from segda.progress import Track
from segda.recipe import Recipe, build, class_named
from segda.scene import Batch
from segda.training.optim import Optim, optimisers, set_lr
from segda.training.step import train_step

Say = Callable[[str], None]


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

    def state(self) -> dict[str, Any]:
        """Everything that `restore` needs. Data and random draws are functions of seed and step: they have no state."""
        return {
            "t": self.t,
            "method": self.method.state_dict(),
            "optimisers": {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()},
            "scaler": self.scaler.state_dict(),
        }

    def restore(self, state: dict[str, Any], where: Path) -> None:
        try:
            self.method.load_state_dict(state["method"])
            for name, optimiser in self.optimisers.items():
                optimiser.load_state_dict(state["optimisers"][name])
            self.scaler.load_state_dict(state["scaler"])
            self.t = state["t"]
        except (KeyError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise WeightsError(f"{where} does not fit this recipe: {reason}; train anew with --overwrite") from error


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


def fit(training: Training, run: Path, say: Say, track: Track, stop: int | None = None) -> None:
    """Steps from `training.t` to the recipe's end (or to `stop`), writing log, checkpoints and scores into `run`."""
    recipe = training.recipe
    last = recipe.steps if stop is None else min(stop, recipe.steps)
    sums: dict[str, torch.Tensor] = {}
    begin, since = time.monotonic(), training.t
    batches = loader(training.pairs, recipe.data.batch, training.t, last, recipe.data.workers, recipe.seed)
    for batch, _ in zip(batches, track(range(training.t, last), "training", lines=False), strict=True):
        terms = training.step(batch)
        sums = {name: sums.get(name, 0) + term for name, term in terms.items()}

        if training.t % recipe.log_every == 0 or training.t == last:
            count = training.t - since
            means = {name: _plain(total / count) for name, total in sums.items()}
            seconds = (time.monotonic() - begin) / count
            line = {"step": training.t, "seconds": round(seconds, 4), **means, **training.rates()}
            runs.append_log(run, line)
            left = seconds * (recipe.steps - training.t)
            say(f"step {training.t} of {recipe.steps}  {_said(means)}  {seconds:.2f} s/step  {_clock(left)} to go")
            sums, begin, since = {}, time.monotonic(), training.t

        if recipe.keep_every and training.t % recipe.keep_every == 0:
            path = runs.snapshot_path(run, training.t)
            runs.save_network(path, training.method.student, recipe.network, training.t)

        every = recipe.evaluate.every
        scoring = every > 0 and training.t % every == 0 and training.t < recipe.steps
        if training.t % recipe.save_every == 0 or training.t == last or scoring:
            save(training, run)
        if scoring:
            paused = time.monotonic()
            score(training, run, say, track)
            begin += time.monotonic() - paused


def save(training: Training, run: Path) -> None:
    """Checkpoint and networks. Refuses weights that are not finite, so that the last good ones are kept."""
    for name, value in training.method.state_dict().items():
        # A level that has seen nothing is NaN on purpose.
        if value.is_floating_point() and not value.isfinite().all() and name != "level.value":
            raise RunError(
                f"step {training.t}: {name} is not finite; the last checkpoint is kept; train again with a lower "
                "optim.lr, a longer optim.warmup or --precision 32"
            )
    runs.save_checkpoint(run, training.state())
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
    say(f"peak memory: {peak_memory(training.device) / 2**30:.2f} GiB on {training.device}, {training.precision}")
    # The quickest, since the first step also warms caches up.
    seconds = min(after - before for before, after in pairwise(marks))
    say(f"seconds a step: {seconds:.2f}; {recipe.steps} steps: about {_clock(seconds * recipe.steps)}")


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
