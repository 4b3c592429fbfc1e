"""How runs of several lengths do: a table, and a figure of mIoU over steps, one panel for each scored data set.

    python benchmarks/growth.py OUT.png RUN...

Of the students, as their reports have it; a line for each method, and one of its own, AdaBN, where they were measured
with the statistics of other images (`segda evaluate --statistics`). Runs of one method and length are seeds: the line
goes through their means.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from segda.run import load_recipe_of

Scores = dict[str, dict[str, dict[int, list[float]]]]
"""Data set -> method -> steps -> mIoU in %, of each seed."""


def read(runs: list[Path]) -> Scores:
    scores: Scores = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for run in runs:
        recipe = load_recipe_of(run)
        for data in recipe.evaluate.data:
            scores[data]  # in the recipe's order, the target first
        for file in sorted((run / "reports").glob("*.json")):
            for report in json.loads(file.read_text()):
                protocol = report["protocol"]
                if protocol["weights"] == "student":
                    line = recipe.method["name"] + (", AdaBN" if protocol.get("statistics") else "")
                    scores[protocol["data"]][line][recipe.steps].append(100 * report["miou"])
    return scores


def main(out: Path, runs: list[Path]) -> None:
    scores = read(runs)
    lengths = sorted({steps for methods in scores.values() for one in methods.values() for steps in one})
    print(f"| mIoU in % after | {' | '.join(f'{steps:,} steps' for steps in lengths)} |")
    print(f"|---|{'---:|' * len(lengths)}")
    figure = Figure(figsize=(3.6 * len(scores), 2.8), dpi=110, layout="constrained")
    for axes, (data, methods) in zip(figure.subplots(1, len(scores), squeeze=False)[0], scores.items(), strict=True):
        for method, by_steps in methods.items():
            found = {steps: mean(by_steps[steps]) for steps in sorted(by_steps)}
            cells = (f"{found[steps]:.1f} ({len(by_steps[steps])})" if steps in found else "" for steps in lengths)
            print(f"| {data}, {method} (seeds) | {' | '.join(cells)} |")
            axes.plot(list(found), list(found.values()), marker="o", label=method)
        axes.set_xscale("log")
        axes.set_xticks(lengths, [f"{steps:,}" for steps in lengths], minor=False)
        axes.set_xticks([], minor=True)
        axes.set_title(data, fontsize=10)
        axes.set_xlabel("steps")
        axes.set_ylabel("mIoU, %")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    FigureCanvasAgg(figure).print_png(out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(run) for run in sys.argv[2:]])
