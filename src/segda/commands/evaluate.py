"""`segda evaluate`: how well a run's networks segment labelled data sets, with the protocol beside every
number; the mean of several runs' networks; every snapshot of a run.

Several processes (torchrun) share the images; the first alone writes. Each has the same reports in the end.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from rich.table import Table

from segda.data.labels.spaces import Space
from segda.data.sets.datasets import DataSet, open_data
from segda.distributed import group
from segda.errors import RecipeError, RunError, WeightsError, nearest
from segda.evaluation.inference import Mean
from segda.evaluation.look import Eye, count, evaluate_network, protocol_of, report_of
from segda.evaluation.metrics import Report, read_reports, write_list, write_reports
from segda.evaluation.protocol import EnsembleProtocol, Member, Weights
from segda.evaluation.snapshots import Snapshot, Snapshots, read_snapshots, write_snapshots
from segda.ground.hardware import DeviceName, PrecisionName, autocast, pick_device, pick_precision
from segda.recipes.recipe import Recipe
from segda.reporting.tables import names_of, snapshots_table, tables
from segda.run import FILES, data_root, load_network, load_recipe_of, snapshots, space_of, step_of

STUDENT_AND_TEACHER: tuple[Weights, ...] = ("student", "teacher")


@group.joined()
def evaluate(
    run: Path | str,
    data: Sequence[str],
    root: Path | None = None,
    which: Sequence[Weights] = STUDENT_AND_TEACHER,
    device: DeviceName = "auto",
    precision: PrecisionName = "auto",
) -> list[Report]:
    """Measure a run on labelled data sets: IoU of each class, mIoU, accuracy.

    DATA is `name:split[:condition]`, for example camvid:test:dusk; several are measured one after the other.
    Student and teacher are measured if the run has both. Image size and windows are those of the run's recipe
    (evaluate.*); labels are compared at their own size. The reports go to RUN/reports/, one JSON file a data
    set.
    """
    run = Path(run)

    def ready() -> tuple[Any, ...]:
        recipe = load_recipe_of(run)
        where = group.own_device(pick_device(device))
        networks = {weights: load_network(run, weights, where) for weights in existing(run, which)}
        # All data sets are opened before the first is measured: a misspelt last one must not cost an hour.
        opened = [open_labelled(spec, data_root(recipe, root), space_of(recipe)) for spec in data]
        return recipe, where, pick_precision(precision, where), networks, opened

    recipe, where, dtype, networks, opened = group.all_succeed(ready)
    done = []
    for dataset in opened:
        reports = []
        for weights, network in networks.items():
            known = facts(run, weights, dtype)
            reports.append(evaluate_network(network, dataset, recipe.evaluate, where, autocast(where, dtype), known))
        group.on_rank_zero(write_reports, run, reports)
        done += reports
    return done


@group.joined()
def evaluate_snapshots(
    run: Path | str,
    data: Sequence[str],
    root: Path | None = None,
    device: DeviceName = "auto",
    precision: PrecisionName = "auto",
) -> list[Snapshots]:
    """Measure every snapshot that a run kept of its student (recipe key keep_every), and its last checkpoint.

    Goes to RUN/reports/NAME-SPLIT-snapshots.json after each snapshot. What was measured before in the same way, of the
    same weights, is not measured again. The last checkpoint's report is the run's own and written as `evaluate` does;
    the best of all is an oracle's choice, see Snapshots.
    """
    run = Path(run)

    def ready() -> tuple[Any, ...]:
        recipe = load_recipe_of(run)
        kept = _snapshots_of(run)
        where = group.own_device(pick_device(device))
        existing(run, ["student"])
        opened = [open_labelled(spec, data_root(recipe, root), space_of(recipe)) for spec in data]
        before = {each.data: each.by_step for each in read_snapshots(run)}
        last = step_of(run)
        # The last checkpoint comes first and stands for a snapshot of its step, which holds the same weights.
        files = {last: run / FILES["student"]} | {step: path for step, path in kept.items() if step != last}
        return recipe, where, pick_precision(precision, where), opened, before, files

    recipe, where, dtype, opened, before, files = group.all_succeed(ready)
    last = next(iter(files))
    marks = {step: _mark(path) for step, path in files.items()}
    done = []
    for dataset in opened:
        known = {step: facts(run, "student", dtype) | {"step": step} for step in files}
        wanted = {step: (marks[step], protocol_of(dataset, recipe.evaluate, **known[step])) for step in files}
        measured = {
            step: snapshot
            for step, snapshot in before.get(dataset.spec, {}).items()
            if (snapshot.mark, snapshot.report.protocol) == wanted.get(step)
        }
        for step in files:
            if step in measured:
                continue
            network = group.all_succeed(lambda at=step: load_network(run, "student", where, None if at == last else at))
            report = evaluate_network(network, dataset, recipe.evaluate, where, autocast(where, dtype), known[step])
            measured[step] = Snapshot(marks[step], report)
            # Each time: an interrupted call goes on where it stopped.
            group.on_rank_zero(write_snapshots, run, Snapshots(dataset.spec, measured, last))
        group.on_rank_zero(_write_last, run, measured[last].report)
        done.append(Snapshots(dataset.spec, measured, last))
        # Also where nothing was missing: a snapshot may have gone.
        group.on_rank_zero(write_snapshots, run, done[-1])
    return done


def _write_last(run: Path, student: Report) -> None:
    """The report of the last checkpoint's student becomes the run's own, beside its teacher's on the same data."""
    data = student.protocol.data
    reports = [each for each in read_reports(run) if (each.protocol.data, each.protocol.weights) == (data, "teacher")]
    write_reports(run, [student, *reports])


