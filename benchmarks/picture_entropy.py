"""The entropy of the prediction over the training of several runs, a row a run, as one picture for a document.

python benchmarks/picture_entropy.py OUT.png RUN...
"""

from __future__ import annotations

import sys
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from segda.reporting.charts import DOMAINS, draw_peaks
from segda.reporting.html import level_of
from segda.run import load_recipe_of, read_log
from segda.run_data import space_of


def main(out: Path, runs: list[Path]) -> None:
    figure = Figure(figsize=(3.6 * len(DOMAINS), 1.9 * len(runs)), dpi=100, layout="constrained")
    cells = figure.subplots(len(runs), len(DOMAINS), squeeze=False)
    for row, run in zip(cells, runs, strict=True):
        recipe, log = load_recipe_of(run), list(read_log(run))
        for axes, domain in zip(row, DOMAINS, strict=True):
            if draw_peaks(axes, log, domain, len(space_of(recipe).classes), level_of(recipe)):
                axes.set_title(f"{run.name}, {domain}: H in nats", fontsize=9)
            else:
                axes.set_axis_off()
    out.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_png(out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(run) for run in sys.argv[2:]])
