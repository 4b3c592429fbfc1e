"""`segda evaluate`: how well a run's networks segment labelled data sets, with the protocol beside every
number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table
from rich.text import Text

from segda.data.datasets import DataSet, open_data
from segda.data.labels import LABELLINGS, Space
from segda.errors import RecipeError, RunError, WeightsError
from segda.evaluation.inference import Settings, label_of
from segda.evaluation.metrics import Confusion, Protocol, Report, Weights, read_reports, write_reports
from segda.hardware import DeviceName, PrecisionName, autocast, pick_device, pick_precision
from segda.networks.network import Network
from segda.progress import Track, quietly
from segda.run import FILES, data_root, load_network, load_recipe_of, space_of, step_of


def evaluate(
    run: Path | str,
    data: Sequence[str],
    root: Path | None = None,
    which: Sequence[Weights] = ("student", "teacher"),
    device: DeviceName = "auto",
    precision: PrecisionName = "auto",
    track: Track = quietly,
) -> list[Report]:
    """Measure a run on labelled data sets: IoU of each class, mIoU, accuracy.

    DATA is `name:split[:condition]`, for example camvid:test:dusk; several are measured one after the other.
    Student and teacher are measured if the run has both. Image size and windows are those of the run's recipe
    (evaluate.*); labels are compared at their own size. The reports go to RUN/reports/, one JSON file a data
    set.
    """
    run = Path(run)
    recipe = load_recipe_of(run)
    where = pick_device(device)
    dtype = pick_precision(precision, where)
    networks = {weights: load_network(run, weights, where) for weights in existing(run, which)}
    # All data sets are opened before the first is measured: a misspelt last one must not cost an hour.
    opened = [open_labelled(spec, data_root(recipe, root), space_of(recipe)) for spec in data]
    done = []
    for dataset in opened:
        reports = []
        for weights, network in networks.items():
            known = {
                "weights": weights,
                "step": step_of(run, weights),
                "recipe": recipe.name,
                "precision": name_of(dtype),
            }
            reports.append(
                evaluate_network(network, dataset, recipe.evaluate, where, autocast(where, dtype), known, track)
            )
        write_reports(run, reports)
        done += reports
    return done


def open_labelled(spec: str, root: Path, space: Space) -> DataSet:
    """A data set to measure on: every image has its label, and the labels tell all classes of the space
    apart.

    RecipeError when they do not: a class that is never labelled would count as absent or, where predicted, as
    wrong.
    """
    dataset = open_data(spec, root, space)
    named = {name for _, labelling in dataset.row.labels for name in LABELLINGS[labelling].values()}
    lacking = [name for name in space.classes if name not in named]
    if lacking:
        raise RecipeError(
            f"{spec}: its labels do not know the network's {', '.join(lacking)} (space {space.name}); "
            f"choose data with these classes, or train with data.space {dataset.row.space}"
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


def evaluate_network(
    network: Network,
    dataset: DataSet,
    settings: Settings,
    device: torch.device,
    autocast: AbstractContextManager,
    protocol: Mapping[str, Any],
    track: Track = quietly,
) -> Report:
    """Measures a network in memory. It is in eval mode meanwhile and afterwards as it was; no random number
    is drawn.

    protocol: what the data set and the settings do not know: weights, step, recipe, precision. autocast is
    entered anew for each forward pass.
    """
    if dataset.space.classes != tuple(network.class_names):
        raise RecipeError(
            f"{dataset.spec}: its labels are read in space {dataset.space.name}, the network's classes are "
            f"{', '.join(network.class_names)}; choose data with these"
        )
    confusion = Confusion(network.classes, device)
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        for index in track(range(len(dataset)), f"{dataset.spec} {protocol['weights']}"):
            scene = dataset.read(index, label=True)
            confusion.add(scene.label, label_of(network, scene.image, settings, device, autocast))
    finally:
        # Not network.train(): a method may keep some of its modules in eval mode.
        for module, training in modes.items():
            module.training = training
    sliding = settings.how == "slide"
    return Report(
        Protocol(
            data=dataset.spec,
            images=len(dataset),
            resize=settings.resize,
            how=settings.how,
            window=settings.window if sliding else None,
            stride=settings.stride if sliding else None,
            flip=settings.flip,
            **protocol,
        ),
        tuple(network.class_names),
        confusion.counts(),
    )


def reports_of(run: Path) -> list[Report]:
    """What was measured of a run; RunError with the way out when nothing was."""
    found = read_reports(run)
    if not found:
        data = " ".join(load_recipe_of(run).evaluate.data[:1]) or "NAME:SPLIT"
        raise RunError(f"{run} has no reports; measure it first: segda evaluate {run} --data {data}")
    return found


def tables(reports: Sequence[Report]) -> list[Table]:
    """One table a data set: a row a class, IoU and accuracy (%) of each network, the protocol below."""
    done = []
    for data in dict.fromkeys(report.protocol.data for report in reports):
        here = [report for report in reports if report.protocol.data == data]
        names = here[0].class_names
        # As Text: square brackets in a name are no markup, and ":train:" no emoji.
        protocol = Text("\n".join(report.protocol.sentence() for report in here))
        table = Table(title=Text(data), caption=protocol, title_justify="left", caption_justify="left")
        table.add_column("class")
        table.add_column("share", justify="right")
        for report in here:
            table.add_column(f"IoU {report.protocol.weights}", justify="right")
            table.add_column(f"acc. {report.protocol.weights}", justify="right")
        for index, name in enumerate(names):
            rates = [rate for report in here for rate in (report.iou[index], report.accuracy[index])]
            cells = [percent(rate) for rate in (here[0].share[index], *rates)]
            table.add_row(Text(name), *cells, end_section=index + 1 == len(names))
        means = [rate for report in here for rate in (report.miou, report.mean_accuracy)]
        table.add_row("mean", "", *map(percent, means), style="bold")
        pixels = [cell for report in here for cell in ("", percent(report.pixel_accuracy))]
        table.add_row("all pixels", "", *pixels)
        done.append(table)
    return done


def percent(rate: float) -> str:
    """0.61234 -> 61.2; a dash where there is nothing to rate."""
    return "-" if np.isnan(rate) else f"{100 * rate:.1f}"
