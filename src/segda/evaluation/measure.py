"""A run's networks, measured on labelled data sets."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segda.data.sets.dataset import DataSet
from segda.data.sets.labelled import measured_classes
from segda.distributed import group
from segda.errors import DataError, RecipeError, RunError, WeightsError
from segda.evaluation.certainty import labels, labels_and_confidence
from segda.evaluation.inference import Settings
from segda.evaluation.look import Eye, Sight, agreed, look
from segda.evaluation.metrics import Confusion, Recognised, Report, read_reports, uiou_thresholds
from segda.evaluation.protocol import Protocol, Statistics
from segda.ground.choices import Mean, Weights
from segda.networks.network import Network
from segda.run import load_recipe_of, network_path, product_path, snapshots, step_of

log = logging.getLogger(__name__)

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
    eyes = [Eye(network, settings, device, autocast)]
    recognised = recognised_on(dataset, device)
    counts = count(eyes, "probabilities", dataset, title, recognised)
    if recognised is None:
        return report_of(counts, told, dataset)
    kinds = group.all_reduce_sum(recognised.counts())
    known = dict(zip(recognised.thresholds, kinds, strict=True))
    return replace(report_of(counts, told, dataset), recognised=known)


def recognised_on(dataset: DataSet, device: torch.device) -> Recognised | None:
    """To count UIoU with, where all images come with a mask of what nobody could tell."""
    masks = sum(dataset.masked(i) for i in range(len(dataset)))
    if 0 < masks < len(dataset):
        log.warning(f"{dataset.spec}: {masks} of {len(dataset)} images have a mask of what cannot be told: no UIoU")
    classes = len(dataset.space.classes)
    return Recognised(classes, uiou_thresholds(classes), device) if masks == len(dataset) else None


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


def count(
    eyes: Sequence[Eye], mean: Mean, dataset: DataSet, title: str, recognised: Recognised | None = None
) -> np.ndarray:
    """(C + 1, C) pixels, see Confusion.counts, of a network, or of the mean of several.

    recognised: counts this process's share as well.

    Of several processes, each counts its share of the images, also where that is none, and gets the sum. An error of
    one is raised there and ends all, when each is through with its share.
    """
    group.all_succeed(lambda: _check_classes(eyes, dataset))
    confusion = Confusion(len(dataset.space.classes), eyes[0].device)

    def each(sight: Sight) -> None:
        assert sight.scene.label is not None
        predicted = labels(sight.views, sight.size, mean)
        confusion.add(sight.scene.label, predicted)
        if recognised is not None:
            _, confidence = labels_and_confidence(sight.views, sight.size)
            recognised.add(sight.scene.label, _mask(dataset, sight), predicted, confidence)

    agreed(look(eyes, dataset, each, title=title, label=True))
    return group.all_reduce_sum(confusion.counts())


def _mask(dataset: DataSet, sight: Sight) -> Tensor:
    """Where in an image nobody could tell the class; DataError for a mask of another size than the image's."""
    mask = torch.from_numpy(dataset.invalid(sight.index))
    if tuple(mask.shape) != sight.size:
        (tall, wide), (height, width) = mask.shape, sight.size
        raise DataError(
            f"{dataset.place(sight.index)} is {width}x{height}, its mask of what cannot be told {wide}x{tall}; restore "
            "the data set's own masks"
        )
    return mask


def _check_classes(eyes: Sequence[Eye], dataset: DataSet) -> None:
    """RecipeError unless the labels are read as the classes of all networks."""
    for eye in eyes:
        if dataset.space.classes != tuple(eye.network.class_names):
            raise RecipeError(
                f"{dataset.spec}: its labels are read in space {dataset.space.name}, the network's classes are "
                f"{', '.join(eye.network.class_names)}; choose data with these"
            )
