"""`segda evaluate`: how well a run's networks segment labelled data sets, with the protocol beside every
number; the mean of several runs' networks; every snapshot of a run.

Several processes (torchrun) share the images; the first alone writes. Each has the same reports in the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from segda.data.sets.labelled import open_labelled
from segda.distributed import group
from segda.errors import RecipeError
from segda.evaluation.checkpoints import check_snapshots, evaluate_snapshots
from segda.evaluation.ensemble import evaluate_ensemble
from segda.evaluation.measure import STUDENT_AND_TEACHER, evaluate_network, existing, facts
from segda.evaluation.metrics import Report, write_reports
from segda.ground.choices import DeviceName, Mean, PrecisionName, Weights
from segda.ground.hardware import autocast, pick_device, pick_precision
from segda.reporting.tables import names_of, snapshots_table, tables
from segda.run import data_root, load_network, load_recipe_of, snapshots, space_of


@group.joined()
def evaluate(
    run: Path | str,
    data: Sequence[str],
    root: Path | None = None,
    weights: Sequence[Weights] = STUDENT_AND_TEACHER,
    device: DeviceName = "auto",
    precision: PrecisionName = "auto",
    step: int | None = None,
) -> list[Report]:
    """Measure a run on labelled data sets: IoU of each class, mIoU, accuracy.

    DATA is `name:split[:condition]`, for example camvid:test:dusk; several are measured one after the other.
    Student and teacher are measured if the run has both. Image size and windows are those of the run's recipe
    (evaluate.*); labels are compared at their own size. The reports go to RUN/reports/, one JSON file a data
    set; with `step`, the networks after that step are measured, and no file is written, since they are not the run's
    result.
    """
    run = Path(run)

    def ready() -> tuple[Any, ...]:
        recipe = load_recipe_of(run)
        where = group.own_device(pick_device(device))
        networks = {each: load_network(run, each, where, step) for each in existing(run, weights, step)}
        # All data sets are opened before the first is measured: a misspelt last one must not cost an hour.
        opened = [open_labelled(spec, data_root(recipe, root), space_of(recipe)) for spec in data]
        return recipe, where, pick_precision(precision, where), networks, opened

    recipe, where, dtype, networks, opened = group.all_succeed(ready)
    done = []
    for dataset in opened:
        reports = []
        for each, network in networks.items():
            known = facts(run, each, dtype, step)
            reports.append(evaluate_network(network, dataset, recipe.evaluate, where, autocast(where, dtype), known))
        if step is None:
            group.on_rank_zero(write_reports, run, reports)
        done += reports
    return done


@group.joined()
def run_command(
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
    step: int | None = None,
) -> tuple[list[Table], list[dict[str, Any]]]:
    """What `segda evaluate RUN...` shows, as tables and as plain values; RecipeError if options exclude each other.

    Several runs are measured one after the other, each into its own folder, or with `ensemble` as one.
    """
    machine = (device, precision)
    given = group.all_succeed(lambda: _check(runs, data, root, weights, ensemble, shares, out, all_checkpoints, step))
    if ensemble is not None:
        done = evaluate_ensemble(runs, data, ensemble, given, root, weights, out, *machine, step)
        return tables(done, f"ensemble of {len(runs)}"), [report.to_json() for report in done]
    names = names_of(runs)
    shown: list[Table] = []
    plain: list[dict[str, Any]] = []
    for run, name in zip(runs, names, strict=True):
        if all_checkpoints:
            kept = [each for each in weights if snapshots(run, each)]
            measured = [one for each in kept for one in evaluate_snapshots(run, data, root, *machine, each)]
            shown += [snapshots_table(each, name) for each in measured]
            found = [each.to_json() for each in measured]
        else:
            reports = evaluate(run, data, root, weights, *machine, step)
            shown += tables(reports, name if len(runs) > 1 else "")
            found = [each.to_json() for each in reports]
        plain += [{"run": str(run), **each} for each in found]
    return shown, plain


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
) -> list[float] | None:
    """What can be checked before the first run is measured; returns the shares of an ensemble, where they are given."""
    if all_checkpoints and step is not None:
        raise RecipeError(f"--step {step} is one of --all-checkpoints; give one of the two")
    if ensemble is not None:
        if all_checkpoints:
            raise RecipeError("--all-checkpoints measures runs one by one; leave --ensemble out")
        return _numbers(shares)
    if shares is not None:
        raise RecipeError("--shares are those of an ensemble; add --ensemble logits or --ensemble probabilities")
    if out is not None:
        raise RecipeError(f"--out {out} is for an ensemble's report; a run's own goes to RUN/reports")
    if twice := [run for run in runs if runs.count(run) > 1]:
        raise RecipeError(f"{twice[0]} is named twice; name it once")
    for run in runs:  # before the first is measured: what is wrong with the last one must not cost an hour
        recipe = load_recipe_of(run)
        existing(run, weights, step)
        for spec in data:
            open_labelled(spec, data_root(recipe, root), space_of(recipe))
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
