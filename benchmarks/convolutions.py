"""Channels first or last: each convolution of our networks in both layouts, forwards and backwards, in both types.

    python benchmarks/convolutions.py [ROUNDS] [NETWORK ...]        5 rounds, all of NETWORKS

A network sees a crop of its recipe, and each convolution of another shape is noted, with the layout in which it was
called: the one that the code has chosen. Then each is timed on noise, both layouts in turns, one call each a round,
after one that warms up; medians count. With one thread (OMP_NUM_THREADS=1) seconds are the processor's, which other
work disturbs less; else they are the clock's.

The last table sums up the network, each shape as often as it was called: as chosen, all in one layout, each in its
faster one. What it costs to go from one layout to the other is in none of them.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import steps as measure
from parts import SPACE
from segda.ground.hardware import environment, keep_memory
from segda.networks import NETWORKS
from segda.networks.encoders.depthwise import convolved
from segda.networks.network import Network
from segda.recipes.build import build

whole = importlib.import_module("all")

ROWS = {
    "DeepLab-v2 101": whole.Row("advent_gta5_cityscapes"),
    "MiT-B0": whole.Row("ebda_gta5_cityscapes", (whole.B0,)),
    "MiT-B5": whole.Row("ebda_gta5_cityscapes"),
    "EfficientNet-Lite0": whole.Row("ebda_camvid"),
}
"""Network -> a recipe that has it."""

LAYOUTS = {"first": torch.contiguous_format, "last": torch.channels_last}
TYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
NOISE = 1.05
"""So many times as long counts as slower."""


@dataclass(frozen=True)
class Convolution:
    """One shape, and the layout in which it was called."""

    image: tuple[int, ...]
    weight: tuple[int, ...]
    stride: int
    padding: int
    dilation: int
    groups: int
    chosen: str

    @property
    def kind(self) -> str:
        ways = ["depthwise"] * (self.groups > 1) + ["dilated"] * (self.dilation > 1) + ["strided"] * (self.stride > 1)
        return " ".join(["x".join(map(str, self.weight[2:])), *(ways or ["dense"])])

    @property
    def title(self) -> str:
        batch, channels, height, width = self.image
        return f"{self.kind}, {channels} to {self.weight[0]}, {batch} x {height} x {width}"


class Noted(TorchDispatchMode):
    """Counts the convolutions that are called."""

    def __init__(self):
        super().__init__()
        self.calls: Counter[Convolution] = Counter()

    def __torch_dispatch__(self, operator, types, arguments=(), named=None):
        if operator is torch.ops.aten.convolution.default:
            image, weight, _, stride, padding, dilation, *_, groups = arguments
            last = image.is_contiguous(memory_format=torch.channels_last) and not image.is_contiguous()
            alike = (tuple(image.shape), tuple(weight.shape), stride[0], padding[0], dilation[0], groups)
            self.calls[Convolution(*alike, "last" if last else "first")] += 1
        return operator(*arguments, **(named or {}))


def noted(name: str, tiny: bool) -> Counter[Convolution]:
    """The convolutions of a forward pass over a batch of crops."""
    recipe = ROWS[name].of_its()
    torch.manual_seed(0)
    network: Network = build(NETWORKS, recipe.network, "network", class_names=SPACE.classes)
    width, height = (64, 64) if tiny else recipe.data.target.augment.size
    images = torch.rand(recipe.data.batch, 3, height, width)
    with torch.autocast("cpu", torch.bfloat16), Noted() as found:
        network(images)
    return found.calls


def seconds(action: Callable[[], object]) -> float:
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    begin = clock()
    action()
    return clock() - begin


Timed = dict[str, tuple[float, float]]
"""Layout -> seconds forwards and backwards."""


def timed(one: Convolution, kind: torch.dtype, rounds: int) -> tuple[Timed, tuple[int, int]]:
    """Medians, and the operations forwards and backwards."""
    both: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {}
    for layout, meant in LAYOUTS.items():
        image, weight = (torch.randn(size).to(kind).contiguous(memory_format=meant) for size in (one.image, one.weight))
        learning = [weight.requires_grad_()]
        if one.image[1] != 3:  # nobody asks for the gradient of an image
            learning.append(image.requires_grad_())

        def forwards(image=image, weight=weight):
            if one.dilation > 1:
                return F.conv2d(image, weight, None, one.stride, one.padding, one.dilation, one.groups)
            return convolved(image, weight, None, one.stride, one.padding, one.groups)  # as the encoders do

        made = forwards()
        gradient = torch.randn_like(made)

        def backwards(made=made, gradient=gradient, learning=learning):
            return torch.autograd.grad(made, learning, gradient, retain_graph=True)

        both[layout] = forwards, backwards
    work = [measure.flops(action) for action in both["last"]]  # a call that warms up
    for action in both["first"]:
        action()
    taken: dict[str, list[tuple[float, float]]] = {layout: [] for layout in both}
    for _ in range(rounds):
        for layout, (forwards, backwards) in both.items():
            taken[layout].append((seconds(forwards), seconds(backwards)))
    medians = {layout: (median(one for one, _ in every), median(two for _, two in every))
               for layout, every in taken.items()}  # fmt: skip
    return medians, (work[0], work[1])


def table(name: str, rounds: int, tiny: bool = False) -> list[str]:
    calls = noted(name, tiny)
    lines = [f"{name}:", ""]
    lines.append(
        "| convolution | calls | chosen | type | first: GFLOP/s there, back | last: there, back | last / first |"
    )
    lines.append("|---|---:|---|---|---:|---:|---:|")
    sums: dict[str, Counter[str]] = {kind: Counter() for kind in TYPES}
    slower: list[str] = []
    for one, count in calls.items():
        for kind, meant in TYPES.items():
            found, work = timed(one, meant, rounds)
            speeds = [
                ", ".join(f"{each / took / 1e9:.0f}" for each, took in zip(work, found[layout], strict=True))
                for layout in LAYOUTS
            ]
            took = {layout: sum(found[layout]) for layout in LAYOUTS}
            ratio = took["last"] / took["first"]
            lines.append(f"| {one.title} | {count} | {one.chosen} | {kind} | {speeds[0]} | {speeds[1]} | {ratio:.2f} |")
            best = min(took.values())
            if took[one.chosen] > NOISE * best:
                lost = count * (took[one.chosen] - best)
                slower.append(f"{one.title}, {kind}: {one.chosen} takes {took[one.chosen] / best:.2f} times as long, "
                              f"{1000 * lost:.1f} ms in all")  # fmt: skip
            for what, each in (("as chosen", took[one.chosen]), ("the faster one of each", best), *took.items()):
                sums[kind][what] += count * each
    lines += [
        "",
        "| all convolutions, there and back, in seconds | as chosen | all first | all last | faster of each |",
    ]
    lines.append("|---|---:|---:|---:|---:|")
    for kind, whole_sum in sums.items():
        columns = ("as chosen", "first", "last", "the faster one of each")
        lines.append(f"| {name}, {kind} | {' | '.join(f'{whole_sum[column]:.3f}' for column in columns)} |")
    lines += ["", "Not the faster one was chosen:" if slower else "The chosen layout is nowhere slower.", ""]
    return lines + [f"- {line}" for line in slower] + [""] * bool(slower)


def main(rounds: int, names: list[str]) -> None:
    keep_memory()
    for name in names or ROWS:
        print("\n".join(table(name, rounds)), flush=True)
    told = environment(torch.device("cpu"), torch.float32)
    print(f"{told['processor']}; {told['threads']} threads; torch {told['packages']['torch']}; {rounds} rounds")


if __name__ == "__main__":
    count, *rest = sys.argv[1:] if sys.argv[1:2] and sys.argv[1].isdigit() else ["5", *sys.argv[1:]]
    main(int(count), rest)
