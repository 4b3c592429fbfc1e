"""Refining a prediction with that of a reference: the same place in better light, fused by how sure each is.

    references   GCMA, MGCDA (Sakaridis et al., ICCV 2019, PAMI 2020): see fusion.py

The reference was taken from somewhere near. Its prediction is used as it is (`alignment: none`), smoothed along the
edges of the picture (`filter`, as GCMA: cross_bilateral.py), or moved to where the picture's camera stood (`geometry`,
as MGCDA: motion.py, warping.py), with the filter where that cannot be told. The numbers lie in refine.yaml with their
sources.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
import yaml
from PIL import Image
from torch import Tensor

from segda.data.files.images import read_disparity
from segda.data.sets.dataset import DataSet
from segda.data.sets.labelled import open_once
from segda.data.sets.pairs import partners, refuse_other_shapes
from segda.errors import DataError, RecipeError, few, nearest
from segda.evaluation.inference import Size, views
from segda.evaluation.look import Eye, Sight
from segda.ground.paths import expanded
from segda.pseudo_labelling.cross_bilateral import cross_bilateral, unit_lab
from segda.pseudo_labelling.fusion import fused, mean_enlarged
from segda.pseudo_labelling.motion import FAR, camera, depth_of, features, matches, motion
from segda.pseudo_labelling.warping import seen_from, warp
from segda.recipes.build import changed, check

Alignment = Literal["none", "filter", "geometry"]

SKY = "sky"
"""The class that is as far as can be, whatever its disparity."""


@dataclass(frozen=True, kw_only=True)
class References:
    """A picture's prediction with that of its reference.

    references: the data set that they are of. pairs: list of which belongs to which; None: the data sets' own rule.
    run: whose network looks at them; None: the same as at the picture.
    alignment: see the module. depth: of `geometry`, the folder of the references' disparities, NAME.png, 16 bits, in
    the reference's size, as monodepth2's stereo_1024x320 model says.
    weight, low, doubt, things: see fusion.fused. space, space_cell, colour, colour_cell: see cross_bilateral.
    """

    references: str
    alignment: Alignment
    weight: float
    low: float
    doubt: float
    things: tuple[str, ...]
    space: float
    space_cell: float
    colour: float
    colour_cell: float
    pairs: Path | None = None
    run: str | None = None
    depth: Path | None = None

    def __post_init__(self) -> None:
        for key in ("weight", "low", "doubt"):
            if not 0 <= (value := getattr(self, key)) <= 1:
                raise RecipeError(f"refine.{key}: {value} is not between 0 and 1")
        for key in ("space", "space_cell", "colour", "colour_cell"):
            if not 0 < (value := getattr(self, key)) < float("inf"):
                raise RecipeError(f"refine.{key}: {value} is not above 0")
        if self.alignment == "geometry" and self.depth is None:
            raise RecipeError(
                "refine.depth: missing; alignment geometry needs the folder of the references' disparities, NAME.png, "
                "or choose alignment filter"
            )
        if self.alignment != "geometry" and self.depth is not None:
            raise RecipeError(f"refine.depth: has no effect with alignment {self.alignment}; remove it")


REFINEMENTS: dict[str, type] = {"references": References}


def refine_spec(refine: str | Mapping[str, Any], changes: Sequence[str] = ()) -> dict[str, Any]:
    """A refinement's name, or a mapping of its name and settings -> all of them; a bare name has the shipped settings.

    changes: "KEY=VALUE", the value in YAML. RecipeError for an unknown refinement or setting.
    """
    text = (files("segda.pseudo_labelling") / "refine.yaml").read_text(encoding="utf-8")
    return check(REFINEMENTS, changed(refine, yaml.safe_load(text), changes, "--refine-set"), "refine", ())


@dataclass(frozen=True)
class Refiner:
    """What is opened for a refinement: the references of a data set's images, and the eye that looks at them.

    partner: (N,) the number of each image's reference. depths: of each reference, where they are needed.
    """

    settings: References
    data: DataSet
    partner: np.ndarray
    depths: tuple[Path, ...]
    eye: Eye
    member: dict[str, Any]

    @property
    def things(self) -> Tensor:
        """(C,) bool: which classes move."""
        return torch.tensor([name in self.settings.things for name in self.data.space.classes])

    def marks(self) -> dict[str, Any]:
        """What its results are made of."""
        pairs = [self.data.names[j] + self.data.image_mark(int(j)) for j in self.partner]
        network = {key: value for key, value in self.member.items() if key != "run"}
        return {"settings": plain(self.settings), "network": network, "references": pairs}

    def refined(self, sight: Sight, covers: Size, size: Size) -> tuple[Tensor, Alignment]:
        """(C, *size) probabilities of an image with its reference, and how that was brought to it."""
        settings, j = self.settings, int(self.partner[sight.index])
        own = mean_enlarged(sight.views, covers, size)
        image = self.data.read(j).image
        eye = self.eye
        seen = views(eye.network, image, eye.settings, eye.device, eye.autocast)
        other = mean_enlarged(seen, covers, size)
        how: Alignment = settings.alignment
        if how == "geometry":
            moved = self._moved(_picture(sight.scene.image), _picture(image), other, j)
            how, other = ("filter", other) if moved is None else ("geometry", moved)
        if how == "filter":
            guide = torch.from_numpy(unit_lab(_resized(_picture(sight.scene.image), size, cv2.INTER_AREA)))
            other = cross_bilateral(
                other, guide.to(other.device), space=settings.space, space_cell=settings.space_cell,
                colour=settings.colour, colour_cell=settings.colour_cell,
            )  # fmt: skip
        both = fused(
            own, other, weight=settings.weight, low=settings.low, doubt=settings.doubt,
            things=self.things.to(own.device),
        )  # fmt: skip
        return both, how

    def _moved(self, picture: np.ndarray, reference: np.ndarray, maps: Tensor, j: int) -> Tensor | None:
        """The maps of a reference, (C, h, w), as the picture's camera sees them; None where its motion is not known."""
        (height, width), (h, w) = reference.shape[:2], maps.shape[1:]
        depth = depth_of(read_disparity(self.depths[j]))
        if SKY in self.data.space.classes:
            sky = (maps.argmax(0) == self.data.space.classes.index(SKY)).cpu().numpy().astype(np.uint8)
            depth[_resized(sky, (height, width), cv2.INTER_NEAREST) > 0] = FAR
        first, one = features(reference)
        second, other = features(picture)
        # At the reference's size, pixels' middles at whole numbers from 1 on.
        scale = np.array([width / picture.shape[1], height / picture.shape[0]])
        second = (second - 0.5) * scale + 0.5
        pairs = matches(one, other)
        found = motion(first[pairs[:, 0]], second[pairs[:, 1]], camera(width, height), depth)
        if found is None:
            return None
        depth = _resized(depth, (h, w), cv2.INTER_NEAREST)
        places, _ = seen_from(depth, camera(w, h), found)
        return torch.from_numpy(warp(places, depth).apply(maps.cpu().numpy())).to(maps.device)


