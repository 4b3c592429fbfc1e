"""What a training's steps take whose process keeps the memory that it frees, beside one that gives it back.

    python benchmarks/kept_memory.py [RECIPE] [STEPS] [ROUNDS] [KEY=VALUE ...]    ebda_streets, 6 steps, 3 rounds

Each is a process of its own, one after the other, in turns; two steps come before those that count. Prints Markdown:
medians of the rounds, least and most.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch

from segda.ground.hardware import KEEP, environment, keep_memory, peak_memory
from segda.recipes.recipe import load_recipe
from segda.run import data_root
from segda.training import assembly

WARM = 2


def measured(recipe: str, steps: int, settings: list[str]) -> dict[str, float]:
    """Of one process, this one."""
    kept = keep_memory()
    chosen = load_recipe(recipe).override(*settings) if settings else load_recipe(recipe)
    with TemporaryDirectory() as folder:
        training = assembly.assemble(chosen, data_root(chosen, None), Path(folder))
        batches = training.batches(steps + WARM, 0)
        for _ in range(WARM):
            training.step(next(batches))
        before, begun = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        for _ in range(steps):
            training.step(next(batches))
        after, took = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter() - begun
    user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    return {
        "seconds": took / steps,
        "share": 100 * system / (user + system),
        "GiB": peak_memory(torch.device("cpu")) / 2**30,
        "kept": kept,
    }


def main(recipe: str, steps: int, rounds: int, settings: list[str]) -> None:
    found: dict[str, list[dict[str, float]]] = {"given back": [], "kept": []}
    for _ in range(rounds):
        for name, said in (("given back", "0"), ("kept", "1")):
            command = [sys.executable, __file__, "--one", recipe, str(steps), *settings]
            done = subprocess.run(command, env=os.environ | {KEEP: said}, stdout=subprocess.PIPE, check=True)
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
    print("| freed memory is | s a step | system's share of processor time in % | GiB at most |")
    print("| --- | ---: | ---: | ---: |")
    for name, rows in found.items():
        cells = []
        for key in ("seconds", "share", "GiB"):
            values = [row[key] for row in rows]
            cells.append(f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})")
        print(f"| {name} | {' | '.join(cells)} |")
    told = environment(torch.device("cpu"), torch.float32)
    print(f"\n{' '.join([recipe, *settings])}: {rounds} rounds of {steps} steps")
    print(f"{told['processor']}; {told['threads']} threads")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measured(sys.argv[2], int(sys.argv[3]), sys.argv[4:])))
    else:
        words = [word for word in sys.argv[1:] if "=" not in word]
        main(
            words[0] if words else "ebda_streets",
            int(words[1]) if len(words) > 1 else 6,
            int(words[2]) if len(words) > 2 else 3,
            [word for word in sys.argv[1:] if "=" in word],
        )
