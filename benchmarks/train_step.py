"""Seconds of a training step, method by method: median, spread, number of steps, machine.

    python benchmarks/train_step.py [PAIR] [STEPS]        PAIR: streets (default) or camvid, whose data must be there

The methods take turns step by step, so that a machine whose speed drifts slows all of them; compare within one table.
Reading is not counted. `ebda, second pass` is the authors' two forward passes of the mixed batch.
"""

from __future__ import annotations

import sys
import time
from statistics import median

from segda import run as runs
from segda.ground.hardware import environment
from segda.recipes.recipe import load_recipe
from segda.training import assembly


def main(pair: str, steps: int) -> None:
    variants = {
        "source_only": ("source_only", []),
        "daformer": ("daformer", []),
        "ebda": ("ebda", []),
        "ebda, second pass": ("ebda", ["method.second_pass=true"]),
        "ebda, float32": ("ebda", ["precision='32'"]),
    }
    trainings, seconds = {}, {name: [] for name in variants}
    for name, (method, settings) in variants.items():
        recipe = load_recipe(f"{method}_{pair}").override("evaluate.data=[]", *settings)
        trainings[name] = assembly.assemble(recipe, runs.data_root(recipe, None), None)
    first = next(iter(trainings.values()))
    for drawn in first.batches(steps + 1, 0):
        for name, training in trainings.items():
            begin = time.perf_counter()
            training.step(drawn)
            seconds[name].append(time.perf_counter() - begin)

    print("| method | seconds a step: median (min to max) | against source_only |")
    print("|---|---|---|")
    base = median(seconds["source_only"][1:])
    for name, times in seconds.items():
        times = times[1:]  # the first warms caches up
        print(f"| {name} | {median(times):.3f} ({min(times):.3f} to {max(times):.3f}) | {median(times) / base:.2f} |")
    facts = environment(first.device, first.precision)
    print(
        f"\n{pair}, {steps} steps of batch {first.recipe.data.batch}, {facts['precision']} unless said, "
        f"{facts['threads']} threads, {facts['device']}; {facts['processor']}; torch {facts['packages']['torch']}"
    )


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "streets", int(sys.argv[2]) if len(sys.argv) > 2 else 10)
