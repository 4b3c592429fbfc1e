"""`segda predict`: what a run's network makes of any images, as label maps, as pictures, or as the archive that an
evaluation server takes.

Several processes (torchrun) share the images, and write the bytes that one would write, see evaluation/look.py.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from segda.data.labels.label_ids import label_ids, label_palette
from segda.data.sets.given import GivenImages, images_in, images_of
from segda.distributed import group
from segda.errors import RecipeError, nearest
from segda.evaluation.look import Eye, Sight, agreed, look
from segda.evaluation.submission import check_archive, check_names, check_size, server_named, submit
from segda.ground.atomic import atomic_write
from segda.ground.choices import DeviceName, Ids, PrecisionName, Weights
from segda.ground.hardware import autocast, pick_device, pick_precision
from segda.reporting.pictures import OVERLAY, palette_png, png
from segda.reporting.predictions import TRAIN_IDS, Planned, drawn, plan
from segda.run import data_root, load_network, load_recipe_of, space_of

log = logging.getLogger(__name__)


@group.joined()
def predict(
    run: Path,
    inputs: Sequence[Path],
    out: Path,
    weights: Weights = "student",
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
    step: int | None = None,
) -> list[Path]:
    """Segment images with a run's network; write what it sees to OUT and return the files.

    Inputs are 8-bit RGB images (PNG, JPEG, BMP, WebP) or folders of them; or, with `data`, they are a data set's, of
    which no label is needed. Each image gets a label map STEM.png, a palette PNG of the image's size whose values are
    train ids or, with ids: label, those of Cityscapes' label files (7 road, ...). On demand also STEM_colour.png (the
    classes' colours), STEM_overlay.png (these over the image, half of each or with `opacity` from 0 to 1) and
    STEM_entropy.png: how unsure the network is of each pixel, H / ln C from 0 (certain: dark violet) over 0.5
    (blue-green) to 1 (all classes equal: yellow), where H is the entropy in nats and C the number of classes.

    submission: instead of all that, OUT becomes the zip that an evaluation server takes, a row of submission.SERVERS.

    weights, step: the student or the teacher, the last or the one after that step (recipe key keep_every).

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
        network = load_network(run, weights, where, step)
        return space, server, codes, images, planned, Eye(network, recipe.evaluate, where, context)

    space, server, (palette, table), images, planned, eye = group.all_succeed(ready)

    def check(sight: Sight) -> None:
        if server is not None:
            check_size(server, images[sight.index].where, sight.size)

    agreed(look([], GivenImages(images), check, title="read"))
    if server is not None and len(images) != server.images:
        log.info(f"{len(images)} images; the test set of {submission} has {server.images}")

    if server is not None:
        submit(out, server, space, images, eye)
        return [out]

    def write(sight: Sight) -> None:
        content = drawn(sight, pictures, space, OVERLAY if opacity is None else opacity)
        label = table[content.pop("label")]
        written = {"label": palette_png(label, palette)} | {name: png(picture) for name, picture in content.items()}
        for name, path in planned[sight.index].files.items():
            with atomic_write(path) as unfinished:
                unfinished.write_bytes(written[name])

    agreed(look([eye], GivenImages(images), write, title="predict"))
    return [path for each in planned for path in each.files.values()]


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