@group.joined()
def evaluate_ensemble(
    members: Sequence[Path | str],
    data: Sequence[str],
    mean: Mean,
    shares: Sequence[float] | None = None,
    root: Path | None = None,
    which: Sequence[Weights] = STUDENT_AND_TEACHER,
    out: Path | None = None,
    device: DeviceName = "auto",
    precision: PrecisionName = "auto",
) -> list[Report]:
    """Measure several runs as one: the mean of their networks' logits or probabilities at the images' size.

    shares: of the runs in the mean, in proportion; equal ones if None. Each network sees images as its own run's
    recipe says. Students are averaged with students and, where all runs have one, teachers with teachers. An ensemble
    is no run: its reports are written to the file `out`, if that is given, and to no run folder.
    """
    runs = [Path(member) for member in members]
    machine = (root, which, out, device, precision)
    shares, recipes, where, dtype, shared, opened = group.all_succeed(
        lambda: _ensemble(runs, data, mean, shares, *machine)
    )
    done = {}
    for weights in shared:
        networks = group.all_succeed(lambda which=weights: [load_network(run, which, where) for run in runs])
        eyes = [
            Eye(network, recipe.evaluate, share)
            for network, recipe, share in zip(networks, recipes, shares, strict=True)
        ]
        for dataset in opened:
            title = f"{dataset.spec} {weights}s"
            counts = count(eyes, mean, dataset, where, autocast(where, dtype), title)
            protocols = [
                protocol_of(dataset, recipe.evaluate, **facts(run, weights, dtype))
                for run, recipe in zip(runs, recipes, strict=True)
            ]
            named = zip(map(str, runs), shares, protocols, strict=True)
            protocol = EnsembleProtocol(mean, tuple(Member(*each) for each in named))
            done[dataset.spec, weights] = report_of(counts, protocol, dataset)
    reports = [done[dataset.spec, weights] for dataset in opened for weights in shared]
    if out is not None:
        group.on_rank_zero(write_list, out, reports)
    return reports


