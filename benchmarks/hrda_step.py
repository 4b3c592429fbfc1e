"""Seconds of a step of HRDA and of MIC on it, beside an emulation of the authors' way, in one run.

    python benchmarks/hrda_step.py [--steps 3] [--encoder b0] [--side 512] [--tiny]

The recipes of GTA5 as shipped, but with a smaller encoder, crops of SIDE x SIDE pixels and a detail of half a side. All
ways take turns step by step in one process, after a step of each to warm up; a ratio is of steps side by side. Images
are noise, weights random. The student sees a context and a detail, each in a forward pass of its own; the teacher sees
a context and nine windows. MIC adds one pass of the student over masked images.

No code of the authors runs: their way is an emulation, our code with their choices. It is float32, attention is two
products and a softmax, and all windows of the teacher go through encoder and decoder at once. `one by one` is the same
with each window of each image alone in the encoder. Not emulated: what else `ebda_step.py` names, and the overheads of
mmsegmentation and mmcv, so that the real thing may be slower.

--tiny: for tests.
"""

from __future__ import annotations

import argparse
import gc
import time
from statistics import median
from typing import NamedTuple

import torch

from segda.ground.hardware import environment, keep_memory
from segda.recipes.recipe import Recipe, load_recipe
from segda.training.assembly import Training
from steps import noise, scratch


class Way(NamedTuple):
    """A method of the recipes of GTA5, what is changed of its recipe, and whether attention is as the authors'."""

    method: str
    changes: tuple[str, ...] = ()
    plain_attention: bool = False


ALL = "network.window_batch=null"
WAYS = {
    "HRDA, the authors' way": Way("hrda", ("precision='32'", ALL), True),
    "the same, windows one by one": Way("hrda", ("precision='32'", "network.window_batch=1"), True),
    "HRDA, float32": Way("hrda", ("precision='32'",)),
    "HRDA, all windows at once": Way("hrda", (ALL,)),
    "HRDA, as shipped": Way("hrda"),
    "MIC on HRDA, as shipped": Way("mic"),
    "EBDA + MIC on HRDA, as shipped": Way("ebda_mic"),
}
FIRST, SHIPPED = "HRDA, the authors' way", "HRDA, as shipped"


def recipe_of(way: Way, encoder: str, side: int) -> Recipe:
    crops = {"crop": f"[{side}, {side}]", "resize": f"[{2 * side}, {side}]"}
    sizes = [f"data.{one}.augment.{key}={size}" for one in ("source", "target") for key, size in crops.items()]
    small = (f"network.over.encoder={encoder}", f"network.box=[{side // 2}, {side // 2}]", *sizes)
    recipe = scratch(load_recipe(f"{way.method}_gta5_cityscapes")).override(*small, *way.changes)
    if "masking" in recipe.method:  # blocks as large a part of the crop as they were
        recipe = recipe.override(f"method.masking.block={side // 16}")
    # Margins are of the whole image, which is smaller here.
    return recipe.override("data.target.augment.margins=null")


def training_of(way: Way, encoder: str, side: int) -> tuple[Training, object]:
    """A training and the batch of its steps."""
    training, batches = noise(recipe_of(way, encoder, side))
    if way.plain_attention:
        for module in training.method.modules():
            if hasattr(module, "config"):
                module.config._attn_implementation = "eager"
    return training, next(batches)


def measured(steps: int, encoder: str, side: int) -> dict[str, list[float]]:
    """Seconds of each way's steps."""
    trainings = {name: training_of(way, encoder, side) for name, way in WAYS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(steps + 1):
        for name, (training, batch) in trainings.items():
            gc.collect()
            begin = time.perf_counter()
            training.step(batch)
            seconds[name].append(time.perf_counter() - begin)
    return {name: times[1:] for name, times in seconds.items()}


def ratio(one: list[float], other: list[float]) -> str:
    """Of steps side by side: median (least to most)."""
    ratios = [first / second for first, second in zip(one, other, strict=True)]
    return f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def table(seconds: dict[str, list[float]]) -> list[str]:
    lines = [
        "| a step | seconds: median (min to max) | times as fast as the authors' way | times as long as HRDA's |",
        "|---|---:|---:|---:|",
    ]
    for name, times in seconds.items():
        took = f"{median(times):.2f} ({min(times):.2f} to {max(times):.2f})"
        own = WAYS[name].method == "hrda"
        faster = ratio(seconds[FIRST], times) if own else ""
        lines.append(f"| {name} | {took} | {faster} | {'' if own else ratio(times, seconds[SHIPPED])} |")
    return lines


def main(steps: int, encoder: str, side: int) -> None:
    keep_memory()  # as `segda train` does
    print("\n".join(table(measured(steps, encoder, side))))
    facts = environment(torch.device("cpu"), torch.bfloat16)
    print(
        f"\nEncoder {encoder}, {side} x {side}, detail {side // 2} x {side // 2}, batch 2, {steps} steps; "
        f"{facts['threads']} threads; {facts['processor']}; torch {facts['packages']['torch']}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--encoder", default="b0")
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--tiny", action="store_true")
    asked = parser.parse_args()
    main(1, "tiny", 64) if asked.tiny else main(asked.steps, asked.encoder, asked.side)
