"""The flat training loop: build, resume, step, log, evaluate, save."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from segda import run as runs
from segda.commands.evaluate import evaluate_network, open_labelled
from segda.data.datasets import DataSet, open_data
from segda.data.stream import Pairs, class_statistics, loader
from segda.errors import RunError, WeightsError
from segda.evaluation.metrics import Report
from segda.hardware import autocast, peak_memory, pick_device, pick_precision
from segda.methods import METHODS
from segda.methods.method import Method
from segda.networks import NETWORKS
from segda.networks.network import Network
from segda.progress import Track
from segda.recipe import Recipe, build
from segda.training.optim import lr_at, optimisers, set_lr
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


def assemble(recipe: Recipe, root: Path, cache: Path | None, track: Track, say: Say) -> Training:
    """Builds the whole run from a recipe, the cheap checks first. Class statistics are cached in the folder `cache`."""
    device = pick_device(recipe.device)
    precision = pick_precision(recipe.precision, device)
    space = runs.space_of(recipe)
    source, target = (open_data(spec, root, space) for spec in (recipe.data.source, recipe.data.target))
    scored = [open_labelled(spec, root, space) for spec in recipe.evaluate.data]

    torch.manual_seed(recipe.seed)
    network: Network = build(NETWORKS, recipe.network, "network", class_names=space.classes)
    say(network.origin)
    method: Method = build(METHODS, recipe.method, "method", student=network).to(device).train()

    statistics = None
    if recipe.data.rare_class is not None:
        statistics = class_statistics(source, cache, track)
    pairs = Pairs(
        source, target, recipe.seed, recipe.data.source_augment, recipe.data.target_augment,
        recipe.data.rare_class, statistics, network.fill,
    )  # fmt: skip
    return Training(
        recipe,
        method,
        optimisers(method, recipe.optim),
        torch.amp.GradScaler(device.type, enabled=precision is torch.float16),
        pairs,
        scored,
        device,
        precision,
    )


def fit(training: Training, run: Path, say: Say, track: Track, stop: int | None = None) -> None:
    """Steps from `training.t` to the recipe's end (or to `stop`), writing log, checkpoints and scores into `run`."""
    recipe, method = training.recipe, training.method
    last = recipe.steps if stop is None else min(stop, recipe.steps)
    sums: dict[str, torch.Tensor] = {}
    begin, since = time.monotonic(), training.t
    for batch in loader(training.pairs, recipe.data.batch, training.t, last, recipe.data.workers, recipe.seed):
        rates = {}
        for player, optimiser in training.optimisers.items():
            set_lr(optimiser, lr_at(training.t, recipe.steps, recipe.optim))
            rates |= {f"lr/{player}/{group['name']}": group["lr"] for group in optimiser.param_groups}
        # Dropout draws from torch's generator: giving it an address makes step t the same after any resume.
        torch.manual_seed(step_seed(recipe.seed, training.t))
        terms = train_step(
            method,
            batch.to(training.device),
            training.t,
            training.optimisers,
            training.scaler,
            training.precision,
        )
        sums = {name: sums.get(name, 0) + term for name, term in terms.items()}
        training.t += 1

        if training.t % recipe.log_every == 0 or training.t == last:
            count = training.t - since
            means = {name: float(total) / count for name, total in sums.items()}
            seconds = (time.monotonic() - begin) / count
            line = {"step": training.t, "seconds": round(seconds, 4), **means, **rates}
            runs.append_log(run, line)
            left = seconds * (recipe.steps - training.t)
            values = "  ".join(f"{name} {value:.4f}" for name, value in means.items())
            say(f"step {training.t} of {recipe.steps}  {values}  {seconds:.2f} s/step  {_clock(left)} to go")
            sums, begin, since = {}, time.monotonic(), training.t

        every = recipe.evaluate.every
        scoring = every > 0 and training.t % every == 0 and training.t < recipe.steps
        if training.t % recipe.save_every == 0 or training.t == last or scoring:
            save(training, run)
        if scoring:
            score(training, run, say, track)
            begin, since = time.monotonic(), training.t


def save(training: Training, run: Path) -> None:
    """Checkpoint and networks. Refuses weights that are not finite, so that the last good ones are kept."""
    for name, value in training.method.state_dict().items():
        # A level that has seen nothing is NaN on purpose.
        if value.is_floating_point() and not value.isfinite().all() and name != "level.value":
            raise RunError(
                f"step {training.t}: {name} is not finite; the last checkpoint is kept: lower optim.lr, then --resume"
            )
    runs.save_checkpoint(run, training.state())
    for which, network in training.networks().items():
        runs.save_network(run, which, network, training.recipe.network, training.t)


def score(training: Training, run: Path, say: Say, track: Track) -> list[Report]:
    """Scores student and teacher on the recipe's data sets and logs their mIoU."""
    reports = []
    for dataset in training.scored:
        line: dict[str, Any] = {"step": training.t, "evaluation": dataset.spec}
        for which, network in training.networks().items():
            report = evaluate_network(
                network,
                dataset,
                training.recipe.evaluate,
                training.device,
                autocast(training.device, training.precision),
                {
                    "weights": which,
                    "step": training.t,
                    "recipe": training.recipe.name,
                    "precision": str(training.precision).removeprefix("torch."),
                },
                track,
            )
            line[which] = report.miou
            reports.append(report)
        runs.append_log(run, line)
        say(
            f"step {training.t}  {dataset.spec}  "
            + "  ".join(f"{which} {line[which]:.1%}" for which in training.networks())
        )
    return reports


def step_seed(seed: int, t: int) -> int:
    """A different seed of torch's generator for each step of each run, 63 bits."""
    import numpy as np

    return int(np.random.SeedSequence([seed, t]).generate_state(1, np.uint64)[0] >> 1)


def trial(training: Training, say: Say) -> None:
    """`--check`: one step on real data, then parameters, memory, seconds a step and the estimated total."""
    begin = time.monotonic()
    steps = 3
    times = []
    for t, batch in enumerate(loader(training.pairs, training.recipe.data.batch, 0, steps, 0, training.recipe.seed)):
        for optimiser in training.optimisers.values():
            set_lr(optimiser, lr_at(t, training.recipe.steps, training.recipe.optim))
        terms = train_step(
            training.method,
            batch.to(training.device),
            t,
            training.optimisers,
            training.scaler,
            training.precision,
        )
        times.append(time.monotonic() - begin)
        begin = time.monotonic()
    count = {
        name: sum(
            parameter.numel() for group in getattr(training.method, name).groups().values() for parameter in group
        )
        for name in training.method.players
    }
    say("  ".join(f"{name} {float(term):.4f}" for name, term in terms.items()))
    say("parameters: " + ", ".join(f"{name} {number:,}" for name, number in count.items()))
    say(f"peak memory: {peak_memory(training.device) / 2**30:.2f} GiB on {training.device}, {training.precision}")
    # The first step also warms caches up.
    total = _clock(min(times[1:]) * training.recipe.steps)
    say(f"seconds a step: {min(times[1:]):.2f}; {training.recipe.steps} steps: about {total}")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
