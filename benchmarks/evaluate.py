"""Where the time of an evaluation goes: seconds an image of 2048 x 1024, part by part, as Markdown tables.

    python benchmarks/evaluate.py [IMAGES] [PRECISION]        PRECISION: auto (default), 32, bf16

Networks with random weights see 1024 x 512, as in the papers, of drawn streets that are read from PNG files. The parts
are timed inside `evaluate_network`. `waiting` is the time for which it waits for a scene: other threads read and resize
the next ones meanwhile, which slows the network down where they take its processors. So the last column sets the whole
against the network alone, which runs once more after each image.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from segda.commands.draw import draw
from segda.data.labels.spaces import space_named
from segda.data.sets.datasets import open_data
from segda.evaluation import inference, look, measure
from segda.evaluation.metrics import Confusion
from segda.ground.hardware import autocast, environment, pick_device, pick_precision
from segda.networks import NETWORKS
from segda.recipes.build import build
from segda.recipes.keys import Evaluate
from segda.scene import Scene, stack

SPACE = space_named("cityscapes-19")

DAFORMER = {"channels": 256, "dilations": [1, 6, 12, 18], "dropout": 0.1, "drop_path": 0.1}

ROWS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "deeplab_v2 101": (
        {"name": "deeplab_v2", "encoder": "101", "weights": "scratch", "multi_level": True, "aux_weight": 0.1},
        {"shape": "stretch", "kernel": "bicubic"},
    ),
    "mit_daformer b0": ({"name": "mit_daformer", "encoder": "b0", "weights": "scratch", **DAFORMER}, {}),
}
"""Title -> the network, and how images get into the box."""

PARTS = ("network", "waiting", "upsampling, argmax", "counting", "rest")

device = pick_device("auto")
spent: dict[str, list[float]] = defaultdict(list)


def now() -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def timed(part: str, function: Callable) -> Callable:
    def wrapped(*arguments, **settings):
        begin = now()
        result = function(*arguments, **settings)
        spent[part].append(now() - begin)
        return result

    return wrapped


def waited(function: Callable[..., Iterator]) -> Callable[..., Iterator]:
    def wrapped(*arguments, **settings):
        following = timed("waiting", function(*arguments, **settings).__next__)
        while True:
            try:
                yield following()
            except StopIteration:
                return

    return wrapped


def by_turns(
    low_res_logits: Callable[[Tensor], Tensor], image: Tensor, precision: torch.dtype
) -> Callable[..., Iterator[int]]:
    """In place of a progress bar: the time that each image takes, and after each the network by itself."""

    def images(items, title, **how):
        for item in items:
            begin = now()
            yield item
            spent["all"].append(now() - begin)
            begin = now()
            with torch.no_grad(), autocast(device, precision):
                low_res_logits(image)
            spent["alone"].append(now() - begin)

    return images


def seconds(values: list[float]) -> str:
    return f"{median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def main(count: int, name: str) -> None:
    precision = pick_precision(name, device)
    measure.labels = timed("upsampling, argmax", measure.labels)
    Confusion.add = timed("counting", Confusion.add)
    look.ahead = waited(look.ahead)
    print(f"| seconds an image: median (min to max) | all | {' | '.join(PARTS)} | network alone | outside it |")
    print(f"|---|{'---|' * (len(PARTS) + 3)}")
    with tempfile.TemporaryDirectory() as folder:
        draw("streets:val:day", Path(folder) / "cityscapes", count + 1, (1024, 2048))
        dataset = open_data("cityscapes:val", Path(folder), SPACE)
        for title, (spec, how) in ROWS.items():
            torch.manual_seed(0)
            network = build(NETWORKS, spec, "network", class_names=SPACE.classes).to(device).eval()
            settings = Evaluate(resize=(1024, 512), how="whole", **how)
            image = stack([Scene(inference.in_boxes(dataset.read(0).image, settings)[0])]).to(device).image
            coarse = network.low_res_logits
            network.low_res_logits = timed("network", coarse)
            spent.clear()
            known = {"weights": "student", "step": 0, "recipe": None, "precision": name}
            look.track = by_turns(coarse, image, precision)
            measure.evaluate_network(network, dataset, settings, device, autocast(device, precision), known)
            times = {part: values[1 : count + 1] for part, values in spent.items()}  # the first warms caches up
            every = list(zip(*(times[part] for part in ("all", *PARTS[:-1])), strict=True))
            times["rest"] = [whole - sum(parts) for whole, *parts in every]
            outside = [1 - alone / whole for alone, whole in zip(times["alone"], times["all"], strict=True)]
            cells = [seconds(times[part]) for part in ("all", *PARTS, "alone")]
            print(f"| {title} | {' | '.join(cells)} | {median(outside):.0%} |")
        begin = time.perf_counter()
        for index in range(count):
            dataset.read(index, label=True)
        print(f"\nReading by itself: {(time.perf_counter() - begin) / count:.3f} s an image.")
    facts = environment(device, precision)
    print(
        f"n = {count} images, {facts['precision']}, {facts['threads']} threads, {facts['device']}; "
        f"{facts['processor']}; torch {facts['packages']['torch']}"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 6, sys.argv[2] if len(sys.argv) > 2 else "auto")
