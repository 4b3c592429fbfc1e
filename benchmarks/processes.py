"""What it costs to share a step: one process, passes, several processes, shards.

    python benchmarks/processes.py [STEPS] [RECIPE] [--set KEY=VALUE ...]

Seconds of STEPS (20) steps with the same scenes, of `ebda_streets` with four scenes a step: in one process of two
threads, in two passes of it, in two processes of one thread each, the same with weights in shards. Each is started
once a round, three rounds, so that what the machine does beside falls on all alike; the median of all steps but the
first two of each start.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from segda import run as runs
from segda.distributed import group
from segda.ground.hardware import environment
from segda.recipes.recipe import load_recipe
from segda.training import assembly

ROUNDS, WARM, SCENES = 3, 2, 4

WAYS = {
    "one process": (1, []),
    "one process, two passes": (1, ["accumulate=2"]),
    "two processes": (2, []),
    "two processes, two passes": (2, ["accumulate=2"]),
    "two processes, shards": (2, ["shard=true"]),
}
"""Name -> number of processes, keys of the recipe."""


def seconds(recipe_name: str, settings: list[str], steps: int) -> tuple[list[float], dict[str, object]]:
    """Of each step, in this process; scenes are drawn beforehand."""
    recipe = load_recipe(recipe_name).override("evaluate.data=[]", f"steps={steps + WARM}", *settings)
    recipe = recipe.override(f"data.batch={SCENES // (group.world() * recipe.accumulate)}")
    training = assembly.assemble(recipe, runs.data_root(recipe, None), None)
    drawn = list(training.batches(recipe.steps, 0))
    times = []
    for batches in drawn:
        group.barrier()
        begin = time.perf_counter()
        training.step(batches)
        times.append(time.perf_counter() - begin)
    return times[WARM:], environment(training.device, training.precision)


def child(arguments: list[str]) -> None:
    """Writes what the first process measured."""
    out, recipe, steps, *settings = arguments
    with group.joined():
        times, facts = seconds(recipe, settings, int(steps))
        if group.rank() == 0:
            Path(out).write_text(json.dumps([times, facts]))


def measured(way: str, recipe: str, settings: list[str], steps: int) -> tuple[list[float], dict[str, object]]:
    count, keys = WAYS[way]
    start = [sys.executable]
    if count > 1:
        start += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "times.json"
        command = [*start, __file__, "child", str(out), recipe, str(steps), *settings, *keys]
        subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": str(2 // count)}, capture_output=True)
        return json.loads(out.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("steps", nargs="?", type=int, default=20)
    parser.add_argument("recipe", nargs="?", default="ebda_streets")
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    given = parser.parse_args()
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(ROUNDS):
        for way, times in found.items():
            more, facts = measured(way, given.recipe, given.settings, given.steps)
            times += more
    base = median(found["one process"])
    print("| | seconds a step: median (min to max) | against one process |\n|---|---:|---:|")
    for way, times in found.items():
        print(f"| {way} | {median(times):.3f} ({min(times):.3f} to {max(times):.3f}) | {median(times) / base:.2f} |")
    print(
        f"\n{given.recipe} {' '.join(given.settings)}, {SCENES} scenes a step, {facts['precision']}, two threads, "
        f"{ROUNDS} x {given.steps} steps each; {facts['processor']}, torch {facts['packages']['torch']}"
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        child(sys.argv[2:])
    else:
        main()
