"""Drawn street scenes as files in the layout of Cityscapes and of its foggy and rainy versions.

leftImg8bit/SPLIT/drawnburg/drawnburg_000000_000007_leftImg8bit.png            day, dusk, night, snow
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
from typing import Any

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
from segda.errors import RunError
from segda.ground.alone import LOCK, alone_in
from segda.ground.atomic import atomic_write, cannot_write, remove_partial, write_text
from segda.ground.progress import track
from segda.ground.safe_yaml import read_json

CITY = "drawnburg"

SMALLEST = 32
"""Pixels: on a smaller side nothing can be recognised."""

RAIN_STRENGTH = "alpha_0.02_beta_0.01_dropsize_0.005"
"""The middle one of Rain Cityscapes' three strengths; the drawn rain's haze is of that order."""


def _places(out: Path, split: str, condition: str, index: int) -> list[Path]:
    """Where the pictures of one scene go, in the order of `_pictures`, and its camera."""
    stem = f"{CITY}_000000_{index:06d}"
    folder, suffix = "leftImg8bit", "leftImg8bit"
    if condition in FOG:
        folder, suffix = "leftImg8bit_foggy", f"leftImg8bit_foggy_beta_{FOG[condition]:g}"
    elif condition == "rain":
        pattern = index % PATTERNS + 1
        folder, suffix = "leftImg8bit_rain", f"leftImg8bit_rain_{RAIN_STRENGTH}_pattern_{pattern}"
    return [
        out / folder / split / CITY / f"{stem}_{suffix}.png",
        out / "gtFine" / split / CITY / f"{stem}_gtFine_labelIds.png",
        out / "gtFine" / split / CITY / f"{stem}_gtFine_labelTrainIds.png",
        out / "depth" / split / CITY / f"{stem}_depth_cm.png",
        out / "disparity" / split / CITY / f"{stem}_disparity.png",
        out / "camera" / split / CITY / f"{stem}_camera.json",
    ]


def _pictures(drawn: streets.RenderedScene) -> list[Image.Image]:
    """Every picture of one scene."""
    measured = stored_disparity(np.where(drawn.depth < SKY_DEPTH, drawn.depth, np.inf), drawn.camera)
    ids = cv2.LUT(drawn.label, label_ids(space_named("cityscapes-19")))
    centimetres = np.clip(np.rint(drawn.depth * 100), 0, 65535).astype(np.uint16)
    return [*map(Image.fromarray, (drawn.image, ids, drawn.label, centimetres, measured))]


def _camera_file(camera: Camera) -> dict[str, dict[str, float]]:
    """The content of a camera file, without the parts that say how the camera stands in its car."""
    return {
        "extrinsic": {"baseline": camera.baseline},
        "intrinsic": {"fx": camera.fx, "fy": camera.fx, "u0": camera.u0, "v0": camera.v0},
    }


MARK = ".drawing.json"
"""What is drawn into a folder, until all of it is there."""


def _refuse_taken(out: Path, asked: dict[str, Any]) -> None:
    """RunError unless the folder is empty, or holds what an interrupted call for the same has drawn."""
    if not out.exists():
        return
    if not out.is_dir() or ({path.name for path in out.iterdir()} - {LOCK} and not (out / MARK).is_file()):
        raise RunError(f"{out} exists and is not an empty folder; choose another --out")
    try:
        before = read_json(out / MARK) if (out / MARK).is_file() else asked
    except (OSError, ValueError) as error:
        raise RunError(f"{out / MARK} cannot be read ({error}); choose another --out") from error
    if before != asked:
        raise RunError(
            f"{out} holds an interrupted call for something else ({before}); repeat it, or choose another --out"
        )


def write_scenes(split: str, condition: str, count: int, out: Path, size: tuple[int, int]) -> list[Path]:
    """Writes the first `count` scenes of a split below the folder `out`, as far as they are not there; returns the
    files, in order.
    """
    asked = {"split": split, "condition": condition, "count": count, "size": list(size)}
    _refuse_taken(out, asked)
    with alone_in(out, "another process draws to {folder}"):
        _refuse_taken(out, asked)
        remove_partial(out)
        write_text(out / MARK, json.dumps(asked))
        scenes = track(range(count), f"drawing {condition} of {split}")
        written = [path for index in scenes for path in _write_scene(split, condition, index, out, size)]
        try:
            (out / MARK).unlink()
        except OSError as error:
            raise cannot_write(out / MARK, error) from error
    return written


def _write_scene(split: str, condition: str, index: int, out: Path, size: tuple[int, int]) -> list[Path]:
    """The camera comes last: where it is, all of the scene is."""
    *places, camera = _places(out, split, condition, index)
    if not camera.exists():
        drawn = streets.draw(SPLITS[split][0], index, condition, size)
        for path, image in zip(places, _pictures(drawn), strict=True):
            with atomic_write(path) as partial:
                try:
                    image.save(partial, format="PNG")
                except OSError as error:
                    raise cannot_write(path, error) from error
        write_text(camera, json.dumps(_camera_file(drawn.camera), indent=2))
    return [*places, camera]
