"""Measuring: every image of a data set through one network or several, counted against its label.

Several processes share the images and add up their counts, which are integers: so each of them gets what one process
alone would get, if a network says the same of an image in all of them. On a processor it does where they have as many
threads each: the last bit of a matrix product depends on that number (torchrun sets OMP_NUM_THREADS to 1 where it is
not set).
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from segda.data.sets.datasets import DataSet
from segda.distributed import group
from segda.errors import RecipeError
from segda.evaluation.inference import Mean, Settings, in_boxes, labels, views
from segda.evaluation.metrics import Confusion, Report
from segda.evaluation.protocol import Protocol
from segda.ground.progress import track
from segda.networks.network import Network
from segda.scene import Scene

THREADS = min(8, os.cpu_count() or 1)
"""So many images are read while the network is busy, each by a thread. A GPU is quicker than several decoders."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class Eye:
    """A network, how it looks at an image, and what its word counts."""

    network: Network
    settings: Settings
    share: float = 1.0


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


@contextmanager
def resting(networks: Sequence[nn.Module]) -> Iterator[None]:
    """Networks in eval mode; afterwards each of their modules is in the mode that it was in."""
    modes = {module: module.training for network in networks for module in network.modules()}
    for network in networks:
        network.eval()
    try:
        yield
    finally:
        # Not network.train(): a method may keep some of its modules in eval mode.
        for module, training in modes.items():
            module.training = training


def ahead(work: Callable[[int], Result], indices: Sequence[int]) -> Iterator[Result]:
    """The results of `work` in the order of the indices, made by other threads while the caller is busy."""
    pool, waiting = ThreadPoolExecutor(THREADS, "ahead"), deque[Future[Result]]()
    try:
        for index in indices:
            waiting.append(pool.submit(work, index))
            if len(waiting) > THREADS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
