"""What the benchmarks of whole steps share: a training without a download, its steps by the clock, their arithmetic."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count, sdpa_backward_flop_count, sdpa_flop_count

from segda.distributed.shares import Share
from segda.ground.hardware import peak_memory
from segda.recipes.build import starts_of
from segda.recipes.recipe import Recipe
from segda.training import assembly
from segda.training.assembly import Training
from segda.training.max_batch import Trial


@dataclass(frozen=True)
class Steps:
    """What some steps took, after some that warmed caches up."""

    seconds: list[float]
    """Of each step, the device's work included, waiting for data left out."""
    waiting: float
    """The part of the whole time in which it waited for data."""
    system: float
    """The kernel's part of the processor time."""
    memory: int
    """Bytes at most: of the device, or of the whole process."""


def scratch(recipe: Recipe) -> Recipe:
    """The recipe from random weights: no file is needed."""
    starts = starts_of(recipe.network, "network") | starts_of(recipe.method, "method")
    return recipe.override(*(f"{key}=scratch" for key in starts), "evaluate.data=[]")


def noise(recipe: Recipe) -> tuple[Training, Iterator[Any]]:
    """A training whose batches are random colours and classes. Self-training has begun. Nothing is read, so no core is
    left to processes that read.
    """
    trial, count = Trial(recipe.override("data.workers=0")), recipe.accumulate
    trial.training.t = recipe.method.get("begin", 0)
    batch = trial.noise(recipe.data.batch)
    shares = [Share(first_scene=number * recipe.data.batch, count=count) for number in range(count)]
    return trial.training, repeat(tuple(batch.replace(share=share) for share in shares))


def read(recipe: Recipe, root: Path, steps: int) -> tuple[Training, Iterator[Any]]:
    """A training whose batches are read from files, by as many processes as the recipe says."""
    training = assembly.assemble(recipe, root, None)
    return training, training.batches(steps, recipe.data.workers)


def settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(training: Training, batches: Iterator[Any], warm: int, steps: int, most: float = float("inf")) -> Steps:
    """So many steps, or those that begin within `most` seconds, at least one."""
    for _ in range(warm):
        training.step(next(batches))
    settle(training.device)
    if training.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(training.device)
    before, begun = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    seconds: list[float] = []
    waited = 0.0
    while len(seconds) < steps and (not seconds or time.perf_counter() - begun < most):
        begin = time.perf_counter()
        drawn = next(batches)
        middle = time.perf_counter()
        training.step(drawn)
        settle(training.device)
        seconds.append(time.perf_counter() - middle)
        waited += middle - begin
    whole, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF)
    user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    return Steps(seconds, waited / whole, system / max(user + system, 1e-9), peak_memory(training.device))


def attention(query, key, value, *_, **__) -> int:
    return sdpa_flop_count(query, key, value)


def attention_backward(gradient, query, key, value, *_, **__) -> int:
    return sdpa_backward_flop_count(gradient, query, key, value)


def convolution_backward(gradient, image, weight, bias, stride, padding, dilation, transposed, *rest, **_) -> int:
    """As much as forwards for each of the two gradients that is asked for. torch's own count takes the weight's
    gradient of a grouped convolution for that of one without groups: of 1,024 groups, a thousand times too much.
    """
    *_, mask = rest
    return sum(mask[:2]) * conv_flop_count(image, weight, gradient, transposed=transposed)


COUNTED_HERE = {
    torch.ops.aten.convolution_backward: convolution_backward,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward,
}
"""What torch's counter passes over or counts wrongly."""


def flops_of(action: Callable[[], object]) -> dict[str, int]:
    """Operations of the convolutions, matrix products and attentions that it calls, by torch's names ("aten.mm"),
    backward passes too: two for each product that is added.
    """
    with FlopCounterMode(display=False, custom_mapping=COUNTED_HERE) as counter:
        action()
    return {str(name): count for name, count in counter.get_flop_counts()["Global"].items()}


def flops(action: Callable[[], object]) -> int:
    """All of them."""
    return sum(flops_of(action).values())
