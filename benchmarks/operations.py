"""Where a step of training or an evaluation spends its time, operation by operation, against what this machine can do.

    python benchmarks/operations.py [ROW ...]       # rows of benchmarks/all.py, "evaluation, MiT-B0" [default: all]

After two steps or images that warm up, one by the clock and one under torch's profiler, on noise, with the memory kept
as the commands do. Of an evaluation: an image of 2048 x 1024 that is there already, to its counted pixels. Seconds of
an operation are its own, without those that it calls. The last column is how fast convolutions, products and attentions
are, as a share of the larger peak of the row's type, measured here before. Below the table: the share of the peak that
all would reach if they ran at the peak and all else cost what it costs; and if all else cost nothing and they ran as
they do.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections import Counter
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

import steps as measure
from segda.evaluation.certainty import labels
from segda.evaluation.look import Eye, Sight, look
from segda.evaluation.metrics import Confusion
from segda.ground.hardware import autocast, environment, keep_memory, pick_precision
from segda.scene import Scene

whole = importlib.import_module("all")

KINDS = {
    "convolutions": ("convolution", "conv2d", "conv_depthwise"),
    "products of matrices": ("addmm", "bmm", "aten::mm", "_linear", "aten::linear"),
    "attentions": ("scaled_dot_product",),
    "batch and layer norms": ("batch_norm", "layer_norm"),
    "resizing": ("upsample", "grid_sampler", "interpolate"),
    "copies and other layouts": ("copy_", "aten::cat", "clone", "contiguous", "to_mkldnn", "index", "gather"),
    "the optimiser and the teacher": ("_fused_", "_foreach_", "lerp"),
}
"""Kind -> what the names of its operations have; the first that fits. All others are of single numbers."""

OTHERS = "all that is done to single numbers"
COUNTED = tuple(KINDS)[:3]
WARM = 2
SHOWN = 12


def kind_of(operation: str) -> str:
    return next((kind for kind, words in KINDS.items() if any(word in operation for word in words)), OTHERS)


def flops_by_kind(step: Callable[[], object]) -> Counter[str]:
    found: Counter[str] = Counter()
    for operation, count in measure.flops_of(step).items():
        found[kind_of(operation.replace(".", "::"))] += count
    return found


def spent(step: Callable[[], object]) -> tuple[Counter[str], Counter[str]]:
    """Seconds of each operation, and its calls."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        step()
    seconds: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    for event in profiler.key_averages():
        seconds[event.key] += event.self_cpu_time_total / 1e6
        calls[event.key] += event.count
    return seconds, calls


def training(name: str, tiny: bool) -> tuple[Callable[[], object], torch.dtype]:
    """A step, and the type that it is computed in."""
    made, batches = measure.noise(whole.of_papers(name, tiny))
    return lambda: made.step(next(batches)), made.precision


class Noise:
    """One image of random colours and classes."""

    def __init__(self):
        generator, size = torch.Generator().manual_seed(0), (1024, 2048)
        image, label = (torch.randint(19, each, dtype=torch.uint8, generator=generator) for each in ((3, *size), size))
        self.scene = Scene(image, label)

    def __len__(self) -> int:
        return 1

    def read(self, i: int, label: bool = False) -> Scene:
        return self.scene


def evaluation(name: str, tiny: bool) -> tuple[Callable[[], object], torch.dtype]:
    """An image that is looked at, its label and its counted pixels."""
    network, recipe = whole.looking(name, tiny)
    precision, images = pick_precision("auto", whole.CPU), Noise()
    eye = Eye(network, recipe.evaluate, whole.CPU, autocast(whole.CPU, precision))
    confusion = Confusion(network.classes, whole.CPU)

    def each(sight: Sight) -> None:
        confusion.add(sight.scene.label, labels(sight.views, sight.size))

    return lambda: [*look([eye], images, each, title=name, label=True)], precision


def report(name: str, found: dict[str, float], tiny: bool = False) -> list[str]:
    """The table of a row and what stands below it."""
    step, precision = (training if name in whole.STEPS else evaluation)(name, tiny)
    for _ in range(WARM):
        step()
    begin = time.perf_counter()
    step()
    took = time.perf_counter() - begin
    seconds, calls = spent(step)
    work, peak = flops_by_kind(step), whole.peak_of(whole.precision_of(precision), found) * 1e9
    all_seconds, all_work = sum(seconds.values()), sum(work.values())
    kinds: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for operation, own in seconds.items():
        kinds[kind_of(operation)] += own
        counts[kind_of(operation)] += calls[operation]

    lines = [f"{name}: {took:.2f} s, {all_work / 1e9:.0f} GFLOP, {all_work / took / peak:.0%} of the peak", ""]
    lines += ["| what | seconds | share of all | calls | share of the peak |", "|---|---:|---:|---:|---:|"]
    for kind, own in kinds.most_common():
        reached = f"{work[kind] / own / peak:.0%}" if work[kind] else ""
        lines.append(f"| {kind} | {own:.2f} | {own / all_seconds:.0%} | {counts[kind]} | {reached} |")
    lines += ["", "| its longest operations | seconds | calls |", "|---|---:|---:|"]
    lines += [f"| `{operation}` | {own:.2f} | {calls[operation]} |" for operation, own in seconds.most_common(SHOWN)]
    counted = sum(kinds[kind] for kind in COUNTED)
    ideal = all_work / peak
    lines += ["", f"{ideal / (ideal + all_seconds - counted):.0%} of the peak with {', '.join(COUNTED)} at the peak;"]
    lines += [f"{ideal / counted:.0%} with all else for nothing. Under the profiler it took {all_seconds:.2f} s.", ""]
    return lines


def main(names: list[str]) -> None:
    keep_memory()
    found = whole.peaks(tiny=False)
    for name in names or [*whole.STEPS, *whole.EVALUATIONS]:
        print("\n".join(report(name, found)), flush=True)
    facts = environment(torch.device("cpu"), torch.float32)
    print(f"{facts['processor']}, {facts['threads']} threads, torch {facts['packages']['torch']}")


if __name__ == "__main__":
    main(sys.argv[1:])
