"""`segda predict`: what a run's network makes of any images, as label maps, as pictures, or as the archive that an
evaluation server takes.

Several processes (torchrun) share the images, and write the bytes that one would write, see evaluation/look.py.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from segda.data.files.images import MEGAPIXELS, read_image
from segda.data.labels.spaces import Space
from segda.data.sets.datasets import DataSet, check_shown, open_data
from segda.distributed import group
from segda.errors import DataError, RecipeError, RunError, nearest
from segda.evaluation.inference import View, labels, labels_and_confidence, labels_and_entropy, views
from segda.evaluation.look import ahead
from segda.evaluation.protocol import Weights
from segda.evaluation.submission import (
    Content,
    Ids,
    Parts,
    Server,
    check_archive,
    check_names,
    check_size,
    label_ids,
    label_palette,
    server_named,
    submitted,
    write_archive,
)
from segda.ground.atomic import atomic_write
from segda.ground.hardware import DeviceName, PrecisionName, autocast, pick_device, pick_precision
from segda.ground.progress import track
from segda.reporting.pictures import OVERLAY, coloured, entropy_picture, overlaid, palette_png, png
from segda.run import data_root, load_network, load_recipe_of, space_of

log = logging.getLogger(__name__)

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")

TRAIN_IDS = np.arange(256, dtype=np.uint8)


@dataclass(frozen=True)
class Given:
    """An image to predict: its name without suffix, what to call it in a message, and how to read it.

    path: its file; None for a drawn one.
    """

    stem: str
    where: str
    path: Path | None
    read: Callable[[], Tensor]


@dataclass(frozen=True)
class Planned:
    """One image and the files that will be written for it: "label", and those of the pictures that were asked
    for.
    """

    image: Given
    files: dict[str, Path]


@group.joined()
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
    *,
    data: str | None = None,
    root: Path | None = None,
    ids: Ids | None = None,
    opacity: float | None = None,
    submission: str | None = None,
) -> list[Path]:
    """Segment images with a run's network; write what it sees to OUT and return the files.

    Inputs are 8-bit RGB images (PNG, JPEG, BMP, WebP) or folders of them; or, with `data`, they are a data set's, of
    which no label is needed. Each image gets a label map STEM.png, a palette PNG of the image's size whose values are
    train ids or, with ids: label, those of Cityscapes' label files (7 road, ...). On demand also STEM_colour.png (the
    classes' colours), STEM_overlay.png (these over the image, half of each or with `opacity` from 0 to 1) and
    STEM_entropy.png: how unsure the network is of each pixel, H / ln C from 0 (certain: dark violet) over 0.5
    (blue-green) to 1 (all classes equal: yellow), where H is the entropy in nats and C the number of classes.

    submission: instead of all that, OUT becomes the zip that an evaluation server takes, a row of export.SERVERS.

    All images are read once before anything is written.
    """
    run, out = Path(run), Path(out)
    pictures = [name for name, asked in (("colour", colour), ("overlay", overlay), ("entropy", entropy)) if asked]

    def ready() -> tuple[Any, ...]:
        recipe = load_recipe_of(run)
        space = space_of(recipe)
        check_options(inputs, data, pictures, ids, opacity, submission)
        server = None if submission is None else server_named(submission, space)
        codes = (label_palette(), label_ids(space)) if ids == "label" else (space.palette(), TRAIN_IDS)
        where = group.own_device(pick_device(device))
        context = autocast(where, pick_precision(precision, where))
        images = images_of(inputs) if data is None else images_in(data, data_root(recipe, root))
        planned: list[Planned] = []
        if server is None:
            planned = plan(images, out, pictures)
        else:
            check_archive(out)
            check_names(server, {image.where: image.stem for image in images})
        network = load_network(run, which, where)
        return (
            space,
            server,
            codes,
            images,
            planned,
            lambda image: views(network, image, recipe.evaluate, where, context),
        )

    space, server, (palette, table), images, planned, look = group.all_succeed(ready)
    own = group.own_share(range(len(images)))

    def read() -> None:
        sizes = ahead(lambda i: tuple(images[i].read().shape[1:]), own)
        for i, size in zip(track(own, "read"), sizes, strict=True):
            if server is not None:
                check_size(server, images[i].where, size)

    group.all_succeed(read)
    if server is not None and len(images) != server.images:
        log.info(f"{len(images)} images; the test set of {submission} has {server.images}")

    def seen() -> Iterator[tuple[int, Tensor, list[View]]]:
        """This process's images by their numbers, their pixels, and what the network says of them."""
        for i, pixels in zip(track(own, "predict"), ahead(lambda i: images[i].read(), own), strict=True):
            yield i, pixels, look(pixels)

    if server is not None:
        submit(out, server, space, images, seen())
        return [out]

    def write() -> None:
        for i, pixels, found in seen():
            content = drawn(pixels, found, pictures, space, OVERLAY if opacity is None else opacity)
            label = table[content.pop("label")]
            written = {"label": palette_png(label, palette)} | {name: png(picture) for name, picture in content.items()}
            for name, path in planned[i].files.items():
                with atomic_write(path) as unfinished:
                    unfinished.write_bytes(written[name])

    group.all_succeed(write)
    return [path for each in planned for path in each.files.values()]


