"""Folders of translated images beside each other and beside their originals, as one picture for a document.

    python benchmarks/picture_translations.py OUT.png IMAGES ROOT FOLDER...

IMAGES evenly spread ones of the data set that the folders were made of, by `segda translate`. A column is titled by its
folder's name; each pixel of a translated image is shown as it is.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from segda.data.files.images import read_image
from segda.data.sets.labelled import open_once
from segda.data.sets.translated import image_names, read_summary


def main(out: Path, count: int, root: Path, folders: list[Path]) -> None:
    dataset = open_once(read_summary(folders[0])["data"]["spec"], root)
    names = [name for part in dataset.parts for name in image_names(part)]
    titles = [dataset.spec, *(folder.name for folder in folders)]
    figure = Figure(figsize=(5.2 * len(titles), 2.65 * count + 0.3), dpi=100, layout="constrained")
    cells = figure.subplots(count, len(titles), squeeze=False)
    for row, index in zip(cells, np.linspace(0, len(dataset) - 1, count).round().astype(int), strict=True):
        images = [dataset.read(int(index)).image, *(read_image(folder / names[index]) for folder in folders)]
        for cell, image in zip(row, images, strict=True):
            cell.imshow(image.permute(1, 2, 0).numpy(), interpolation="nearest")
            cell.set_axis_off()
    for cell, title in zip(cells[0], titles, strict=True):
        cell.set_title(title, fontsize=12)
    out.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_png(out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), [Path(folder) for folder in sys.argv[4:]])
