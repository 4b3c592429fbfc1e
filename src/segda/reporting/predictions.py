"""What networks make of any images, written: label maps, pictures, or the archive of a submission to a test server.

Several processes (torchrun) share the images, and write the bytes that one would write, see evaluation/look.py.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from segda.data.files.signed import is_signed
from segda.data.labels.label_ids import label_ids, label_palette
from segda.data.labels.spaces import Space
from segda.data.sets.given import Given, GivenImages, grey_images, images_in, images_of
from segda.data.stream.augment import size_of
from segda.distributed import group
from segda.errors import DataError, RecipeError, RunError, nearest
from segda.evaluation.certainty import labels, labels_and_entropy
from segda.evaluation.look import Eye, Sight, agreed, look
from segda.evaluation.soundness import faults, refuse, refuse_too_small, tell
from segda.evaluation.submission import check_archive, check_names, check_size, server_named, submit
from segda.exporting.exported import load_exported
from segda.exporting.formats import format_of
from segda.ground.alone import first_alone_in
from segda.ground.atomic import atomic_write
from segda.ground.choices import DeviceName, Ids, OnBadImage, PaletteName, PrecisionName, Weights
from segda.ground.hardware import autocast, pick_device, pick_precision
from segda.reporting import legend
from segda.reporting.pictures import OVERLAY, WRITER, coloured, entropy_picture, overlaid, palette_png, png
from segda.reporting.safe_colours import in_safe_colours
from segda.run import data_root, load_network, load_recipe_of
from segda.run_data import space_in
from segda.scene import Scene

log = logging.getLogger(__name__)

TRAIN_IDS = np.arange(256, dtype=np.uint8)


Seen = tuple[Space, Callable[[Path | None], Path], Callable[[], Eye]]
"""The label space of what predicts; where its data sets are, given --root; how it looks, built when it is needed."""


@dataclass(frozen=True)
class Planned:
    """One image and the files that will be written for it: "label", and those of the pictures that were asked
    for.
    """

    image: Given
    files: dict[str, Path]


def drawn(
    sight: Sight, pictures: Sequence[str], space: Space, opacity: float, explained: bool
) -> dict[str, np.ndarray]:
    """The (H, W) train ids of an image as "label", and (H, W, 3) RGB of the pictures, by their names. explained: with
    what their colours mean below them.
    """
    content: dict[str, np.ndarray] = {}
    if "entropy" in pictures:
        label, unsure = labels_and_entropy(sight.views, sight.size)
        content["entropy"] = entropy_picture(unsure.cpu().numpy(), len(space.classes))
    else:
        label = labels(sight.views, sight.size)
    content["label"] = label.cpu().numpy()
    if "colour" in pictures:
        content["colour"] = coloured(content["label"], space)
    if "overlay" in pictures:
        content["overlay"] = overlaid(sight.scene.image.permute(1, 2, 0).numpy(), content["label"], space, opacity)
    if explained:
        entries = {name: legend.of_entropy() if name == "entropy" else legend.of_classes(content["label"], space)
                   for name in pictures}  # fmt: skip
        content |= {name: legend.under(content[name], entries[name]) for name in pictures}
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
            {"label": out / image.below / f"{image.stem}.png"}
            | {name: out / image.below / f"{image.stem}_{name}.png" for name in pictures},
        )
        for image in images
    ]
    # Casefolded: on some systems a.png and A.png are one file.
    owner: dict[str, Given] = {}
    for each in planned:
        for path in each.files.values():
            other = owner.setdefault(str(path).casefold(), each.image)
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


def refuse_others(planned: Sequence[Planned], overwrite: bool) -> None:
    """RunError where a file would be replaced that `segda predict` has not written, unless that is agreed to."""
    there = [path for each in planned for path in each.files.values() if path.exists() and not is_signed(path, WRITER)]
    if there and not overwrite:
        more = f" ({len(there) - 1} more are there)" if len(there) > 1 else ""
        raise RunError(
            f"{there[0]} is there, and segda predict did not write it{more}; use --overwrite to replace it, or another "
            "--out"
        )


@group.joined()
def predict_images(
    run: Path,
    images: Sequence[Path],
    out: Path,
    weights: Weights,
    pictures: Sequence[str],
    device: DeviceName,
    precision: PrecisionName,
    data: str | None,
    root: Path | None,
    ids: Ids | None,
    opacity: float | None,
    palette_name: PaletteName,
    explained: bool,
    submission: str | None,
    overwrite: bool,
    step: int | None,
    on_bad_image: OnBadImage,
) -> list[Path]:
    """`segda predict`, see commands/predict.py; pictures: "colour", "overlay", "entropy", those that are asked for."""

    def ready() -> tuple[Any, ...]:
        check_options(images, data, pictures, ids, opacity, palette_name, explained, submission)
        if on_bad_image == "skip" and submission is not None:
            raise RecipeError("--on-bad-image skip has no place in a submission: its server wants all images")
        space, usual_root, seen = told(run, weights, device, precision, step)
        if palette_name == "safe":
            space = in_safe_colours(space)
        server = None if submission is None else server_named(submission, space)
        codes = (label_palette(), label_ids(space)) if ids == "label" else (space.palette(), TRAIN_IDS)
        every = images_of(images, out) if data is None else images_in(data, usual_root(root))
        planned: list[Planned] = []
        if server is None:
            planned = plan(every, out, pictures)
            refuse_others(planned, overwrite)
        else:
            check_archive(out, overwrite)
            check_names(server, {image.where: image.stem for image in every})
        eye = seen()
        refuse_entropy_of_classes(run, pictures, eye)
        return space, server, codes, every, planned, eye

    space, server, (palette, table), every, planned, eye = group.all_succeed(ready)

    def check(i: int, scene: Scene) -> None:
        size = size_of(scene)
        if server is not None:
            check_size(server, every[i].where, size)
        refuse_too_small(every[i].where, size, eye.network, eye.settings)

    bad = faults(GivenImages(every), check, "read")
    if on_bad_image == "stop" or len(bad) == len(every):
        names = [image.where for image in every]
        group.on_rank_zero(refuse, bad, names, "leave them out with --on-bad-image skip")
    elif bad:
        tell(bad)
        log.warning(f"{len(bad)} of {len(every)} images are left out")
        every = [image for i, image in enumerate(every) if i not in bad]
        planned = [each for i, each in enumerate(planned) if i not in bad]
    for kind, count in grey_images(every).items() if data is None else ():
        log.info(f"{count} images are {kind}, repeated to three channels")
    if server is not None and len(every) != server.images:
        log.info(f"{len(every)} images; the test set of {submission} has {server.images}")

    if server is not None:
        submit(out, server, space, every, eye)
        return [out]

    def write(sight: Sight) -> None:
        content = drawn(sight, pictures, space, OVERLAY if opacity is None else opacity, explained)
        label = table[content.pop("label")]
        written = {"label": palette_png(label, palette)} | {name: png(picture) for name, picture in content.items()}
        for name, path in planned[sight.index].files.items():
            with atomic_write(path) as unfinished:
                unfinished.write_bytes(written[name])

    with first_alone_in([out], "another process writes predictions to {folder}"):
        agreed(look([eye], GivenImages(every), write, title="predict"))
    return [path for each in planned for path in each.files.values()]


def told(run: Path, weights: Weights, device: DeviceName, precision: PrecisionName, step: int | None) -> Seen:
    """Of a run folder, or of an exported file."""
    seer = told_by_file if format_of(run) is not None else told_by_run
    return seer(run, weights, device, precision, step)


def told_by_run(run: Path, weights: Weights, device: DeviceName, precision: PrecisionName, step: int | None) -> Seen:
    """A run folder's network."""
    recipe = load_recipe_of(run)
    where = group.own_device(pick_device(device))
    context = autocast(where, pick_precision(precision, where))
    return (
        space_in(run),
        lambda root: data_root(recipe, root),
        lambda: Eye(load_network(run, weights, where, step), recipe.evaluate, where, context),
    )


