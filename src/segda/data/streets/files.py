"""Drawn street scenes as files in the layout of Cityscapes and of its foggy and rainy versions.

leftImg8bit/SPLIT/drawnburg/drawnburg_000000_000007_leftImg8bit.png            day, night, snow
leftImg8bit_foggy/SPLIT/drawnburg/..._leftImg8bit_foggy_beta_0.01.png
leftImg8bit_rain/SPLIT/drawnburg/..._leftImg8bit_rain_alpha_0.02_beta_0.01_dropsize_0.005_pattern_1.png
gtFine/SPLIT/drawnburg/..._gtFine_labelIds.png, ..._gtFine_labelTrainIds.png
depth/SPLIT/drawnburg/..._depth_cm.png            16 bit, centimetres, 65535 for all that is farther than 655 m
disparity/SPLIT/drawnburg/..._disparity.png       as Cityscapes has it (data/weather/stereo.py), the sky at infinity
camera/SPLIT/drawnburg/..._camera.json
"""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from segda.data.labels.label_ids import label_ids
from segda.data.labels.spaces import space_named
from segda.data.streets import streets
from segda.data.streets.conditions import FOG, SPLITS
from segda.data.streets.pinhole import SKY_DEPTH
from segda.data.weather.rain import PATTERNS
from segda.data.weather.stereo import Camera, stored_disparity
from segda.ground.atomic import atomic_write, cannot_write, write_text
from segda.ground.progress import track

CITY = "drawnburg"

SMALLEST = 32
"""Pixels: on a smaller side nothing can be recognised."""

RAIN_STRENGTH = "alpha_0.02_beta_0.01_dropsize_0.005"
"""The middle one of Rain Cityscapes' three strengths; the drawn rain's haze is of that order."""


def _files(
    out: Path, split: str, condition: str, index: int, drawn: streets.RenderedScene
) -> list[tuple[Path, Image.Image]]:
    """Every picture of one scene with its pixels."""
    stem = _stem(index)
    folder, suffix = "leftImg8bit", "leftImg8bit"
    if condition in FOG:
        folder, suffix = "leftImg8bit_foggy", f"leftImg8bit_foggy_beta_{FOG[condition]:g}"
    elif condition == "rain":
        pattern = index % PATTERNS + 1
        folder, suffix = "leftImg8bit_rain", f"leftImg8bit_rain_{RAIN_STRENGTH}_pattern_{pattern}"
    measured = stored_disparity(np.where(drawn.depth < SKY_DEPTH, drawn.depth, np.inf), drawn.camera)
    ids = cv2.LUT(drawn.label, label_ids(space_named("cityscapes-19")))
    centimetres = np.clip(np.rint(drawn.depth * 100), 0, 65535).astype(np.uint16)
    return [
        (out / folder / split / CITY / f"{stem}_{suffix}.png", Image.fromarray(drawn.image)),
        (out / "gtFine" / split / CITY / f"{stem}_gtFine_labelIds.png", Image.fromarray(ids)),
        (out / "gtFine" / split / CITY / f"{stem}_gtFine_labelTrainIds.png", Image.fromarray(drawn.label)),
        (out / "depth" / split / CITY / f"{stem}_depth_cm.png", Image.fromarray(centimetres)),
        (out / "disparity" / split / CITY / f"{stem}_disparity.png", Image.fromarray(measured)),
    ]


def _stem(index: int) -> str:
    return f"{CITY}_000000_{index:06d}"


def _camera_file(camera: Camera) -> dict[str, dict[str, float]]:
    """The content of a camera file, without the parts that say how the camera stands in its car."""
    return {
        "extrinsic": {"baseline": camera.baseline},
        "intrinsic": {"fx": camera.fx, "fy": camera.fx, "u0": camera.u0, "v0": camera.v0},
    }


def write_scenes(split: str, condition: str, count: int, out: Path, size: tuple[int, int]) -> list[Path]:
    """Writes the first `count` scenes of a split below the folder `out`; returns the files, in order."""
    seed, _ = SPLITS[split]
    written: list[Path] = []
    for index in track(range(count), f"drawing {condition} of {split}"):
        drawn = streets.draw(seed, index, condition, size)
        for path, image in _files(out, split, condition, index, drawn):
            with atomic_write(path) as partial:
                try:
                    image.save(partial, format="PNG")
                except OSError as error:
                    raise cannot_write(path, error) from error
            written.append(path)
        camera = out / "camera" / split / CITY / f"{_stem(index)}_camera.json"
        write_text(camera, json.dumps(_camera_file(drawn.camera), indent=2))
        written.append(camera)
    return written
