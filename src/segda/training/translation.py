"""Translating a data set's images with what a training of a translator made: `segda translate`, and stages that do.

    OUT/images/00001.png     each image at the path that its original has in its data set, so that training takes OUT as
                             the images of a source (data.source.images)
    OUT/translation.json     how they were made: data, direction, network; from the beginning, and whether all is there
    OUT/contact_sheet.jpg    some of them, before and after

An image is brought to the size that the translator saw in training, but is not cropped; with `--enlarge` what is
painted is brought to the original's size again (enlarging.py). Each image is written whole or not at all, so a call
that was cut short goes on with those that are not there. Several processes share them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from segda.data.files.images import read_image
from segda.data.sets.dataset import DataSet
from segda.data.sets.labelled import open_once
from segda.data.sets.specs import kinds_of
from segda.data.sets.translated import SUMMARY, image_names, read_summary
from segda.data.stream.augment import resize, same_shape, scaled_size, size_of
from segda.data.stream.settings import Augment
from segda.distributed import group
from segda.errors import RecipeError, RunError
from segda.evaluation.look import Sight, agreed, look
from segda.ground.alone import LOCK, first_alone_in
from segda.ground.atomic import atomic_write, cannot_write, is_partial, remove_partial, write_text
from segda.ground.choices import DeviceName, Domain, PrecisionName
from segda.ground.hardware import autocast, pick_device, pick_precision
from segda.ground.paths import sha256_of
from segda.networks.translator import translated
from segda.recipes.build import build
from segda.recipes.facts import method_class
from segda.recipes.recipe import Recipe
from segda.reporting.contact_sheet import translations_sheet
from segda.run import data_root, load_recipe_of, network_path, step_of
from segda.run_data import fingerprint
from segda.scene import Scene
from segda.training.assembly import load_product
from segda.training.enlarging import ENLARGEMENTS, Joint, enlarge_spec, is_larger

log = logging.getLogger(__name__)

SHEET = "contact_sheet.jpg"
SHEET_IMAGES = 8

PRODUCTS: dict[Domain, str] = {"target": "translator", "source": "translator_back"}
"""The domain that images are to look like -> the product that paints it."""

MARKS = ("data", "to", "network", "input", "precision", "enlarge")
"""Of the summary: what the images depend on."""

COMPRESSION, QUALITY = 3, 95
"""Of PNG: twice as fast as the usual 6, and a few per cent larger. Of JPEG."""


@dataclass(frozen=True)
class Job:
    """All that is known before the first image is decoded. names: of the images to write, below `out`."""

    out: Path
    data: DataSet
    names: list[str]
    generator: nn.Module
    seen: Augment
    device: torch.device
    casting: AbstractContextManager
    enlargement: Joint | None
    facts: dict[str, Any]

    def due(self) -> list[int]:
        """The images that are not there yet."""
        return [i for i, name in enumerate(self.names) if not (self.out / name).is_file()]

    def painted(self, image: Tensor) -> np.ndarray:
        """(3, H, W) uint8 RGB -> (h, w, 3) uint8 RGB, of the size that the translator was trained at; enlarged, and of
        one that was trained on stretched images, of the image's own size, as a later training wants the same shape.
        """
        size = size_of(Scene(image))
        height, width = scaled_size(size, self.seen.resize, self.seen.shape)
        small = resize(Scene(image), (width, height), "stretch", self.seen.kernel).image
        with torch.no_grad(), self.casting:
            pixels = translated(self.generator, small[None].to(self.device).float() / 255)[0].float()
        if not torch.isfinite(pixels).all():
            raise RunError(
                f"{self.facts['network']['run']}: what it paints is not finite; use --precision 32, or a run whose "
                "training stayed finite"
            )
        found = Scene((pixels * 255).round().clamp(0, 255).byte().cpu())
        if self.enlargement is not None and is_larger(size, (height, width)):
            return self.enlargement.enlarged(pixels_of(found.image), np.ascontiguousarray(pixels_of(image)))
        if not same_shape((height, width), size):
            found = resize(found, size[::-1], "stretch", "bicubic")
        return pixels_of(found.image)


def make_job(
    run: Path,
    data: str,
    out: Path,
    to: Domain,
    root: Path | None,
    step: int | None,
    device: DeviceName,
    precision: PrecisionName,
    enlarge: str | Mapping[str, Any] | None = None,
    enlarge_settings: Sequence[str] = (),
) -> Job:
    """Checks and loads everything, the cheap things first; writes nothing."""
    if to not in PRODUCTS:
        raise RecipeError(f"--to {to}: images can be made to look like the {' or the '.join(PRODUCTS)}; write one")
    spec = _enlargement(enlarge, enlarge_settings)
    recipe, product = load_recipe_of(run), PRODUCTS[to]
    if PRODUCTS["target"] not in method_class(recipe.method).products:
        raise RunError(
            f"{run}: method {recipe.method['name']} trains no translator; give a run of one that does, as cyclegan"
        )
    _refuse_other_way(run, recipe, data, to)
    path = network_path(run, product, step)
    opened = open_once(data, data_root(recipe, root))
    names = [name for part in opened.parts for name in image_names(part)]
    if len(set(names)) < len(names):
        raise RecipeError(f"{data}: two of its images would be written to one file; translate one data set at a time")
    where = group.own_device(pick_device(device))
    dtype = pick_precision(precision, where)
    domain = recipe.data.source if to == "target" else recipe.data.target
    assert domain is not None, "refused with the recipe"
    seen = domain.augment
    sizes = (opened.size(i) for i in range(len(opened)))
    if spec is not None and not any(is_larger(size, scaled_size(size, seen.resize, seen.shape)) for size in sizes):
        raise RecipeError(
            f"--enlarge: has no effect: {run} paints the images of {data} in their own size; leave it out"
        )
    facts = {
        "data": {"spec": data, **fingerprint(opened)},
        "to": to,
        "network": {
            "run": str(run),
            "step": step_of(run, product) if step is None else step,
            "sha256": sha256_of(path),
        },
        "input": seen.model_dump(mode="json", include={"resize", "shape", "kernel"}),
        "precision": str(dtype).removeprefix("torch."),
        "enlarge": spec,
    }
    generator = load_product(run, product, where, step)
    enlargement = None if spec is None else build(ENLARGEMENTS, spec, "enlarge")
    return Job(out, opened, names, generator, seen, where, autocast(where, dtype), enlargement, facts)


def _enlargement(enlarge: str | Mapping[str, Any] | None, settings: Sequence[str]) -> dict[str, Any] | None:
    if enlarge is None:
        if settings:
            raise RecipeError(f"--enlarge-set {settings[0]}: has no effect without --enlarge; remove it")
        return None
    spec = enlarge_spec(enlarge, settings)
    build(ENLARGEMENTS, spec, "enlarge")  # also looks at its values
    return spec


def _refuse_other_way(run: Path, recipe: Recipe, data: str, to: Domain) -> None:
    """RecipeError for images that look already as they are to look."""
    assert recipe.data.source is not None, "refused with the recipe"
    source, target = (kinds_of(domain.set) for domain in (recipe.data.source, recipe.data.target))
    given, other, back = (target, source, "source") if to == "target" else (source, target, "target")
    if kinds_of(data) == given != other:
        raise RecipeError(
            f"{data} is of the {to}, and so is what {run} would make of it; --to {back} translates it the other way"
        )


def translate_images(job: Callable[[], Job], *, overwrite: bool) -> dict[str, Any]:
    """Does the whole job, with the other processes; returns its summary. `job` checks and loads, see make_job."""
    with group.joined():
        made = group.all_succeed(job)
        group.on_rank_zero(refuse_strange, made.out)
        with first_alone_in([made.out], "another process translates images to {folder}"):
            group.on_rank_zero(prepare, made, overwrite)
            due = group.from_rank_zero(made.due)

            def write(sight: Sight) -> None:
                write_image(made.out / made.names[sight.index], made.painted(sight.scene.image))

            agreed(look([], made.data, write, title=f"translating {made.data.spec}", indices=due))
            return group.from_rank_zero(lambda: finish(made))


def refuse_strange(out: Path) -> None:
    """RunError where OUT holds something else than translated images, or is a file."""
    if out.exists() and not out.is_dir():
        raise RunError(f"{out} is a file; give a folder for the images with --out")
    strange = out.exists() and not (out / SUMMARY).exists()
    if strange and any(path.name != LOCK and not is_partial(path) for path in out.iterdir()):
        raise RunError(f"{out} exists and is not a folder of translated images; choose another --out")


def prepare(job: Job, overwrite: bool) -> None:
    """Makes OUT ready for images, or refuses it."""
    if (job.out / SUMMARY).exists():
        before = read_summary(job.out)
        if before["data"] != job.facts["data"]:
            theirs = before["data"].get("spec")
            other = theirs if theirs != job.facts["data"]["spec"] else f"other files of {theirs}"
            raise RunError(f"{job.out} holds images translated of {other}; choose another --out")
        if (changed := differing(before, job.facts)) and not overwrite:
            raise RunError(
                f"{job.out} holds images that were translated with other {', '.join(changed)}; use --overwrite to make "
                "them anew, or another --out"
            )
        if overwrite:
            _remove(job)
    remove_partial(job.out)
    write_text(job.out / SUMMARY, json.dumps(job.facts | {"finished": False}, indent=1) + "\n")


def _remove(job: Job) -> None:
    try:
        for name in (*job.names, SHEET):
            (job.out / name).unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(job.out, error) from error


def differing(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The marks in which two summaries differ; where a run lies is none."""
    ours, theirs = ({**one, "network": one["network"].get("sha256")} for one in (before, now))
    return [key for key in MARKS if ours.get(key) != theirs.get(key)]


