"""Seconds to make a foggy image of a clear one of 2048 x 1024, part by part, in one process.

    python benchmarks/make_fog.py

The scene is drawn, with holes in its disparity of about a fifth of the pixels.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from segda.commands.draw import draw
from segda.commands.make_fog import make_fog
from segda.commands.make_rain import make_rain
from segda.data.files.images import read_image
from segda.data.weather.fog import transmittance
from segda.data.weather.make import ClearView, clear_images
from segda.data.weather.stereo import distance_of, filled, read_disparity

SIZE = (1024, 2048)


def holes(path: Path) -> float:
    """Takes the left border, the bottom and random patches out of a disparity file; gives the share without."""
    stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    patches = np.random.default_rng(0).random((SIZE[0] // 16, SIZE[1] // 16)).astype(np.float32)
    stored[cv2.resize(patches, SIZE[::-1]) > 0.8] = 0
    stored[:, :120] = stored[-100:] = 0
    cv2.imwrite(str(path), stored)
    return float((stored == 0).mean())


def seconds(work) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def main(folder: Path) -> None:
    draw("streets:val", folder, 1, SIZE)
    (place,) = clear_images(folder)
    share = holes(place.disparity)
    image = read_image(place.image).permute(1, 2, 0).numpy()
    disparity, known = read_disparity(place.disparity, SIZE)
    view = ClearView.of(place)
    distance = distance_of(view.depth, view.camera)
    took = {
        "read image and disparity": lambda: (read_image(place.image), read_disparity(place.disparity, SIZE)),
        f"fill {share:.0%} holes": lambda: filled(disparity, known, image),
        "light of the air": lambda: view.air,
        "guided filter, first map": lambda: view.refined(transmittance(distance, 0.01)),
        "guided filter, each further map": lambda: view.refined(transmittance(distance, 0.02)),
        "whole image, one beta": lambda: make_fog(folder, [0.01], folder / "one", 0),
        "whole image, three betas": lambda: make_fog(folder, [0.005, 0.01, 0.02], folder / "three", 0),
        "whole image, rain of one strength": lambda: make_rain(folder, ["0.02"], [1], folder / "rain", 0),
    }
    print(f"| 2048x1024, {os.cpu_count()} cores, OpenCV with {cv2.getNumThreads()} threads | s |\n|---|---:|")
    for part, work in took.items():
        print(f"| {part} | {seconds(work):.2f} |", flush=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
