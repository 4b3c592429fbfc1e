"""The loop over images: read ahead by threads, shown to networks, handed to whoever asks, one after the other.

    def each(sight: Sight) -> int: ...
    for result in look([Eye(network, settings, device, autocast)], dataset, each, title="labels"): ...

All that measures, predicts, labels or shows is such an `each`; so is a criterion without labels, and with
`gradients=True, at_rest=False, split=False` a network that adapts itself from image to image.

Several processes share the images. What integers they count add up to what one process alone would count, if a network
says the same of an image in all of them. On a processor it does where they have as many threads each: the last bit of a
matrix product depends on that number (torchrun sets OMP_NUM_THREADS to 1 where it is not set).
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from segda.distributed import group
from segda.evaluation.inference import PART, Settings, Size, View, cut_into, in_boxes, views
from segda.ground.hardware import keep_memory
from segda.ground.progress import track
from segda.networks.network import Network
from segda.scene import Scene

log = logging.getLogger(__name__)

THREADS = min(8, os.cpu_count() or 1)
"""So many images are read while the network is busy, each by a thread. A GPU is quicker than several decoders."""

MODEST = 2048 * 1024
"""Pixels of an image as a network sees it, up to which a process that looks keeps the memory that it frees."""

Result = TypeVar("Result")


class Images(Protocol):
    """A data set, or anything else that can be read by number."""

    def __len__(self) -> int: ...

    def read(self, i: int, label: bool = False) -> Scene: ...


@dataclass(frozen=True)
class Eye:
    """A network, how it looks at an image, where and in which precision, and what its word counts beside others'.

    autocast is entered anew for each forward pass.
    """

    network: Network
    settings: Settings
    device: torch.device
    autocast: AbstractContextManager
    share: float = 1.0


@dataclass(frozen=True)
class Sight:
    """An image, by its number, with its label if that was asked for, and what each eye sees of it."""

    index: int
    scene: Scene
    by_eye: list[list[View]]

    @property
    def size(self) -> Size:
        """(height, width) of the image."""
        height, width = self.scene.image.shape[1:]
        return height, width

    @property
    def views(self) -> list[View]:
        """Of all eyes, as of one."""
        return [view for seen in self.by_eye for view in seen]


def look(
    eyes: Sequence[Eye],
    images: Images,
    each: Callable[[Sight], Result],
    *,
    title: str,
    indices: Sequence[int] | None = None,
    label: bool = False,
    split: bool = True,
    gradients: bool = False,
    at_rest: bool = True,
) -> Iterator[Result]:
    """What `each` makes of every image, in their order; no more than THREADS images are held ahead.

    indices: of these images alone, and in this order. label: the scenes have theirs. split: of several processes, each
    has every n-th; else it has all, and asks the others nothing. gradients: those of the views are kept. at_rest: the
    networks are in eval mode meanwhile and afterwards as they were; else they stay as they are. An image is shown when
    `each` is through with the one before.
    """

    def ready(index: int) -> tuple[Scene, list[list[Tensor]]]:
        """A scene, and its image as each eye is shown it, at each of its scales."""
        scene = images.read(index, label=label)
        return scene, [in_boxes(scene.image, eye.settings) for eye in eyes]

    every = range(len(images)) if indices is None else indices
    own = every[group.rank() :: group.world()] if split else every
    told = False
    with resting([eye.network for eye in eyes]) if at_rest else nullcontext():
        for index, (scene, boxed) in zip(track(own, title), ahead(ready, own), strict=True):
            if not told and any(map(_cut_unasked, eyes, boxed)):
                told = True
                height, width = scene.image.shape[1:]
                log.warning(
                    f"{title}: an image has {width}x{height} pixels; those that are so large are seen in windows of "
                    f"{PART[1]}x{PART[0]}, to save memory (evaluate.resize in a recipe makes them smaller)"
                )
            seen = [
                views(eye.network, scene.image, eye.settings, eye.device, eye.autocast, eye.share, small, gradients)
                for eye, small in zip(eyes, boxed, strict=True)
            ]
            yield each(Sight(index, scene, seen))


def _cut_unasked(eye: Eye, boxed: Sequence[Tensor]) -> bool:
    return eye.settings.how == "whole" and any(
        cut_into((small.shape[1], small.shape[2]), eye.settings) for small in boxed
    )


def spread(count: int, most: int) -> list[int]:
    """Up to `most` of the numbers below `count`, evenly spread, with the first and the last."""
    return sorted({round(float(at)) for at in np.linspace(0, count - 1, min(count, most))})


def agreed(results: Iterator[Result]) -> list[Result]:
    """All of this process's results, where all processes came to the end of theirs; an error of one ends all."""
    return group.all_succeed(lambda: list(results))


def keep_memory_to_look(every: Iterable[Settings]) -> bool:
    """Keeps freed memory, see `keep_memory`, where no image is seen larger than MODEST; whether it does.

    Maps of a large image leave holes of many sizes: one seen whole at 4096 x 2048 by DAFormer's network took 12.8 GiB
    in place of 5.5, at 2048 x 1024 2.4 in place of 1.7. An image as it is may have any size.
    """
    modest = all(
        settings.resize is not None and settings.resize[0] * settings.resize[1] * max(settings.scales) ** 2 <= MODEST
        for settings in every
    )
    return modest and keep_memory()


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