def write_image(path: Path, rgb: np.ndarray) -> None:
    """(H, W, 3) uint8 as a PNG or JPEG, by the path's ending."""
    options = (cv2.IMWRITE_PNG_COMPRESSION, COMPRESSION)
    if path.suffix.lower() != ".png":
        options = (cv2.IMWRITE_JPEG_QUALITY, QUALITY)
    done, content = cv2.imencode(path.suffix.lower(), np.ascontiguousarray(rgb[..., ::-1]), options)
    assert done
    with atomic_write(path) as partial:
        partial.write_bytes(content.tobytes())


def pixels_of(image: Tensor) -> np.ndarray:
    """(3, H, W) -> (H, W, 3)."""
    return image.permute(1, 2, 0).numpy()


def finish(job: Job) -> dict[str, Any]:
    """The contact sheet, and the summary that says that all is there."""
    count = len(job.data)
    pairs = []
    for i in np.linspace(0, count - 1, min(SHEET_IMAGES, count)).astype(int):
        before, after = job.data.read(i), read_image(job.out / job.names[i])
        pairs.append((before.names[0], pixels_of(before.image), pixels_of(after)))
    with atomic_write(job.out / SHEET) as partial:
        title = f"{job.data.spec}: {count} images, translated to look like the {job.facts['to']}"
        translations_sheet(pairs, title).save(partial, "JPEG", quality=90)
    summary = job.facts | {"finished": True}
    write_text(job.out / SUMMARY, json.dumps(summary, indent=1) + "\n")
    return summary
