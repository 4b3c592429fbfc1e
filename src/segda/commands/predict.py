"""`segda predict`: what a run's network makes of any images, as label maps and as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from segda.data.images import read_image
from segda.errors import DataError, RunError
from segda.evaluation.inference import labels, labels_and_entropy, views
from segda.evaluation.pictures import coloured, entropy_picture, overlaid, palette_png, png
from segda.evaluation.protocol import Weights
from segda.files import whole
from segda.hardware import DeviceName, PrecisionName, autocast, pick_device, pick_precision
from segda.progress import Track, quietly
from segda.run import load_network, load_recipe_of, space_of

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


@dataclass(frozen=True)
class Planned:
    """One image and the files that will be written for it: "label", and those of the pictures that were asked
    for.
    """

    image: Path
    files: dict[str, Path]


def predict(
    run: Path,
    inputs: Sequence[Path],
    out: Path,
    which: Weights = "student",
    colour: bool = False,
    overlay: bool = False,
    entropy: bool = False,
    device: DeviceName = "auto",
    precision: PrecisionName = "auto",
    track: Track = quietly,
) -> list[Path]:
    """Segment images with a run's network; write what it sees to OUT and return the files.

    Inputs are 8-bit RGB images (PNG, JPEG, BMP, WebP) or folders of them. Each image gets a label map
    STEM.png, a palette PNG of the image's size whose values are train ids. On demand also STEM_colour.png
    (the classes' colours), STEM_overlay.png (half image, half colours) and STEM_entropy.png: how unsure the
    network is of each pixel, H / ln C from 0 (certain: dark violet) over 0.5 (blue-green) to 1 (all classes
    equal: yellow), where H is the entropy in nats and C the number of classes. All images are read once
    before anything is written.
    """
    run, out = Path(run), Path(out)
    recipe = load_recipe_of(run)
    space = space_of(recipe)
    where = pick_device(device)
    context = autocast(where, pick_precision(precision, where))
    pictures = [name for name, asked in (("colour", colour), ("overlay", overlay), ("entropy", entropy)) if asked]
    planned = plan(inputs, out, pictures)
    network = load_network(run, which, where)
    for each in track(planned, "read"):
        read_any(each.image)
    for each in track(planned, "predict"):
        image = read_any(each.image)
        seen = views(network, image, recipe.evaluate, where, context)
        size = tuple(image.shape[1:])
        unsure = None
        if entropy:
            label, unsure = labels_and_entropy(seen, size)
        else:
            label = labels(seen, size)
        ids, pixels = label.cpu().numpy(), image.permute(1, 2, 0).numpy()
        content = {"label": palette_png(ids, space)}
        if colour:
            content["colour"] = png(coloured(ids, space))
        if overlay:
            content["overlay"] = png(overlaid(pixels, ids, space))
        if unsure is not None:
            content["entropy"] = png(entropy_picture(unsure.cpu().numpy(), len(space.classes)))
        for name, path in each.files.items():
            with whole(path) as partial:
                partial.write_bytes(content[name])
    return [path for each in planned for path in each.files.values()]


def plan(inputs: Sequence[Path], out: Path, pictures: Sequence[str]) -> list[Planned]:
    """Which files come of which image. Errors, before anything is read, when two would come to the same
    place.
    """
    if out.exists() and not out.is_dir():
        raise RunError(f"{out} is a file; give a folder for the predictions with --out")
    images = list(dict.fromkeys(image for given in inputs for image in _images(Path(given))))
    planned = [
        Planned(
            image,
            {"label": out / f"{image.stem}.png"} | {name: out / f"{image.stem}_{name}.png" for name in pictures},
        )
        for image in images
    ]
    # Casefolded: on some systems a.png and A.png are one file.
    owner: dict[str, Path] = {}
    for each in planned:
        for path in each.files.values():
            other = owner.setdefault(path.name.casefold(), each.image)
            if other != each.image:
                raise DataError(
                    f"{other} and {each.image} would both be written to {path}; predict them into two folders"
                )
    given = {image.resolve() for image in images}
    for each in planned:
        for path in each.files.values():
            if path.resolve() in given:
                raise RunError(f"{path} is one of the images and would be overwritten; choose another --out")
    return planned


def _images(given: Path) -> list[Path]:
    """The file itself, or a folder's images by name (its subfolders and hidden files are left out)."""
    kinds = ", ".join(suffix[1:] for suffix in SUFFIXES)
    if given.is_dir():
        found = sorted(
            path
            for path in given.iterdir()
            if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
        )
        if not found:
            raise DataError(f"{given}: no images in this folder ({kinds}); give files or another folder")
        return found
    if not given.exists():
        raise DataError(f"{given}: no such file or folder; give images ({kinds}) or folders of them")
    if given.suffix.lower() not in SUFFIXES:
        raise DataError(f"{given}: not a kind of image that can be read; use one of {kinds}")
    return [given]


def read_any(path: Path) -> Tensor:
    """(3, H, W) uint8 RGB of a PNG, JPEG, BMP or WebP; DataError for all but whole 8-bit RGB."""
    if path.suffix.lower() not in (".bmp", ".webp"):
        return read_image(path)
    try:
        with Image.open(path, formats=["BMP", "WEBP"]) as picture:
            if picture.mode != "RGB":
                raise DataError(f"{path}: pixels of kind {picture.mode}, where 8-bit RGB is needed; save it as RGB")
            return torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be read ({' '.join(str(error).split())}); copy or save it again") from error
