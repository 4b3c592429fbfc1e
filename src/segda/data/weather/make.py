"""Clear images with disparities in other weather, as files in the layout of Foggy Cityscapes and of Rain Cityscapes.

DIR/leftImg8bit/SPLIT/CITY/KEY_leftImg8bit.png, DIR/disparity/..., DIR/camera/... (see stereo.py)
OUT/leftImg8bit_foggy/SPLIT/CITY/KEY_leftImg8bit_foggy_beta_0.01.png
OUT/leftImg8bit_rain/SPLIT/CITY/KEY_leftImg8bit_rain_alpha_0.01_beta_0.005_dropsize_0.01_pattern_1.png

Disparity, holes filled (more simply than the authors: stereo.py) -> distance of each pixel -> transmittance, refined by
the guided filter -> fog with the light of the air that the clear image has.  Sakaridis, Dai, Van Gool, Semantic Foggy
Scene Understanding with Synthetic Data, IJCV 2018, sec. 3. Rain: rain.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from segda.data.files.images import read_image
from segda.data.weather import rain
from segda.data.weather.fog import GuidedFilter, light_of_air, transmittance, veiled
from segda.data.weather.stereo import Camera, depth_of, distance_of, filled, read_camera, read_disparity
from segda.errors import DataError
from segda.ground.alone import alone_in
from segda.ground.atomic import atomic_write, remove_partial
from segda.ground.pool import Pool
from segda.ground.progress import track

# The numbers of sakaridis/fog_simulation-SFSU_synthetic.
WINDOW = 15  # pixels, of the dark channel
SHARE = 1 / 1000  # of the pixels, brightest in it
RADIUS = 20  # pixels: windows of 41 x 41 for the guided filter
REGULARISATION = 1e-3  # mu of the guided filter, for images in [0, 1]

IMAGES = "leftImg8bit/*/*/*_leftImg8bit.png"

COMPRESSION = 3
"""Of PNG: twice as fast as the usual 6, and a few per cent larger."""


@dataclass(frozen=True)
class Place:
    """A clear image and what belongs to it."""

    folder: Path
    split: str
    city: str
    key: str

    def file(self, folder: str, ending: str) -> Path:
        """The path, in a tree like that of Cityscapes, of a file of this image."""
        return Path(folder, self.split, self.city, f"{self.key}_{ending}")

    @property
    def image(self) -> Path:
        return self.folder / self.file("leftImg8bit", "leftImg8bit.png")

    @property
    def disparity(self) -> Path:
        return self.folder / self.file("disparity", "disparity.png")

    @property
    def camera(self) -> Path:
        return self.folder / self.file("camera", "camera.json")


class ClearView:
    """What weather needs to know of a clear image: image (H, W, 3) in [0, 1], depth (H, W) metres, camera."""

    def __init__(self, image: np.ndarray, depth: np.ndarray, camera: Camera):
        self.image, self.depth, self.camera = image, depth, camera

    @classmethod
    def of(cls, place: Place) -> ClearView:
        """DataError, naming the file, for what cannot be read or does not fit together."""
        image = read_image(place.image).permute(1, 2, 0).numpy()
        camera = read_camera(place.camera)
        disparity = filled(*read_disparity(place.disparity, image.shape[:2]), image)
        return cls(image.astype(np.float32) / 255, depth_of(disparity, camera), camera)

    @cached_property
    def air(self) -> np.ndarray:
        """(3,): the light of the air."""
        return light_of_air(self.image, WINDOW, SHARE)

    @cached_property
    def _filter(self) -> GuidedFilter:
        return GuidedFilter(self.image, RADIUS, REGULARISATION)

    def refined(self, through: np.ndarray) -> np.ndarray:
        """A map in [0, 1] whose edges are those of the image: (H, W) -> (H, W)."""
        return np.clip(self._filter(through), 0, 1)


class Weather(Protocol):
    """One weather of one strength."""

    def file(self, place: Place) -> Path:
        """Where an image in this weather goes, in the tree of OUT."""

    def render(self, view: ClearView) -> np.ndarray:
        """(H, W, 3) in [0, 1]."""


@dataclass(frozen=True)
class Fog:
    """beta: attenuation per metre."""

    beta: float

    def file(self, place: Place) -> Path:
        beta = np.format_float_positional(self.beta, trim="-")
        return place.file("leftImg8bit_foggy", f"leftImg8bit_foggy_beta_{beta}.png")

    def render(self, view: ClearView) -> np.ndarray:
        through = view.refined(transmittance(distance_of(view.depth, view.camera), self.beta))
        return veiled(view.image, through[..., None], view.air)


@dataclass(frozen=True)
class Made:
    """How many images were written, and how many were there before."""

    out: Path
    images: int
    written: int
    there: int
    what: str

    def lines(self) -> list[str]:
        """What to print."""
        return [
            f"{self.out}: {self.written} images written of {self.images} clear ones, {self.there} were there",
            self.what,
        ]


def make(folder: Path, weathers: Sequence[Weather], out: Path, title: str, what: str, workers: int | None) -> Made:
    """Write each clear image of `folder` in each weather below `out`."""
    places = clear_images(folder)
    jobs = Pool(_Make(places, weathers, out), len(places), workers)
    with alone_in(out, "another process makes images in {folder}"):
        remove_partial(out)
        written = sum(track(jobs, title))
    return Made(out, len(places), written, len(places) * len(weathers) - written, what)


def clear_images(folder: Path) -> list[Place]:
    """All clear images of a folder, in order; DataError if there is none, or one without its disparity or camera."""
    found = sorted(folder.glob(IMAGES))
    if not found:
        raise DataError(
            f"{folder}: no images match {IMAGES}; give the folder in which leftImg8bit, disparity and camera lie"
        )
    places = [
        Place(folder, path.parts[-3], path.parts[-2], path.name.removesuffix("_leftImg8bit.png")) for path in found
    ]
    for name in ("disparity", "camera"):
        missing = [getattr(place, name) for place in places if not getattr(place, name).is_file()]
        if missing:
            raise DataError(
                f"{folder}: {len(missing)} of {len(places)} images have no {name}, first {missing[0]}; get "
                f"{name}_trainvaltest.zip of Cityscapes, or remove these images"
            )
    return places


@dataclass(frozen=True)
class _Make:
    """Writes the n-th image in each weather that is not there yet; gives how many."""

    places: Sequence[Place]
    weathers: Sequence[Weather]
    out: Path

    def __call__(self, n: int) -> int:
        place = self.places[n]
        todo = [(weather, path) for weather in self.weathers if not (path := self.out / weather.file(place)).exists()]
        if not todo:
            return 0
        view = ClearView.of(place)
        for weather, path in todo:
            rgb = np.rint(weather.render(view) * 255).astype(np.uint8)
            done, content = cv2.imencode(".png", rgb[..., ::-1], (cv2.IMWRITE_PNG_COMPRESSION, COMPRESSION))
            assert done
            with atomic_write(path) as partial:
                partial.write_bytes(content.tobytes())
        return len(todo)


@dataclass(frozen=True)
class Rain:
    """alpha: attenuation of the streaks per metre, one of rain.STRENGTHS as it is written there. pattern: from 1."""

    alpha: str
    pattern: int

    def file(self, place: Place) -> Path:
        beta, drop = rain.STRENGTHS[self.alpha]
        ending = f"alpha_{self.alpha}_beta_{beta:g}_dropsize_{drop:g}_pattern_{self.pattern}.png"
        return place.file("leftImg8bit_rain", f"leftImg8bit_rain_{ending}")

    def render(self, view: ClearView) -> np.ndarray:
        beta, drop = rain.STRENGTHS[self.alpha]
        haze = 1 - view.refined(transmittance(view.depth, beta))
        strength = view.refined(rain.streak_strength(view.depth, float(self.alpha), drop, view.camera.fx))
        streaks = rain.pattern(view.depth.shape, self.pattern) * strength
        return rain.rained(view.image, streaks[..., None], haze[..., None], view.air)