def submit(
    out: Path, server: Server, space: Space, images: Sequence[Given], seen: Iterable[tuple[int, Tensor, list[View]]]
) -> None:
    """The zip of a submission, whole or not at all, of the processes' predictions of their own images."""

    def made() -> Iterator[tuple[int, dict[Content, bytes]]]:
        for i, pixels, found in seen:
            size = tuple(pixels.shape[1:])
            if server.confident:
                label, confidence = (each.cpu().numpy() for each in labels_and_confidence(found, size))
                yield i, submitted(server, space, label, confidence)
            else:
                yield i, submitted(server, space, labels(found, size).cpu().numpy())

    if group.world() == 1:
        write_archive(out, server, ((images[i].stem, content) for i, content in made()))
        return
    parts = Parts(out, server)

    def write() -> None:
        for i, content in made():
            parts.write(i, content)

    group.on_rank_zero(parts.begin)
    try:
        group.all_succeed(write)
        every = ((image.stem, parts.read(i)) for i, image in enumerate(images))
        group.on_rank_zero(write_archive, out, server, every)
    finally:
        if group.rank() == 0:
            parts.remove()


def check_options(
    inputs: Sequence[Path],
    data: str | None,
    pictures: Sequence[str],
    ids: Ids | None,
    opacity: float | None,
    submission: str | None,
) -> None:
    """RecipeError for options that exclude each other or have no effect."""
    if bool(inputs) == (data is not None):
        raise RecipeError(
            "give images or --data NAME:SPLIT, not both" if inputs else "nothing to predict: give images or --data"
        )
    if ids is not None and ids not in get_args(Ids):
        raise RecipeError(f"--ids {ids}: unknown{nearest(ids, get_args(Ids))}")
    if opacity is not None and "overlay" not in pictures:
        raise RecipeError(f"--opacity {opacity:g} is of the overlay; add --overlay")
    if opacity is not None and not 0 <= opacity <= 1:
        raise RecipeError(f"--opacity {opacity:g}: give a number from 0 (the image) to 1 (the classes' colours)")
    if submission is not None and (pictures or ids):
        option = pictures[0] if pictures else "ids"
        raise RecipeError(
            f"--{option} has no place in a submission, which is what {submission} takes; write it in a call of its own"
        )


def drawn(
    pixels: Tensor, found: Sequence[View], pictures: Sequence[str], space: Space, opacity: float
) -> dict[str, np.ndarray]:
    """The (H, W) train ids of an image as "label", and (H, W, 3) RGB of the pictures, by their names."""
    size, content = tuple(pixels.shape[1:]), {}
    if "entropy" in pictures:
        label, unsure = labels_and_entropy(found, size)
        content["entropy"] = entropy_picture(unsure.cpu().numpy(), len(space.classes))
    else:
        label = labels(found, size)
    content["label"] = label.cpu().numpy()
    if "colour" in pictures:
        content["colour"] = coloured(content["label"], space)
    if "overlay" in pictures:
        content["overlay"] = overlaid(pixels.permute(1, 2, 0).numpy(), content["label"], space, opacity)
    return content


def plan(images: Sequence[Given], out: Path, pictures: Sequence[str]) -> list[Planned]:
    """Which files come of which image. Errors, before anything is read, when two would come to the same
    place.
    """
    if out.exists() and not out.is_dir():
        raise RunError(f"{out} is a file; give a folder for the predictions with --out")
    if out.suffix.lower() == ".zip":
        raise RunError(f"{out}: predictions go to a folder; an archive is made with --submission")
    planned = [
        Planned(
            image,
            {"label": out / f"{image.stem}.png"} | {name: out / f"{image.stem}_{name}.png" for name in pictures},
        )
        for image in images
    ]
    # Casefolded: on some systems a.png and A.png are one file.
    owner: dict[str, Given] = {}
    for each in planned:
        for path in each.files.values():
            other = owner.setdefault(path.name.casefold(), each.image)
            if other != each.image:
                raise DataError(
                    f"{other.where} and {each.image.where} would both be written to {path}; predict them into two "
                    "folders"
                )
    given = {image.path.resolve() for image in images if image.path is not None}
    for each in planned:
        for path in each.files.values():
            if path.resolve() in given:
                raise RunError(f"{path} is one of the images and would be overwritten; choose another --out")
    return planned


def images_of(inputs: Sequence[Path]) -> list[Given]:
    """Files, and the images of folders, each once."""
    paths = dict.fromkeys(image for given in inputs for image in _images(Path(given)))
    for path in paths:
        check_shown(path.stem, str(path))
    return [Given(path.stem, str(path), path, partial(read_any, path)) for path in paths]


def images_in(data: str, root: Path) -> list[Given]:
    """The images of a data set, in its order; its labels are not looked for."""
    dataset = open_data(data, root)
    if dataset.shares is not None:
        raise RecipeError(f"{data}: weights say how often images are drawn in training; leave them out here")
    found = []
    for part in dataset.parts:
        for i, name in enumerate(part.names):
            path = None if part.row.rendered else part.image_path(i)
            where = f"{part.spec} {name}" if path is None else str(path)
            found.append(Given(name, where, path, partial(_image, part, i)))
    return found


def _image(dataset: DataSet, i: int) -> Tensor:
    return dataset.read(i).image


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
        # Pillow's own limit is a warning first; ours is said below.
        ours = warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning)
        with ours, Image.open(path, formats=["BMP", "WEBP"]) as picture:
            if picture.height * picture.width > MEGAPIXELS * 1_000_000:
                size = f"{picture.width}x{picture.height}"
                raise DataError(f"{path}: {size} is more than {MEGAPIXELS} megapixels; cut the picture into tiles")
            if picture.mode != "RGB":
                raise DataError(f"{path}: pixels of kind {picture.mode}, where 8-bit RGB is needed; save it as RGB")
            return torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be read ({' '.join(str(error).split())}); copy or save it again") from error
