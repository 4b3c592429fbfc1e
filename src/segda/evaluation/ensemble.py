"""The mean of several runs' networks, measured as one.

An ensemble is no run: its report goes to a file of its own, and says who its members are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import get_args

import torch

from segda.data.sets.dataset import DataSet
from segda.distributed import group
from segda.errors import RecipeError, RunError, nearest
from segda.evaluation.look import Eye
from segda.evaluation.measure import STUDENT_AND_TEACHER, count, existing, facts, has_network, protocol_of, report_of
from segda.evaluation.metrics import Report, read_list, write_list
from segda.evaluation.protocol import EnsembleProtocol, Member
from segda.ground.choices import DeviceName, Mean, PrecisionName, Weights
from segda.ground.hardware import autocast, pick_device, pick_precision
from segda.networks.network import Network
from segda.recipes.recipe import Recipe
from segda.run import data_root, load_network, load_recipe_of, refuse_twice
from segda.run_data import measured_on, space_in


@group.joined()
def evaluate_ensemble(
    members: Sequence[Path | str],
    data: Sequence[str],
    mean: Mean,
    shares: Sequence[float] | None = None,
    root: Path | None = None,
    weights: Sequence[Weights] = STUDENT_AND_TEACHER,
    out: Path | None = None,
    device: DeviceName = "auto",
    precision: PrecisionName = "auto",
    step: int | None = None,
) -> list[Report]:
    """Measure several runs as one: the mean of their networks' logits or probabilities at the images' size.

    shares: of the runs in the mean, in proportion; equal ones if None. Each network sees images as its own run's
    recipe says. Students are averaged with students and, where all runs have one, teachers with teachers. An ensemble
    is no run: its reports are written to the file `out`, if that is given, and to no run folder. step: of all the runs.
    """
    runs = [Path(member) for member in members]
    machine = (root, weights, out, device, precision, step)
    shares, recipes, where, dtype, shared, opened = group.all_succeed(
        lambda: _ensemble(runs, data, mean, shares, *machine)
    )

    def loaded(each: Weights) -> list[Network]:
        return [load_network(run, each, where, step) for run in runs]

    done = {}
    for each in shared:
        networks = group.all_succeed(partial(loaded, each))
        eyes = [
            Eye(network, recipe.evaluate, where, autocast(where, dtype), share)
            for network, recipe, share in zip(networks, recipes, shares, strict=True)
        ]
        for dataset in opened:
            title = f"{dataset.spec} {each}s"
            counts = count(eyes, mean, dataset, title)
            protocols = [
                protocol_of(dataset, recipe.evaluate, **facts(run, each, dtype, step))
                for run, recipe in zip(runs, recipes, strict=True)
            ]
            named = zip(map(str, runs), shares, protocols, strict=True)
            protocol = EnsembleProtocol(mean, tuple(Member(*one) for one in named))
            done[dataset.spec, each] = report_of(counts, protocol, dataset)
    reports = [done[dataset.spec, each] for dataset in opened for each in shared]
    if out is not None:
        group.on_rank_zero(write_list, out, reports)
    return reports


def _ensemble(
    runs: Sequence[Path],
    data: Sequence[str],
    mean: Mean,
    shares: Sequence[float] | None,
    root: Path | None,
    weights: Sequence[Weights],
    out: Path | None,
    device: DeviceName,
    precision: PrecisionName,
    step: int | None,
) -> tuple[list[float], list[Recipe], torch.device, torch.dtype, Sequence[Weights], list[DataSet]]:
    """All that is known before the first image is decoded: the shares in the mean, the runs' recipes, where and in
    which type to compute, whose weights, and the data sets. Checks what `evaluate_ensemble` is given.
    """
    if mean not in get_args(Mean):
        raise RecipeError(f"unknown ensemble {mean!r}{nearest(mean, get_args(Mean))}")
    if len(runs) < 2:
        raise RecipeError(f"an ensemble is of several runs, this is one ({runs[0]}); name another one, or leave it out")
    refuse_twice(runs)
    shares = proportions(shares, len(runs))
    _check_out(out)
    recipes = [load_recipe_of(run) for run in runs]
    spaces = [space_in(run) for run in runs]
    for run, space in zip(runs, spaces, strict=True):
        if space.classes != spaces[0].classes:
            raise RecipeError(
                f"{run} has the classes of {space.name}, {runs[0]} those of {spaces[0].name}; "
                "an ensemble needs networks of the same classes"
            )
    for run, recipe in zip(runs, recipes, strict=True):
        if mean == "logits" and recipe.evaluate.softmax == "before":
            raise RecipeError(
                f"{run}: its evaluate.softmax is before, so that no logits are upsampled; use a mean of probabilities"
            )
        if recipe.evaluate.classes != recipes[0].evaluate.classes:
            raise RecipeError(f"{run} and {runs[0]} differ in evaluate.classes, so that no mean is theirs; choose one")
    where = group.own_device(pick_device(device))
    shared = [each for each in weights if all(has_network(run, each, step) for run in runs)]
    for run in runs:
        existing(run, shared or weights, step)
    root = data_root(recipes[0], root)
    opened = [measured_on(runs[0], spec, root) for spec in data]
    return shares, recipes, where, pick_precision(precision, where), shared or weights, opened


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
    if out.exists():
        try:
            read_list(out)
        except RunError as error:
            raise RunError(f"{out} is there and holds no reports of segda; name another file") from error
