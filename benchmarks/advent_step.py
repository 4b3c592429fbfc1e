"""Seconds and memory of one AdvEnt iteration at the paper's sizes, part by part, beside the authors' way to run it.

    python benchmarks/advent_step.py [STEPS] [ENCODER]        3 steps after one to warm up, encoder 101

The authors' way is float32 with channels first and dilated convolutions in the heads, on the same weights and images.
The ways take turns step by step, so that a machine whose speed drifts slows all. Peak memory is of a process of its own
for each way. Images are noise of the right size for the steps, drawn streets of GTA5's and Cityscapes' size as PNG for
loading.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections import defaultdict
from functools import partial
from statistics import median

import torch
from torch import Tensor, nn

from parts import SPACE, cell, loading
from segda.ground.hardware import autocast, environment, peak_memory
from segda.methods import METHODS
from segda.methods.method import Method
from segda.networks import NETWORKS
from segda.recipes.build import build
from segda.recipes.recipe import load_recipe
from segda.scene import Batch, Scene
from segda.training.assembly import settings_of
from segda.training.optim import optimisers

SOURCE, TARGET = (720, 1280), (512, 1024)
WAYS = {
    "authors' way: float32, channels first": (torch.float32, False),
    "ours: float32, channels last": (torch.float32, True),
    "ours: bfloat16, channels last": (torch.bfloat16, True),
}
PARTS = ("source forward", "source backward", "target forward", "target backward", "discriminators", "optimisers")


class Way:
    """One way to do the same iteration."""

    def __init__(self, precision: torch.dtype, channels_last: bool, encoder: str):
        recipe = load_recipe("advent_gta5_cityscapes")
        torch.manual_seed(0)
        network = build(
            NETWORKS, recipe.network | {"weights": "scratch", "encoder": encoder}, "network", class_names=SPACE.classes
        )
        if not channels_last:
            network.to(memory_format=torch.contiguous_format)
            network.features = lambda image: network.encoder(
                (image.flip(1) * network.scale - network.mean).contiguous()
            )
            for head in network.classifiers.values():
                head.forward = partial(plainly, head)
        self.precision = precision
        self.method: Method = build(METHODS, recipe.method, "method", student=network).train()
        self.players = optimisers(self.method, settings_of(recipe))

    def step(self, batch: Batch) -> dict[str, float]:
        """train_step with a clock: seconds of each part."""
        seconds: dict[str, float] = defaultdict(float)
        for optimiser in self.players.values():
            optimiser.zero_grad(set_to_none=True)
        events = self.method.step(batch, 0)
        for part in ("source", "target", "discriminators", "discriminators"):
            begin = time.perf_counter()
            with autocast(torch.device("cpu"), self.precision):
                terms = next(events)
            middle = time.perf_counter()
            torch.stack([term for term in terms.values() if term.requires_grad]).sum().backward()
            end = time.perf_counter()
            del terms
            if part == "discriminators":
                seconds[part] += end - begin
            else:
                seconds[f"{part} forward"] += middle - begin
                seconds[f"{part} backward"] += end - middle
        assert next(events, None) is None
        begin = time.perf_counter()
        for optimiser in self.players.values():
            optimiser.step()
        seconds["optimisers"] = time.perf_counter() - begin
        return seconds


def plainly(head: nn.ModuleList, cells: Tensor) -> Tensor:
    """A head as it is written down: the sum of its dilated convolutions."""
    return sum(branch(cells) for branch in head)


def noise(seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(0, 19, (1, *SOURCE), generator=generator)
    source, target = (torch.rand(1, 3, *size, generator=generator) for size in (SOURCE, TARGET))
    return Batch(Scene(source, label), Scene(target))


def main(steps: int, encoder: str) -> None:
    # First: a process begins with the peak of the one that started it.
    memory = [
        subprocess.run(
            [sys.executable, __file__, "--memory", name, encoder], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in WAYS
    ]
    ways = {name: Way(*settings, encoder) for name, settings in WAYS.items()}
    taken = {name: defaultdict(list) for name in ways}
    for index in range(steps + 1):
        for name, way in ways.items():
            for part, seconds in way.step(noise(index)).items():
                if index:  # the first warms caches up
                    taken[name][part].append(seconds)
    del ways
    print(f"| seconds: median (min to max) | {' | '.join(WAYS)} |")
    print("|---" * (len(WAYS) + 1) + "|")
    for part in PARTS:
        print(f"| {part} | {' | '.join(cell(taken[name][part]) for name in WAYS)} |")
    totals = {name: [sum(parts) for parts in zip(*taken[name].values(), strict=True)] for name in WAYS}
    print(f"| **iteration** | {' | '.join(cell(totals[name]) for name in WAYS)} |")
    base = median(totals[next(iter(WAYS))])
    print(f"| times as fast | {' | '.join(f'{base / median(totals[name]):.2f}' for name in WAYS)} |")
    print(f"| peak memory, GiB | {' | '.join(memory)} |")
    recipe = load_recipe("advent_gta5_cityscapes")
    print(f"| loading, one process | {' | '.join([cell(loading(recipe))] + ['the same'] * (len(WAYS) - 1))} |")
    facts = environment(torch.device("cpu"), torch.bfloat16)
    print(
        f"\nAdvEnt, DeepLab-v2 {encoder}, source 1280x720, target 1024x512, batch 1, {steps} steps; {facts['threads']} "
        f"threads; {facts['processor']}; torch {facts['packages']['torch']}"
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory"]:
        alone = Way(*WAYS[sys.argv[2]], sys.argv[3])
        for index in range(2):
            alone.step(noise(index))
        print(f"{peak_memory(torch.device('cpu')) / 2**30:.2f}")
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 3, sys.argv[2] if len(sys.argv) > 2 else "101")
