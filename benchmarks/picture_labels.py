"""Folders of pseudo-labels beside each other and beside the truth, as one picture for a document.

    python benchmarks/picture_labels.py OUT.png IMAGES ROOT FOLDER...

IMAGES evenly spread ones of the data set that the first folder was made for. The truth is read for the picture alone.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from segda.data.labels.pseudo_labels import PseudoLabels, read_summary
from segda.data.labels.spaces import SPACES
from segda.data.sets.labelled import open_labelled
from segda.data.stream.augment import resize_label
from segda.reporting.pictures import coloured, shrunk
from segda.scene import IGNORE

WIDTH = 320
"""Pixels of one image in the picture."""


def main(out: Path, count: int, root: Path, folders: list[Path]) -> None:
    summaries = [read_summary(folder) for folder in folders]
    space = next(space for space in SPACES.values() if list(space.classes) == summaries[0]["class_names"])
    dataset = open_labelled(summaries[0]["data"], root, space)
    kept = [PseudoLabels.open(folder, dataset, space) for folder in folders]
    titles = [dataset.spec, "ground truth", *(summary["rule"]["name"] for summary in summaries)]
    figure = Figure(figsize=(3.2 * len(titles), 2.45 * count + 0.5), dpi=100, layout="constrained")
    cells = figure.subplots(count, len(titles), squeeze=False)
    for row, index in zip(cells, np.linspace(0, len(dataset) - 1, count).round().astype(int), strict=True):
        scene = dataset.read(int(index), label=True)
        size = scene.label.shape
        labels = [scene.label] + [resize_label(each.read(int(index)), size, "bilinear") for each in kept]
        pictures = [scene.image.permute(1, 2, 0).numpy()] + [coloured(label.numpy(), space) for label in labels]
        for cell, picture in zip(row, pictures, strict=True):
            cell.imshow(shrunk(picture, WIDTH, flat=cell is not row[0]), interpolation="nearest")
            cell.set_axis_off()
        for cell, label in zip(row[2:], labels[1:], strict=True):
            asked = (label != IGNORE) & (scene.label != IGNORE)
            right = (label[asked] == scene.label[asked]).float().mean()
            cell.set_title(f"{(label != IGNORE).float().mean():.0%} kept, {right:.0%} of them right", fontsize=9)
    for cell, title in zip(cells[0], titles, strict=True):
        cell.set_title(f"{title}\n{cell.get_title()}".strip(), fontsize=11)
    patches = [Patch(color=np.array(colour) / 255, label=name) for name, colour in space.colours.items()]
    patches.append(Patch(color="black", label="no label"))
    figure.legend(handles=patches, loc="outside lower center", ncols=12, fontsize=8, frameon=False)
    out.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_png(out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), [Path(folder) for folder in sys.argv[4:]])
