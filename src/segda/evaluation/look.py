"""Measuring: every image of a data set through one network or several, counted against its label.

Several processes share the images and add up their counts, which are integers: so each of them gets what one process
alone would get, if a network says the same of an image in all of them. On a processor it does where they have as many
threads each: the last bit of a matrix product depends on that number (torchrun sets OMP_NUM_THREADS to 1 where it is
not set).
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from torch import nn

from segda.evaluation.inference import Settings
from segda.networks.network import Network

THREADS = min(8, os.cpu_count() or 1)
"""So many images are read while the network is busy, each by a thread. A GPU is quicker than several decoders."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class Eye:
    """A network, how it looks at an image, and what its word counts."""

    network: Network
    settings: Settings
    share: float = 1.0


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