def _ensemble(
    runs: Sequence[Path],
    data: Sequence[str],
    mean: Mean,
    shares: Sequence[float] | None,
    root: Path | None,
    which: Sequence[Weights],
    out: Path | None,
    device: DeviceName,
    precision: PrecisionName,
) -> tuple[list[float], list[Recipe], torch.device, torch.dtype, Sequence[Weights], list[DataSet]]:
    """All that is known before the first image is decoded: the shares in the mean, the runs' recipes, where and in
    which type to compute, whose weights, and the data sets. Checks what `evaluate_ensemble` is given.
    """
    if mean not in get_args(Mean):
        raise RecipeError(f"unknown ensemble {mean!r}{nearest(mean, get_args(Mean))}")
    if len(runs) < 2:
        raise RecipeError(f"an ensemble is of several runs, this is one ({runs[0]}); name another one, or leave it out")
    shares = proportions(shares, len(runs))
    _check_out(out)
    recipes = [load_recipe_of(run) for run in runs]
    spaces = [space_of(recipe) for recipe in recipes]
    for run, space in zip(runs, spaces, strict=True):
        if space.classes != spaces[0].classes:
            raise RecipeError(
                f"{run} has the classes of {space.name}, {runs[0]} those of {spaces[0].name}; "
                "an ensemble needs networks of the same classes"
            )
    where = group.own_device(pick_device(device))
    shared = [weights for weights in which if all((run / FILES[weights]).is_file() for run in runs)]
    for run in runs:
        existing(run, shared or which)
    root = data_root(recipes[0], root)
    opened = [open_labelled(spec, root, spaces[0]) for spec in data]
    return shares, recipes, where, pick_precision(precision, where), shared or which, opened


@group.joined()
def run_command(
    runs: Sequence[Path],
    data: Sequence[str],
    root: Path | None,
    which: Sequence[Weights],
    ensemble: Mean | None,
    shares: str | None,
    out: Path | None,
    all_checkpoints: bool,
    device: DeviceName,
    precision: PrecisionName,
) -> tuple[list[Table], list[dict[str, Any]]]:
    """What `segda evaluate RUN...` shows, as tables and as plain values; RecipeError if options exclude each other.

    Several runs are measured one after the other, each into its own folder, or with `ensemble` as one.
    """
    machine = (device, precision)
    given = group.all_succeed(lambda: _check(runs, data, root, which, ensemble, shares, out, all_checkpoints))
    if ensemble is not None:
        done = evaluate_ensemble(runs, data, ensemble, given, root, which, out, *machine)
        return tables(done, f"ensemble of {len(runs)}"), [report.to_json() for report in done]
    names = names_of(runs)
    shown: list[Table] = []
    plain: list[dict[str, Any]] = []
    for run, name in zip(runs, names, strict=True):
        if all_checkpoints:
            found = evaluate_snapshots(run, data, root, *machine)
            shown += [snapshots_table(each, name) for each in found]
        else:
            found = evaluate(run, data, root, which, *machine)
            shown += tables(found, name if len(runs) > 1 else "")
        plain += [{"run": str(run), **each.to_json()} for each in found]
    return shown, plain


def _check(
    runs: Sequence[Path],
    data: Sequence[str],
    root: Path | None,
    which: Sequence[Weights],
    ensemble: Mean | None,
    shares: str | None,
    out: Path | None,
    all_checkpoints: bool,
) -> list[float] | None:
    """What can be checked before the first run is measured; returns the shares of an ensemble, where they are given."""
    if ensemble is not None:
        if all_checkpoints:
            raise RecipeError("--all-checkpoints measures runs one by one; leave --ensemble out")
        return _numbers(shares)
    if shares is not None:
        raise RecipeError("--shares are those of an ensemble; add --ensemble logits or --ensemble probabilities")
    if out is not None:
        raise RecipeError(f"--out {out} is for an ensemble's report; a run's own goes to RUN/reports")
    if all_checkpoints and tuple(which) == ("teacher",):
        raise RecipeError("--all-checkpoints: snapshots are of the student; leave --weights teacher out")
    if twice := [run for run in runs if runs.count(run) > 1]:
        raise RecipeError(f"{twice[0]} is named twice; name it once")
    for run in runs:  # before the first is measured: what is wrong with the last one must not cost an hour
        recipe = load_recipe_of(run)
        existing(run, which)
        for spec in data:
            open_labelled(spec, data_root(recipe, root), space_of(recipe))
        if all_checkpoints:
            _snapshots_of(run)
    return None