def plain(settings: References) -> dict[str, Any]:
    """As JSON has them."""
    return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(settings).items()} | {
        "things": list(settings.things)
    }


def open_references(settings: References, images: DataSet, root: Path, eye: Eye, member: dict[str, Any]) -> Refiner:
    """What a refinement of the images needs; see refuse_unready for what is checked."""
    data, partner, depths = refuse_unready(settings, images, root)
    return Refiner(settings, data, partner, depths, eye, member)


def refuse_unready(settings: References, images: DataSet, root: Path) -> tuple[DataSet, np.ndarray, tuple[Path, ...]]:
    """The references, the number of each image's, and the files of their depths; opens no picture but for its header.

    RecipeError or DataError, for all at once, where references, or their depths, are missing or do not fit.
    """
    classes = images.space.classes
    for name in settings.things:
        if name not in classes:
            raise RecipeError(f"refine.things: unknown class {name!r}{nearest(name, classes)}")
    data = open_once(settings.references, root, images.space)
    partner = partners(images, data, settings.pairs, "refine", "refine.references")
    refuse_other_shapes(images, data, partner)
    return data, partner, () if settings.depth is None else _depths(expanded(settings.depth), data, partner)


def _depths(folder: Path, data: DataSet, partner: np.ndarray) -> tuple[Path, ...]:
    """The files of the references' disparities; DataError where one that is needed is missing or of another size."""
    found = tuple(folder / f"{name}.png" for name in data.names)
    needed = sorted(set(map(int, partner)))
    if missing := [found[j].name for j in needed if not found[j].is_file()]:
        raise DataError(
            f"{folder}: {len(missing)} of {len(needed)} disparities are missing: {few(missing)}; make them with "
            "monodepth2 from the references, or choose alignment filter"
        )
    for j in needed:
        try:
            with Image.open(found[j], formats=["PNG"]) as picture:
                wide, tall = picture.size
        except (OSError, SyntaxError, ValueError) as error:
            raise DataError(f"{found[j]}: is no PNG ({error}); make it anew") from error
        height, width = data.size(j)
        if (tall, wide) != (height, width):
            raise DataError(
                f"{found[j]} is {wide}x{tall}, but {data.place(j)} is {width}x{height}; save disparities in "
                "the size of the references"
            )
    return found


def _picture(image: Tensor) -> np.ndarray:
    """(3, H, W) uint8 -> (H, W, 3)."""
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy())


def _resized(picture: np.ndarray, size: Size, how: int) -> np.ndarray:
    height, width = size
    return picture if picture.shape[:2] == (height, width) else cv2.resize(picture, (width, height), interpolation=how)
