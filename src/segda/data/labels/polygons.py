"""Labels that are polygons, as Cityscapes and IDD publish them, drawn into a picture of ids.

In the order of the file, later ones over earlier ones, as mcordts/cityscapesScripts `json2labelImg.py` draws them with
Pillow; what none covers is unlabelled. "cargroup" is car: cars that cannot be told apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from segda.data.files.archives import read_bytes
from segda.errors import DataError, ImageError
from segda.ground.safe_yaml import json_values

GROUP = "group"
MEGAPIXELS = 80

FAR = 1e6
"""Pixels: a corner is less far from the picture's; the data sets have some that lie a little outside."""


@dataclass(frozen=True)
class Polygons:
    """Decoder of `_polygons.json`.

    names: (name, id) as the files have them. background: the id of what no polygon covers. left_out: names that are not
    drawn.
    """

    names: tuple[tuple[str, int], ...]
    background: int
    left_out: tuple[str, ...] = ()

    def __call__(self, path: Path) -> np.ndarray:
        """(H, W) uint8 ids. DataError for a file that is no such JSON, or a name that the labelling has not."""
        try:
            told = json_values(read_bytes(path))
            size = int(told["imgWidth"]), int(told["imgHeight"])
            shapes = [
                (str(one["label"]), [(float(x), float(y)) for x, y in one["polygon"]])
                for one in told["objects"]
                if not one.get("deleted")
            ]
            if not all(abs(place) < FAR for _, polygon in shapes for corner in polygon for place in corner):
                raise ValueError("a corner that is nowhere near the picture")
        except FileNotFoundError:
            raise ImageError(f"{path}: no such file; restore it from the data set's download", path) from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            what = f"no polygons as Cityscapes has them ({type(error).__name__}: {error})"
            raise ImageError(f"{path}: {what}; download it again", path) from None
        if min(size) < 1 or size[0] * size[1] > MEGAPIXELS * 1_000_000:
            raise DataError(f"{path}: a picture of {size[0]}x{size[1]} cannot be; download it again")
        known = dict(self.names)
        picture = Image.new("L", size, self.background)
        pen = ImageDraw.Draw(picture)
        for name, polygon in shapes:
            if name not in known and name.endswith(GROUP):
                name = name.removesuffix(GROUP)
            if name in self.left_out or len(polygon) < 3:
                continue
            if name not in known:
                raise DataError(f"{path} has a {name!r}, which its labelling does not name; download it again")
            pen.polygon(polygon, fill=known[name])
        return np.asarray(picture, np.uint8).copy()
