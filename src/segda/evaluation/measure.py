"""A run's networks, measured on labelled data sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segda.data.sets.dataset import DataSet
from segda.data.sets.labelled import measured_classes
from segda.distributed import group
from segda.errors import RecipeError, RunError, WeightsError
from segda.evaluation.certainty import labels
from segda.evaluation.inference import Settings
from segda.evaluation.look import Eye, Sight, agreed, look
from segda.evaluation.metrics import Confusion, Report, read_reports
from segda.evaluation.protocol import Protocol, Statistics
from segda.ground.choices import Mean, Weights
from segda.networks.network import Network
from segda.run import load_recipe_of, network_path, product_path, snapshots, step_of

STUDENT_AND_TEACHER: tuple[Weights, ...] = ("student", "teacher")


def facts(
    run: Path, weights: Weights, precision: torch.dtype, step: int | None = None, statistics: Statistics | None = None
) -> dict[str, object]:
    """What the protocol says of a run's network: the last, or the one after `step`; statistics: in place of its own."""
    return {
        "weights": weights,
        "step": step_of(run, weights) if step is None else step,
        "recipe": load_recipe_of(run).name,
        "precision": name_of(precision),
        "statistics": statistics,
    }


def has_network(run: Path, weights: Weights, step: int | None = None) -> bool:
    """Whether a run has such a network: the last, or the one after `step`."""
    there = product_path(run, weights).is_file()
    return there and (step is None or step in snapshots(run, weights) or step == step_of(run, weights))


def existing(run: Path, weights: Sequence[Weights], step: int | None = None) -> list[Weights]:
    """Those of the wanted networks that the run has, the last or of `step`; WeightsError when that is none."""
    last = [each for each in weights if has_network(run, each)]
    if not last:
        raise WeightsError(
            f"{run} has no trained {' or '.join(weights)} ({product_path(run, weights[0]).name}); finish it: "
            "segda train --resume"
        )
    if step is None:
        return last
    found = [each for each in last if has_network(run, each, step)]
    if not found:
        network_path(run, last[0], step)  # says which steps there are
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


def outdated(run: Path, reports: Sequence[Report]) -> list[str]:
    """What was measured before the run was trained on, in lines with the way to measure it anew."""
    found = []
    for report in reports:
        measured, now = report.protocol, None
        if not isinstance(measured, Protocol) or measured.step is None:
            continue
        with suppress(WeightsError):  # whoever has the reports alone has numbers of their steps
            now = step_of(run, measured.weights)
        if now is not None and measured.step < now:
            more = "" if measured.statistics is None else f" --statistics {measured.statistics.data}"
            found.append(
                f"{run}: on {measured.data} its {measured.whose} was measured after step {measured.step}, and has been "
                f"trained to step {now} since: segda evaluate {run} --data {measured.data}{more}"
            )
    return found


def evaluate_network(
    network: Network,
    dataset: DataSet,
    settings: Settings,
    device: torch.device,
    autocast: AbstractContextManager,
    protocol: Mapping[str, Any],
) -> Report:
    """Measures a network in memory. It is in eval mode meanwhile and afterwards as it was; no random number
    is drawn. Of several processes, each calls this and gets the same report.

    protocol: what the data set and the settings do not know: weights, step, recipe, precision. autocast is
    entered anew for each forward pass.
    """
    step = "" if protocol["step"] is None else f" after step {protocol['step']}"
    title = f"{dataset.spec} {protocol['weights']}{step}"
    told = protocol_of(dataset, settings, **protocol)
    counts = count([Eye(network, settings, device, autocast)], "probabilities", dataset, title)
    return report_of(counts, told, dataset)


def protocol_of(dataset: DataSet, settings: Settings, **known: Any) -> Protocol:
    """The protocol of a network on a data set, with what they do not know: weights, step, recipe, precision."""
    over = measured_classes(dataset, settings.classes)
    sliding = settings.how == "slide"
    return Protocol(
        data=dataset.spec,
        images=len(dataset),
        resize=settings.resize,
        shape=settings.shape,
        kernel=settings.kernel,
        how=settings.how,
        window=settings.window if sliding else None,
        stride=settings.stride if sliding else None,
        scales=settings.scales,
        flip=settings.flip,
        softmax=settings.softmax,
        over=None if over == dataset.space.classes else over,
        **known,
    )


def report_of(counts: np.ndarray, protocol: Any, dataset: DataSet) -> Report:
    """The report of a data set's counts, with the views of its label space whose classes are all measured."""
    over = set(dataset.space.classes if protocol.over is None else protocol.over)
    views = {
        title: view
        for title, view in dataset.space.views.items()
        if {name for one in view for name in ([one] if isinstance(one, str) else one)} <= over
    }
    return Report(protocol, dataset.space.classes, counts, views)


def count(eyes: Sequence[Eye], mean: Mean, dataset: DataSet, title: str) -> np.ndarray:
    """(C + 1, C) pixels, see Confusion.counts, of a network, or of the mean of several.

    Of several processes, each counts its share of the images, also where that is none, and gets the sum. An error of
    one is raised there and ends all, when each is through with its share.
    """
    group.all_succeed(lambda: _check_classes(eyes, dataset))
    confusion = Confusion(len(dataset.space.classes), eyes[0].device)

    def each(sight: Sight) -> None:
        assert sight.scene.label is not None
        confusion.add(sight.scene.label, labels(sight.views, sight.size, mean))

    agreed(look(eyes, dataset, each, title=title, label=True))
    return group.all_reduce_sum(confusion.counts())


def _check_classes(eyes: Sequence[Eye], dataset: DataSet) -> None:
    """RecipeError unless the labels are read as the classes of all networks."""
    for eye in eyes:
        if dataset.space.classes != tuple(eye.network.class_names):
            raise RecipeError(
                f"{dataset.spec}: its labels are read in space {dataset.space.name}, the network's classes are "
                f"{', '.join(eye.network.class_names)}; choose data with these"
            )
