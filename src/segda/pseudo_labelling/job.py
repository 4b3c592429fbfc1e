"""A job of pseudo-labelling: what is checked and loaded before it, the folder that it goes on in, and how it ends."""

from __future__ import annotations

import json
import logging
import shutil
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from segda.data.files.images import read_ids
from segda.data.files.scratch import Scratch
from segda.data.files.signed import is_signed
from segda.data.labels.pseudo_labels import SHEET, SUMMARY, WRITER, write_summary
from segda.data.sets.dataset import DataSet
from segda.data.sets.labelled import open_once
from segda.data.stream.augment import scaled_size
from segda.distributed import group
from segda.errors import RecipeError, RunError, visible
from segda.evaluation.look import Eye
from segda.ground.alone import LOCK, first_alone_in
from segda.ground.atomic import atomic_write, cannot_write, remove_partial, write_text
from segda.ground.choices import DeviceName, PrecisionName, Weights
from segda.ground.hardware import autocast, pick_device, pick_precision
from segda.ground.paths import sha256_of
from segda.ground.safe_yaml import read_json
from segda.pseudo_labelling.label import Job, compare_with_truth, predict, write_labels
from segda.pseudo_labelling.refine import REFINEMENTS, References, open_references, refine_spec
from segda.pseudo_labelling.rules import RULES, rule_spec
from segda.recipes.build import build
from segda.recipes.recipe import Recipe
from segda.reporting.contact_sheet import Labelled, pseudo_labels_sheet
from segda.reporting.tables import percent
from segda.run import data_root, load_network, load_recipe_of, network_path, refuse_twice, step_of
from segda.run_data import measured_on, space_in

log = logging.getLogger(__name__)

SHEET_IMAGES = 8

MARKS = "made-of.json"
"""Beside the scratch files: what they are made of."""

LOOK = {"kernel", "how", "window", "stride", "scales", "flip"}
"""Of `evaluate`: what a network's own prediction depends on, besides the labels' size."""


def make_job(
    runs: list[Path],
    data: str,
    rule: str | Mapping[str, Any],
    out: Path,
    settings: Sequence[str],
    root: Path | None,
    weights: Weights,
    step: int | None,
    device: DeviceName,
    precision: PrecisionName,
    score: bool,
    box: tuple[int, int] | None = None,
    refine: str | Mapping[str, Any] | None = None,
    refine_settings: Sequence[str] = (),
) -> Job:
    """Checks and loads everything, the cheap things first; writes nothing. box: (width, height) that images are brought
    to, and the labels' size; None: the runs' evaluate.resize.
    """
    spec = rule_spec(rule, settings)
    refinement = _refinement(refine, refine_settings)
    chosen = build(RULES, spec, "rule")
    if not runs:
        raise RecipeError("no RUN: give the folder of at least one trained run")
    refuse_twice(runs)
    recipes = [_brought_to(load_recipe_of(run), box) for run in runs]
    first = recipes[0]
    looks = [*runs]
    if refinement is not None and refinement.run is not None:
        looks.append(Path(refinement.run))
        recipes.append(_brought_to(load_recipe_of(looks[-1]), box))
    for run, recipe in zip(looks, recipes, strict=True):
        if space_in(run).classes != space_in(runs[0]).classes:
            raise RecipeError(f"{run} and {runs[0]} predict different classes; use runs of one label space")
        for key in ("resize", "shape"):
            one, other = getattr(recipe.evaluate, key), getattr(first.evaluate, key)
            if one != other:
                raise RecipeError(
                    f"{run} and {runs[0]} differ in evaluate.{key} ({one!r} and {other!r}), so the labels have no one "
                    "size; use runs that agree in it"
                )
    where = group.own_device(pick_device(device))
    dtype = pick_precision(precision, where)
    root = data_root(first, root)
    opened = measured_on(runs[0], data, root) if score else open_once(data, root, space_in(runs[0]))
    look = first.evaluate
    sizes = [scaled_size(opened.size(i), look.resize, look.shape) for i in range(len(opened))]
    eyes, members = [], []
    for run, recipe in zip(looks, recipes, strict=True):
        # A step is of the runs that label, not of the one that looks at references.
        at = step if run in runs else None
        eyes.append(Eye(load_network(run, weights, where, at), recipe.evaluate, where, autocast(where, dtype)))
        digest = sha256_of(network_path(run, weights, at))
        own = recipe.evaluate.model_dump(mode="json", include=LOOK)
        at = step_of(run, weights) if at is None else at
        members.append({"run": str(run), "weights": weights, "step": at, "sha256": digest, **own})
    count = len(runs)
    refiner = None if refinement is None else open_references(refinement, opened, root, eyes[-1], members[-1])
    scratch = Scratch(out / ".scratch", [part_name(opened, i) for i in range(len(opened))], sizes)
    return Job(out, opened, spec, chosen, eyes[:count], members[:count], dtype, scratch, refiner)


def _refinement(refine: str | Mapping[str, Any] | None, settings: Sequence[str]) -> References | None:
    if refine is None:
        if settings:
            raise RecipeError(f"--refine-set {settings[0]}: has no effect without --refine; remove it")
        return None
    return build(REFINEMENTS, refine_spec(refine, settings), "refine")


def _brought_to(recipe: Recipe, box: tuple[int, int] | None) -> Recipe:
    """The recipe with another `evaluate.resize`, if there is one."""
    if box is None:
        return recipe
    return recipe.model_copy(update={"evaluate": recipe.evaluate.model_copy(update={"resize": box})})


