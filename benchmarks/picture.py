"""Validation images beside the students' predictions of several runs, as one picture for a document.

    python benchmarks/picture.py OUT.png IMAGES RUN...

IMAGES of the first data set of the last run's recipe, evenly spread. A column is titled by its run folder's name.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from segda.data.sets.labelled import open_labelled
from segda.evaluation.certainty import labels
from segda.evaluation.inference import views
from segda.ground.hardware import autocast, pick_device, pick_precision
from segda.reporting.pictures import coloured, shrunk
from segda.run import data_root, load_network, load_recipe_of, space_of

WIDTH = 320
"""Pixels of one image in the picture."""


def main(out: Path, count: int, runs: list[Path]) -> None:
    recipe = load_recipe_of(runs[-1])
    space, device = space_of(recipe), pick_device("auto")
    precision = pick_precision("auto", device)
    dataset = open_labelled(recipe.evaluate.data[0], data_root(recipe, None), space)
    networks = {run.name: load_network(run, "student", device) for run in runs}
    titles = [dataset.spec, "ground truth", *networks]
    figure = Figure(figsize=(3.2 * len(titles), 2.45 * count + 0.5), dpi=100, layout="constrained")
    cells = figure.subplots(count, len(titles), squeeze=False)
    for row, index in zip(cells, np.linspace(0, len(dataset) - 1, count).round().astype(int), strict=True):
        scene = dataset.read(int(index), label=True)
        size = tuple(scene.image.shape[1:])
        seen = [
            views(network, scene.image, recipe.evaluate, device, autocast(device, precision))
            for network in networks.values()
        ]
        maps = [scene.label] + [labels(each, size).cpu() for each in seen]
        pictures = [scene.image.permute(1, 2, 0).numpy()] + [coloured(label.numpy(), space) for label in maps]
        for cell, picture in zip(row, pictures, strict=True):
            cell.imshow(shrunk(picture, WIDTH, flat=cell is not row[0]), interpolation="nearest")
            cell.set_axis_off()
        for cell, label in zip(row[2:], maps[1:], strict=True):
            asked = scene.label < len(space.classes)
            right = (label[asked].to(torch.uint8) == scene.label[asked]).float().mean()
            cell.set_title(f"{right:.0%} of pixels right", fontsize=9)
    for cell, title in zip(cells[0], titles, strict=True):
        cell.set_title(f"{title}\n{cell.get_title()}".strip(), fontsize=11)
    patches = [Patch(color=np.array(colour) / 255, label=name) for name, colour in space.colours.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=11, fontsize=8, frameon=False)
    out.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_png(out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), [Path(run) for run in sys.argv[3:]])