def _numbers(shares: str | None) -> list[float] | None:
    """Of "0.5,0.5": 0.5, 0.5."""
    try:
        return None if shares is None else [float(part) for part in shares.split(",")]
    except ValueError:
        raise RecipeError(
            f"--shares {shares}: give one number a run, separated by commas, for example 0.5,0.5"
        ) from None


def proportions(shares: Sequence[float] | None, count: int) -> list[float]:
    """Shares that sum to one, in proportion to those given; equal ones if none are. RecipeError if they cannot be."""
    given = [1.0] * count if shares is None else list(shares)
    if len(given) != count:
        raise RecipeError(
            f"{len(given)} shares ({', '.join(f'{share:g}' for share in given)}) for {count} runs; give one a run"
        )
    for share in given:
        if not (math.isfinite(share) and share > 0):
            raise RecipeError(f"share {share:g}: give a number above 0, or leave the run out")
    return [share / sum(given) for share in given]


def _check_out(out: Path | None) -> None:
    """RunError unless an ensemble's reports can stand there."""
    if out is None:
        return
    if out.suffix != ".json" or out.is_dir():
        raise RunError(f"{out}: the reports are written as one file; give a name that ends in .json")
    if out.resolve().parent.name == "reports" and (out.resolve().parent.parent / "recipe.yaml").exists():
        raise RunError(f"{out} would be taken for a report of that run; write the ensemble's elsewhere")


def _snapshots_of(run: Path) -> dict[int, Path]:
    kept = snapshots(run)
    if not kept:
        raise RunError(f"{run} has no snapshots (snapshots/network-*.safetensors); train with keep_every: 2000")
    return kept


def _mark(path: Path) -> str:
    with path.open("rb") as weights:
        return hashlib.file_digest(weights, "sha256").hexdigest()


def facts(run: Path, weights: Weights, precision: torch.dtype) -> dict[str, object]:
    """What the protocol says of a run's network."""
    return {
        "weights": weights,
        "step": step_of(run, weights),
        "recipe": load_recipe_of(run).name,
        "precision": name_of(precision),
    }


def open_labelled(spec: str, root: Path, space: Space) -> DataSet:
    """A data set to measure on: every image has its label, and the labels tell all classes of the space
    apart.

    RecipeError when they do not: a class that is never labelled would count as absent or, where predicted, as
    wrong.
    """
    dataset = open_data(spec, root, space)
    if dataset.shares is not None:
        raise RecipeError(f"{spec}: weights say how often images are drawn in training; leave them out here")
    for part in dataset.parts:
        named = part.row.classes_in(space)
        lacking = [name for name in space.classes if name not in named]
        if lacking:
            raise RecipeError(
                f"{part.spec}: its labels do not know the network's {', '.join(lacking)} (space {space.name}); "
                f"choose data with these classes, or train with data.space {part.row.space}"
            )
    dataset.check_pairs()
    return dataset


def existing(run: Path, which: Sequence[Weights]) -> list[Weights]:
    """Those of the wanted networks that the run has; WeightsError when that is none."""
    found = [weights for weights in which if (run / FILES[weights]).is_file()]
    if not found:
        raise WeightsError(
            f"{run} has no trained {' or '.join(which)} ({FILES[which[0]]}); finish it: segda train --resume"
        )
    return found


def name_of(precision: torch.dtype) -> str:
    """torch.bfloat16 -> bfloat16."""
    return str(precision).removeprefix("torch.")


def reports_of(run: Path) -> list[Report]:
    """What was measured of a run; RunError with the way out when nothing was."""
    found = read_reports(run)
    if not found:
        data = " ".join(load_recipe_of(run).evaluate.data[:1]) or "NAME:SPLIT"
        raise RunError(f"{run} has no reports; measure it first: segda evaluate {run} --data {data}")
    return found
