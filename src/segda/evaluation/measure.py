"""A run's networks, measured on labelled data sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segda.data.sets.datasets import DataSet
from segda.distributed import group
from segda.errors import RecipeError, RunError, WeightsError
from segda.evaluation.inference import Mean, Settings, in_boxes, labels, views
from segda.evaluation.look import Eye, ahead, resting
from segda.evaluation.metrics import Confusion, Report, read_reports
from segda.evaluation.protocol import Protocol, Weights
from segda.ground.progress import track
from segda.networks.network import Network
from segda.run import FILES, load_recipe_of, step_of
from segda.scene import Scene

STUDENT_AND_TEACHER: tuple[Weights, ...] = ("student", "teacher")


def facts(run: Path, weights: Weights, precision: torch.dtype) -> dict[str, object]:
    """What the protocol says of a run's network."""
    return {
        "weights": weights,
        "step": step_of(run, weights),
        "recipe": load_recipe_of(run).name,
        "precision": name_of(precision),
    }


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
    counts = count([Eye(network, settings)], "probabilities", dataset, device, autocast, title)
    return report_of(counts, protocol_of(dataset, settings, **protocol), dataset)


def protocol_of(dataset: DataSet, settings: Settings, **known: Any) -> Protocol:
    """The protocol of a network on a data set, with what they do not know: weights, step, recipe, precision."""
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
        **known,
    )


def report_of(counts: np.ndarray, protocol: Any, dataset: DataSet) -> Report:
    """The report of a data set's counts, with the views of its label space."""
    return Report(protocol, dataset.space.classes, counts, dataset.space.views)


def count(
    eyes: Sequence[Eye],
    mean: Mean,
    dataset: DataSet,
    device: torch.device,
    autocast: AbstractContextManager,
    title: str,
) -> np.ndarray:
    """(C + 1, C) pixels, see Confusion.counts, of a network, or of the mean of several.

    Of several processes, each counts its share of the images, also where that is none, and gets the sum. An error of
    one is raised there and ends all, when each is through with its share.
    """
    own = group.all_succeed(lambda: _count_own(eyes, mean, dataset, device, autocast, title))
    return group.all_reduce_sum(own)


def _count_own(
    eyes: Sequence[Eye],
    mean: Mean,
    dataset: DataSet,
    device: torch.device,
    autocast: AbstractContextManager,
    title: str,
) -> np.ndarray:
    """What `count` gives, of this process's images alone."""
    for eye in eyes:
        if dataset.space.classes != tuple(eye.network.class_names):
            raise RecipeError(
                f"{dataset.spec}: its labels are read in space {dataset.space.name}, the network's classes are "
                f"{', '.join(eye.network.class_names)}; choose data with these"
            )

    def ready(index: int) -> tuple[Scene, list[list[Tensor]]]:
        """A scene, and its image as each eye sees it, at each of its scales."""
        scene = dataset.read(index, label=True)
        return scene, [in_boxes(scene.image, eye.settings) for eye in eyes]

    confusion = Confusion(len(dataset.space.classes), device)
    with resting([eye.network for eye in eyes]):
        own = group.own_share(range(len(dataset)))
        for (scene, boxed), _ in zip(ahead(ready, own), track(own, title), strict=True):
            seen = [
                view
                for eye, small in zip(eyes, boxed, strict=True)
                for view in views(eye.network, scene.image, eye.settings, device, autocast, eye.share, small)
            ]
            confusion.add(scene.label, labels(seen, tuple(scene.image.shape[1:]), mean))
    return confusion.counts()
