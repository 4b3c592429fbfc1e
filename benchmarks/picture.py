"""Validation images beside the students' predictions of several runs, as one picture for a document.

    python benchmarks/picture.py OUT.png IMAGES RUN...

IMAGES of the first data set of the last run's recipe, neither the best nor chosen by hand: of all images in the
order of what the last run gains over the first (difference of the image's mIoU), one alone is the median, of three they
are the quartiles. A column is titled by its run folder's name.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from segda.data.sets.labelled import open_labelled
from segda.evaluation.certainty import labels
from segda.evaluation.inference import views
from segda.ground.hardware import autocast, pick_device, pick_precision
from segda.reporting.pictures import coloured, shrunk
from segda.run import data_root, load_network, load_recipe_of
from segda.run_data import space_in
from segda.scene import Scene

WIDTH = 320
"""Pixels of one image in the picture."""


def main(out: Path, count: int, runs: list[Path]) -> None:
    recipe = load_recipe_of(runs[-1])
    space, device = space_in(runs[-1]), pick_device("auto")
    precision = pick_precision("auto", device)
    dataset = open_labelled(recipe.evaluate.data[0], data_root(recipe, None), space)
    networks = {run.name: load_network(run, "student", device) for run in runs}

    def predicted(scene: Scene) -> list[Tensor]:
        size = (scene.image.shape[1], scene.image.shape[2])
        context = autocast(device, precision)
        return [
            labels(views(network, scene.image, recipe.evaluate, device, context), size).cpu()
            for network in networks.values()
        ]

    gains = []
    for index in range(len(dataset)):
        scene = dataset.read(index, label=True)
        assert scene.label is not None
        before, *_, after = (miou(label, scene.label, len(space.classes)) for label in predicted(scene))
        gains.append(after - before)
    ordered = np.argsort(gains)
    chosen = [ordered[round((k + 1) / (count + 1) * (len(ordered) - 1))] for k in range(count)]

    titles = [dataset.spec, "ground truth", *networks]
    figure = Figure(figsize=(3.2 * len(titles), 2.0 * count + 0.9), dpi=100, layout="constrained")
    cells = figure.subplots(count, len(titles), squeeze=False)
    for row, index in zip(cells, chosen, strict=True):
        scene = dataset.read(int(index), label=True)
        assert scene.label is not None
        maps = [scene.label, *predicted(scene)]
        pictures = [scene.image.permute(1, 2, 0).numpy()] + [coloured(label.numpy(), space) for label in maps]
        for column, (cell, picture) in enumerate(zip(row, pictures, strict=True)):
            cell.imshow(shrunk(picture, WIDTH, flat=column > 0), interpolation="nearest")
            cell.set_axis_off()
        for cell, label in zip(row[2:], maps[1:], strict=True):
            cell.set_title(f"mIoU of the image {100 * miou(label, scene.label, len(space.classes)):.0f}", fontsize=9)
    for cell, title in zip(cells[0], titles, strict=True):
        cell.set_title(f"{title}\n{cell.get_title()}".strip(), fontsize=11)
    patches = [Patch(color=np.array(colour) / 255, label=name) for name, colour in space.colours.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=11, fontsize=8, frameon=False)
    out.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_png(out)


def miou(label: Tensor, truth: Tensor, classes: int) -> float:
    """Of one image, over the classes that occur in it: in the labels or in the prediction where there are labels."""
    asked = truth < classes
    pairs = truth[asked].long() * classes + label[asked].long()
    counts = torch.bincount(pairs, minlength=classes**2).reshape(classes, classes)
    hit, union = counts.diag(), counts.sum(0) + counts.sum(1) - counts.diag()
    return (hit[union > 0] / union[union > 0]).mean().item()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), [Path(run) for run in sys.argv[3:]])
