"""What runs cost: seconds a step, memory, machine, as a Markdown table.

python benchmarks/runs.py RUN...
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import median

from segda.run import load_recipe_of, read_log


def main(runs: list[Path]) -> None:
    print("| run | seed | steps | seconds a step: median (min to max) | peak memory | precision, threads |")
    print("|---|---|---|---|---|---|")
    machines = set()
    for run in runs:
        recipe, facts = load_recipe_of(run), json.loads((run / "environment.json").read_text())
        seconds = [line["seconds"] for line in read_log(run) if "seconds" in line]
        print(
            f"| {run.name} | {recipe.seed} | {recipe.steps} | {median(seconds):.2f} ({min(seconds):.2f} to "
            f"{max(seconds):.2f}) | {facts['peak_memory'] / 2**30:.2f} GiB | {facts['precision']}, {facts['threads']} |"
        )
        versions = ", ".join(f"{name} {version}" for name, version in facts["packages"].items())
        machines.add(f"{facts['processor']}; {facts['system']}; Python {facts['python']}; {versions}")
    print()
    for machine in sorted(machines):
        print(machine)


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