def told_by_file(file: Path, weights: Weights, device: DeviceName, precision: PrecisionName, step: int | None) -> Seen:
    """An exported file, which is one network as it is, on the processor. RecipeError for options that choose others."""
    chosen = {"--weights teacher": weights != "student", f"--step {step}": step is not None}
    chosen |= {f"--device {device}": device not in ("auto", "cpu"), f"--precision {precision}": precision != "auto"}
    if idle := [option for option, given in chosen.items() if given]:
        raise RecipeError(f"{idle[0]}: {file} is an exported file, which is as it was exported; give its run folder")
    exported = load_exported(file)
    return (
        exported.about.label_space(),
        lambda root: data_root(None, root),
        lambda: Eye(exported, exported.about.evaluate, torch.device("cpu"), nullcontext()),
    )


def refuse_entropy_of_classes(run: Path, pictures: Sequence[str], eye: Eye) -> None:
    """RecipeError where a picture of the entropy is asked for of an exported file that does not say it."""
    if "entropy" in pictures and getattr(eye.network, "sure", False):
        raise RecipeError(f"--entropy: {run} gives classes alone; export it with --output probabilities")


def check_opacity(opacity: float | None) -> None:
    if opacity is not None and not 0 <= opacity <= 1:
        raise RecipeError(f"--opacity {opacity:g}: give a number from 0 (the image) to 1 (the classes' colours)")


def check_options(
    images: Sequence[Path],
    data: str | None,
    pictures: Sequence[str],
    ids: Ids | None,
    opacity: float | None,
    palette: PaletteName,
    explained: bool,
    submission: str | None,
) -> None:
    """RecipeError for options that exclude each other or have no effect."""
    if bool(images) == (data is not None):
        raise RecipeError(
            "give images or --data NAME:SPLIT, not both" if images else "nothing to predict: give images or --data"
        )
    if ids is not None and ids not in get_args(Ids):
        raise RecipeError(f"--ids {ids}: unknown{nearest(ids, get_args(Ids))}")
    if opacity is not None and "overlay" not in pictures:
        raise RecipeError(f"--opacity {opacity:g} is of the overlay; add --overlay")
    check_opacity(opacity)
    if explained and not pictures:
        raise RecipeError("--legend is of pictures; add --colour, --overlay or --entropy")
    if palette == "safe" and ids == "label":
        raise RecipeError("--palette safe has no colours for Cityscapes' label ids; leave out --ids label")
    if submission is not None and (pictures or ids or palette != "own"):
        option = pictures[0] if pictures else "ids" if ids else "palette"
        raise RecipeError(
            f"--{option} has no place in a submission, which is what {submission} takes; write it in a call of its own"
        )
