"""What `activation_checkpointing: true` saves and costs: peak memory and seconds of a step with it and without.

    python benchmarks/activation_checkpointing.py [STEPS] [SIDE] [BATCH] [ENCODER...]        3 512 2 b0 b5 101

Steps of source only on noise, SIDE x SIDE, BATCH scenes: DAFormer's network with a Mix Transformer, DeepLab-v2 with a
ResNet. Memory is of a process of its own for each way. For the seconds both ways take turns step by step in one
process, so that a machine whose speed drifts slows both; the ratio is of steps side by side. They are seconds of the
processor, all threads together, on a processor (so that others who work there count less), of the clock elsewhere.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from statistics import median

import torch

from segda.ground.hardware import environment
from segda.recipes.recipe import Recipe, load_recipe
from segda.training.max_batch import Trial, gib

STEPS, SIDE, BATCH, ENCODERS = 3, 512, 2, ("b0", "b5", "101")


def recipe_of(encoder: str, side: int, again: bool) -> Recipe:
    crops = [f"data.{domain}.augment.crop=[{side}, {side}]" for domain in ("source", "target")]
    if encoder.startswith("b"):
        network = f"network.encoder={encoder}"
    else:
        network = f"network={{name: deeplab_v2, encoder: '{encoder}', weights: scratch, multi_level: false}}"
    return load_recipe("source_only_streets").override(network, *crops, f"activation_checkpointing={json.dumps(again)}")


def memory(encoder: str, side: int, batch: int, again: bool) -> None:
    """Of this process, after two steps."""
    print(Trial(recipe_of(encoder, side, again))(batch).memory)


def seconds(encoder: str, side: int, batch: int, steps: int) -> None:
    """Of steps without and with, and facts on what they ran on."""
    trials = [Trial(recipe_of(encoder, side, again)) for again in (False, True)]
    training = trials[0].training
    accelerated = training.device.type == "cuda"
    clock = time.perf_counter if accelerated else time.process_time
    taken: list[list[float]] = [[], []]
    for _ in range(steps + 1):
        for trial, times in zip(trials, taken, strict=True):
            trial.training.t = 0
            scenes = [trial.noise(batch)]
            begin = clock()
            trial.training.step(scenes)
            if accelerated:
                torch.cuda.synchronize(training.device)
            times.append(clock() - begin)
    facts = environment(training.device, training.precision)
    print(json.dumps({"seconds": [times[1:] for times in taken], "facts": facts}))  # the first warms caches up


def child(*arguments: object) -> str:
    command = [sys.executable, __file__, *map(str, arguments)]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1]


def spread(numbers: list[float]) -> str:
    return f"{median(numbers):.2f} ({min(numbers):.2f} to {max(numbers):.2f})"


def main(steps: int, side: int, batch: int, encoders: tuple[str, ...]) -> None:
    print("| encoder | memory | again | ratio | seconds a step: median (min to max) | again | ratio |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for encoder in encoders:
        without, again = (int(child("--memory", encoder, side, batch, int(way))) for way in (False, True))
        timed = json.loads(child("--seconds", encoder, side, batch, steps))
        plain, twice = timed["seconds"]
        ratios = [two / one for one, two in zip(plain, twice, strict=True)]
        cells = [gib(without), gib(again), f"{again / without:.2f}", spread(plain), spread(twice), spread(ratios)]
        print(f"| {encoder} | {' | '.join(cells)} |", flush=True)
    facts = timed["facts"]
    print(
        f"\nSource only, {side} x {side}, batch {batch}, {facts['precision']}, {steps} steps each after one to warm "
        f"up; {facts['threads']} threads, {facts['device']}; {facts['processor']}; torch {facts['packages']['torch']}"
    )


if __name__ == "__main__":
    words = sys.argv[1:]
    if words[:1] == ["--memory"]:
        memory(words[1], int(words[2]), int(words[3]), words[4] == "1")
    elif words[:1] == ["--seconds"]:
        seconds(words[1], *map(int, words[2:5]))
    else:
        numbers = [int(word) for word in words[:3]] + [STEPS, SIDE, BATCH][len(words[:3]) :]
        main(*numbers, tuple(words[3:]) or ENCODERS)