def part_name(dataset: DataSet, i: int) -> str:
    """Of an image's scratch file: another one when the image has been changed."""
    mark = dataset.image_mark(i)
    return f"{i:06d}-{zlib.crc32(mark.encode()):08x}" if mark else f"{i:06d}"


def refuse_strange(job: Job) -> None:
    """RunError where OUT holds something else than labels, or is a file."""
    out = job.out
    if out.exists() and not out.is_dir():
        raise RunError(f"{out} is a file; give a folder for the labels with --out")
    ours = (out / SUMMARY).exists() or job.scratch.folder.exists() or not out.exists()
    if not ours and any(path.name != LOCK for path in out.iterdir()):
        raise RunError(f"{out} exists and is not a folder of pseudo-labels; choose another --out")


def prepare(job: Job, overwrite: bool) -> None:
    """Makes OUT ready for labels, or refuses it; says how much disk the scratch files need, and whether it is there."""
    out, folder, marks = job.out, job.scratch.folder, job.marks()
    finished, begun = (out / SUMMARY).exists(), (folder / MARKS).exists()
    if finished and not overwrite:
        raise RunError(f"{out} already holds pseudo-labels; use --overwrite to make them anew, or another --out")
    if begun and not overwrite:
        try:
            before = dict(read_json(folder / MARKS))
        except (OSError, ValueError, TypeError) as error:
            raise RunError(f"{folder / MARKS} cannot be read ({error}); use --overwrite to begin anew") from error
        changed = [key for key in marks if before.get(key) != marks[key]]
        if changed:
            raise RunError(
                f"{out} holds an interrupted call with other {', '.join(changed)}; repeat that call to go on with it, "
                "use --overwrite to begin anew, or another --out"
            )
    fresh = overwrite or not begun
    count = len(job.dataset)
    missing = [i for i in range(count) if fresh or not job.scratch.has(i)]
    needed = sum(map(job.scratch.bytes, missing))
    free = _free(out) + (sum(path.stat().st_size for path in folder.glob("*.part")) if fresh else 0)
    log.info(
        f"{count} images of {job.dataset.spec}: scratch files of {_size(needed)} in {folder}, removed at the end; "
        f"{_size(free)} are free"
    )
    if needed + sum(height * width for height, width in job.scratch.sizes) > free:
        raise RunError(f"{out}: the disk has no room for that and the labels; free space, or choose another --out")
    remove_partial(out)
    if not fresh:
        log.info(f"going on: {count - len(missing)} of {count} images are there")
        return
    try:
        (out / SUMMARY).unlink(missing_ok=True)
        own = {f"{name}.png" for name in job.dataset.names}
        for path in (*(path for path in out.glob("*.png") if is_signed(path, WRITER) or path.name in own), out / SHEET):
            path.unlink(missing_ok=True)
        for path in (*folder.glob("*.part"), *folder.glob("*.how"), folder / MARKS):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(out, error) from error
    kept = [path.name for path in out.glob("*") if path.name not in (LOCK, folder.name)]
    if kept:
        log.info(f"{out}: kept what segda did not write: {', '.join(map(visible, sorted(kept)))}")
    write_text(folder / MARKS, json.dumps(marks, indent=1))


def _free(folder: Path) -> int:
    """Bytes free on the disk where the folder is or will be."""
    while not folder.exists():
        folder = folder.absolute().parent
    return shutil.disk_usage(folder).free


def _size(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def finish(job: Job, summary: dict[str, Any]) -> None:
    """Contact sheet and summary; without scratch files from here on."""
    count = len(job.dataset)
    scenes = []
    for i in np.linspace(0, count - 1, min(SHEET_IMAGES, count)).astype(int):
        scene = job.dataset.read(i)
        kept = read_ids(job.out / f"{scene.names[0]}.png")
        image = np.ascontiguousarray(scene.image.permute(1, 2, 0).numpy())
        scenes.append(Labelled(scene.names[0], image, job.scratch.read(i)[0], kept))
    notes = {each["name"]: f"{percent(each['kept_share'])} % kept" for each in summary["classes"] if each["pixels"]}
    title = f"{summary['data']}: {count} images, {summary['rule']['name']}, {percent(summary['kept_share'])} % kept"
    with atomic_write(job.out / SHEET) as partial:
        pseudo_labels_sheet(scenes, job.dataset.space, title, notes).save(partial, "JPEG", quality=90)
    write_summary(job.out, summary)
    shutil.rmtree(job.scratch.folder)


def label_images(job: Callable[[], Job], *, overwrite: bool, score: bool) -> dict[str, Any]:
    """Does the whole job, with the other processes; returns its summary. `job` checks and loads, see make_job."""
    with group.joined():
        made = group.all_succeed(job)
        # The first one's names: of a copy of the data elsewhere, files have other times.
        names = group.all_gather_object(made.scratch.names)[0]
        made = replace(made, scratch=Scratch(made.scratch.folder, names, made.scratch.sizes))
        group.on_rank_zero(refuse_strange, made)
        with first_alone_in([made.out], "another process writes labels to {folder}"):
            group.on_rank_zero(prepare, made, overwrite)
            predict(made)
            summary = write_labels(made)
            if score:
                summary["score"] = compare_with_truth(made)
            group.on_rank_zero(finish, made, summary)
    return summary
