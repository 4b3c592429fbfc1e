"""Runs measured on labelled data sets: one, several one after the other, several as one, every snapshot of one.

Several processes (torchrun) share the images; the first alone writes. Each has the same reports in the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from segda.data.sets.dataset import DataSet
from segda.data.sets.labelled import open_once
from segda.distributed import group
from segda.errors import RecipeError, RunError, RunFailure
from segda.evaluation.checkpoints import check_snapshots, evaluate_snapshots
from segda.evaluation.ensemble import evaluate_ensemble
from segda.evaluation.look import Eye
from segda.evaluation.measure import evaluate_network, existing, facts
from segda.evaluation.metrics import Report, write_reports
from segda.evaluation.protocol import Statistics
from segda.evaluation.snapshots import Snapshots
from segda.evaluation.soundness import refuse_bad
from segda.evaluation.statistics import adopt_statistics, learning_norms
from segda.ground.choices import DeviceName, Mean, PrecisionName, Weights
from segda.ground.hardware import autocast, pick_device, pick_precision
from segda.networks.network import Network
from segda.recipes.diff import admit
from segda.recipes.recipe import Recipe
from segda.run import data_root, load_network, load_recipe_of, refuse_twice, snapshots
from segda.run_data import measured_on


@dataclass(frozen=True)
class Found:
    """What was measured of a run, or of an ensemble, which is none."""

    run: Path | None
    reports: list[Report] = field(default_factory=list)
    snapshots: list[Snapshots] = field(default_factory=list)

    def to_json(self) -> list[dict[str, Any]]:
        of: dict[str, Any] = {} if self.run is None else {"run": str(self.run)}
        return [of | one.to_json() for one in self.reports] + [of | one.to_json() for one in self.snapshots]


@group.joined()
def measure_run(
    run: Path | str,
    data: Sequence[str],
    root: Path | None,
    weights: Sequence[Weights],
    device: DeviceName,
    precision: PrecisionName,
    step: int | None,
    statistics: str | None,
) -> list[Report]:
    """A run on labelled data sets; see commands/evaluate.py, whose functions these are."""
    run = Path(run)

    def ready() -> tuple[Any, ...]:
        recipe = load_recipe_of(run)
        where = group.own_device(pick_device(device))
        networks = {each: load_network(run, each, where, step) for each in existing(run, weights, step)}
        # All data sets are opened before the first is measured: a misspelt last one must not cost an hour.
        opened = [measured_on(run, spec, data_root(recipe, root)) for spec in data]
        images = None if statistics is None else _images(run, statistics, root, networks)
        return recipe, where, pick_precision(precision, where), networks, opened, images

    def adopted(each: Weights) -> Statistics | None:
        """Those that a network's batch norms now have in place of its own."""
        if images is None:
            return None
        eye = Eye(networks[each], recipe.evaluate, where, autocast(where, dtype))
        return adopt_statistics(eye, images, title=f"{images.spec} statistics for {each}")

    recipe, where, dtype, networks, opened, images = group.all_succeed(ready)
    refuse_bad(opened, networks.values(), recipe.evaluate)
    others = {each: group.all_succeed(partial(adopted, each)) for each in networks}
    done = []
    for dataset in opened:
        reports = []
        for each, network in networks.items():
            known = facts(run, each, dtype, step, others[each])
            reports.append(evaluate_network(network, dataset, recipe.evaluate, where, autocast(where, dtype), known))
        if step is None:
            group.on_rank_zero(_write, run, recipe, reports)
        done += reports
    return done


def _write(run: Path, recipe: Recipe, reports: Sequence[Report]) -> None:
    """The reports of one data set. RunFailure where a run of another recipe has taken the place of the measured one:
    nobody keeps a training out while its folder is measured.
    """
    try:
        admit(run, recipe, load_recipe_of(run))
    except RunError as error:
        raise RunFailure(f"{run}: another run was begun there while this one was measured; measure it again") from error
    write_reports(run, reports)


def _images(run: Path, statistics: str, root: Path | None, networks: Mapping[Weights, Network]) -> DataSet:
    """The images whose statistics the networks of a run are to have; RecipeError where that would change nothing."""
    for each, network in networks.items():
        learning_norms(network, f"{run}: its {each}")
    return open_once(statistics, data_root(load_recipe_of(run), root))


@group.joined()
def measure_runs(
    runs: Sequence[Path],
    data: Sequence[str],
    root: Path | None,
    weights: Sequence[Weights],
    ensemble: Mean | None,
    shares: str | None,
    out: Path | None,
    all_checkpoints: bool,
    device: DeviceName,
    precision: PrecisionName,
    step: int | None,
    statistics: str | None = None,
) -> list[Found]:
    """Several runs one after the other, each into its own folder, or with `ensemble` as one. RecipeError if options
    exclude each other.
    """
    given = group.all_succeed(
        lambda: _check(runs, data, root, weights, ensemble, shares, out, all_checkpoints, step, statistics)
    )
    if ensemble is not None:
        reports = evaluate_ensemble(runs, data, ensemble, given, root, weights, out, device, precision, step)
        return [Found(None, reports)]
    found = []
    for run in runs:
        if all_checkpoints:
            kept = [each for each in weights if snapshots(run, each)]
            measured = [one for each in kept for one in evaluate_snapshots(run, data, root, device, precision, each)]
            found.append(Found(run, snapshots=measured))
        else:
            found.append(Found(run, measure_run(run, data, root, weights, device, precision, step, statistics)))
    return found


def _check(
    runs: Sequence[Path],
    data: Sequence[str],
    root: Path | None,
    weights: Sequence[Weights],
    ensemble: Mean | None,
    shares: str | None,
    out: Path | None,
    all_checkpoints: bool,
    step: int | None,
    statistics: str | None,
) -> list[float] | None:
    """What can be checked before the first run is measured; returns the shares of an ensemble, where they are given."""
    if all_checkpoints and step is not None:
        raise RecipeError(f"--step {step} is one of --all-checkpoints; give one of the two")
    if statistics is not None and (all_checkpoints or ensemble is not None):
        other = "--all-checkpoints" if all_checkpoints else "--ensemble"
        raise RecipeError(f"--statistics {statistics} replaces those of single networks; leave {other} out")
    if ensemble is not None:
        if all_checkpoints:
            raise RecipeError("--all-checkpoints measures runs one by one; leave --ensemble out")
        return _numbers(shares)
    if shares is not None:
        raise RecipeError("--shares are those of an ensemble; add --ensemble logits or --ensemble probabilities")
    if out is not None:
        raise RecipeError(f"--out {out} is for an ensemble's report; a run's own goes to RUN/reports")
    refuse_twice(runs)
    for run in runs:  # before the first is measured: what is wrong with the last one must not cost an hour
        recipe = load_recipe_of(run)
        found = existing(run, weights, step)
        if statistics is not None:
            _images(run, statistics, root, {each: load_network(run, each, step=step) for each in found})
        for spec in data:
            measured_on(run, spec, data_root(recipe, root))
        if all_checkpoints:
            check_snapshots(run, weights)
    return None


def _numbers(shares: str | None) -> list[float] | None:
    """Of "0.5,0.5": 0.5, 0.5."""
    try:
        return None if shares is None else [float(part) for part in shares.split(",")]
    except ValueError:
        raise RecipeError(
            f"--shares {shares}: give one number a run, separated by commas, for example 0.5,0.5"
        ) from None
