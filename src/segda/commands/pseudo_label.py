"""`segda pseudo-label`: labels for the images of a data set, where runs' networks are sure of them."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import warnings
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image
from rich.table import Table
from rich.text import Text

from segda.commands.evaluate import open_labelled
from segda.data.files.archives import open_file, state
from segda.data.files.images import read_ids
from segda.data.files.scratch import Scratch
from segda.data.labels.pseudo_labels import SHEET, SUMMARY, write_summary
from segda.data.sets.datasets import STREETS_SIZE, DataSet, open_data
from segda.data.stream.augment import scaled_size
from segda.distributed import group
from segda.errors import RecipeError, RunError
from segda.evaluation.protocol import Weights
from segda.ground.atomic import atomic_write, cannot_write, write_text
from segda.ground.hardware import DeviceName, PrecisionName, pick_device, pick_precision
from segda.ground.safe_yaml import read_json, yaml_values
from segda.pseudo_labelling.label import Job, compare_with_truth, predict, write_labels
from segda.pseudo_labelling.rules import RULES
from segda.recipes.build import build, check
from segda.reporting.contact_sheet import Labelled, contact_sheet
from segda.reporting.tables import percent
from segda.run import FILES, data_root, load_network, load_recipe_of, space_of, step_of

SHEET_IMAGES = 8

MARKS = "made-of.json"
"""Beside the scratch files: what they are made of."""

LOOK = {"kernel", "how", "window", "stride", "scales", "flip"}
"""Of `evaluate`: what a network's own prediction depends on, besides the labels' size."""

log = logging.getLogger(__name__)


def pseudo_label(
    runs: Sequence[Path | str],
    data: str,
    rule: str | Mapping[str, Any],
    out: Path | str,
    settings: Sequence[str] = (),
    root: Path | None = None,
    which: Weights = "student",
    device: DeviceName = "auto",
    precision: PrecisionName = "auto",
    *,
    overwrite: bool = False,
    score: bool = False,
) -> dict[str, Any]:
    """Label the images of a data set where runs' networks are sure of them, into the folder OUT; returns its summary.

    Of several runs, the mean of the probabilities counts. The rule is a name of RULES, with the settings of rules.yaml
    and `settings` ("KEY=VALUE") changed, or a mapping of its name and all its settings. Labels have the size that the
    runs' recipes give an image (evaluate.resize). A call that was interrupted goes on where it stopped. score: when the
    labels are written, compare them with the data set's own; for the report only.
    """
    with group.joined():
        job = group.all_succeed(
            lambda: make_job(
                list(map(Path, runs)), data, rule, Path(out), settings, root, which, device, precision, score
            )
        )
        # The first one's names: of a copy of the data elsewhere, files have other times.
        names = group.all_gather_object(job.scratch.names)[0]
        job = replace(job, scratch=Scratch(job.scratch.folder, names, job.scratch.sizes))
        group.on_rank_zero(prepare, job, overwrite)
        group.all_succeed(lambda: predict(job))
        summary = write_labels(job)
        if score:
            summary["score"] = compare_with_truth(job)
        group.on_rank_zero(finish, job, summary)
    return summary


def shipped_rules() -> dict[str, dict[str, Any]]:
    """The settings of each rule in rules.yaml, by its name."""
    return yaml.safe_load((files("segda.pseudo_labelling") / "rules.yaml").read_text(encoding="utf-8"))


def rule_spec(rule: str | Mapping[str, Any], changes: Sequence[str] = ()) -> dict[str, Any]:
    """A rule's name, or a mapping of its name and settings -> all of them; a bare name has the shipped settings.

    changes: "KEY=VALUE", the value in YAML. RecipeError for an unknown rule or setting.
    """
    spec = {"name": rule, **shipped_rules().get(rule, {})} if isinstance(rule, str) else dict(rule)
    for change in changes:
        key, equals, text = change.partition("=")
        if not key or not equals:
            raise RecipeError(f"--set {change!r}: write KEY=VALUE, for example floor=0.2")
        try:
            spec[key] = yaml_values(text)
        except ValueError as error:
            raise RecipeError(f"--set {key}: {text!r:.80} is not a YAML value: {error}") from error
    return check(RULES, spec, "rule", ())


def make_job(
    runs: list[Path],
    data: str,
    rule: str | Mapping[str, Any],
    out: Path,
    settings: Sequence[str],
    root: Path | None,
    which: Weights,
    device: DeviceName,
    precision: PrecisionName,
    score: bool,
) -> Job:
    """Checks and loads everything, the cheap things first; writes nothing."""
    spec = rule_spec(rule, settings)
    chosen = build(RULES, spec, "rule")
    if not runs:
        raise RecipeError("no RUN: give the folder of at least one trained run")
    recipes = [load_recipe_of(run) for run in runs]
    first = recipes[0]
    for run, recipe in zip(runs, recipes, strict=True):
        if space_of(recipe).classes != space_of(first).classes:
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
    opened = (open_labelled if score else open_data)(data, data_root(first, root), space_of(first))
    if opened.shares is not None:
        raise RecipeError(f"{data}: weights say how often images are drawn in training; leave them out here")
    sizes = [scaled_size(size, first.evaluate.resize, first.evaluate.shape) for size in image_sizes(opened)]
    networks, members = [], []
    for run, recipe in zip(runs, recipes, strict=True):
        networks.append(load_network(run, which, where))
        with (run / FILES[which]).open("rb") as weights:
            digest = hashlib.file_digest(weights, "sha256").hexdigest()
        look = recipe.evaluate.model_dump(mode="json", include=LOOK)
        members.append({"run": str(run), "weights": which, "step": step_of(run, which), "sha256": digest, **look})
    looks = [recipe.evaluate for recipe in recipes]
    scratch = Scratch(out / ".scratch", [part_name(opened, i) for i in range(len(opened))], sizes)
    return Job(out, opened, spec, chosen, networks, looks, members, where, dtype, scratch)


def image_sizes(dataset: DataSet) -> list[tuple[int, int]]:
    """(height, width) of each image, from the files' headers."""
    sizes = []
    for i in range(len(dataset)):
        if dataset.at(i)[0].row.rendered:
            sizes.append(STREETS_SIZE)
            continue
        try:
            large = warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning)
            with large, open_file(dataset.image_path(i)) as file, Image.open(file, formats=["PNG", "JPEG"]) as picture:
                sizes.append((picture.height, picture.width))
        except (OSError, Image.DecompressionBombError, Image.DecompressionBombWarning):
            sizes.append(tuple(dataset.read(i).image.shape[1:]))  # says what is wrong with the file
    return sizes


def part_name(dataset: DataSet, i: int) -> str:
    """Of an image's scratch file: another one when the image has been changed."""
    if dataset.at(i)[0].row.rendered:
        return f"{i:06d}"
    size, mark = state(dataset.image_path(i))
    return f"{i:06d}-{zlib.crc32(f'{size} {mark}'.encode()):08x}"


def prepare(job: Job, overwrite: bool) -> None:
    """Makes OUT ready for labels, or refuses it; says how much disk the scratch files need, and whether it is there."""
    out, folder, marks = job.out, job.scratch.folder, job.marks()
    if out.exists() and not out.is_dir():
        raise RunError(f"{out} is a file; give a folder for the labels with --out")
    finished, begun = (out / SUMMARY).exists(), (folder / MARKS).exists()
    if finished and not overwrite:
        raise RunError(f"{out} already holds pseudo-labels; use --overwrite to make them anew, or another --out")
    if not finished and not folder.exists() and out.exists() and any(out.iterdir()):
        raise RunError(f"{out} exists and is not a folder of pseudo-labels; choose another --out")
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
    if not fresh:
        log.info(f"going on: {count - len(missing)} of {count} images are there")
        return
    try:
        (out / SUMMARY).unlink(missing_ok=True)
        for path in (*out.glob("*.png"), out / SHEET):
            path.unlink(missing_ok=True)
        if folder.exists():
            shutil.rmtree(folder)
    except OSError as error:
        raise cannot_write(out, error) from error
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
        contact_sheet(scenes, job.dataset.space, title, notes).save(partial, "JPEG", quality=90)
    write_summary(job.out, summary)
    shutil.rmtree(job.scratch.folder)


def table(summary: Mapping[str, Any]) -> Table:
    """A row a class: its share of the predicted pixels, threshold, share kept and median score; accuracies if known."""
    scored = summary.get("score")
    score = summary["score_of_a_pixel"]
    rule = ", ".join(f"{key} {value}" for key, value in summary["rule"].items() if key != "name")
    sizes = f"{summary['images']} images, {summary['rule']['name']} ({rule})"
    # As Text: square brackets in a name are no markup, and ":train:" no emoji.
    caption = Text(sizes + (f"; accuracy: {scored['note']}" if scored else ""))
    made = Table(title=Text(summary["data"]), caption=caption, title_justify="left", caption_justify="left")
    made.add_column("class")
    for column in (
        "share",
        f"{score}: threshold",
        "median",
        "kept",
        *(("acc. predicted", "acc. kept") if scored else ()),
    ):
        made.add_column(column, justify="right")
    last = len(summary["classes"])
    for number, each in enumerate(summary["classes"], 1):
        low, high = min(each["thresholds"]), max(each["thresholds"])
        bounds = f"{low:.3f}" if low == high else f"{low:.3f} to {high:.3f}"
        there = each["pixels"] > 0
        cells = [percent(each["pixels"] / summary["pixels"]), bounds]
        cells += [f"{each['quantiles']['50']:.3f}", percent(each["kept_share"])] if there else ["-", "-"]
        if scored:
            cells += _accuracies(scored["classes"][each["name"]])
        made.add_row(Text(each["name"]), *cells, end_section=number == last)
    total = ["", "", "", percent(summary["kept_share"]), *(_accuracies(scored) if scored else ())]
    made.add_row("all pixels", *total, style="bold")
    return made


def _accuracies(rates: Mapping[str, float | None]) -> list[str]:
    return ["-" if rates[key] is None else percent(rates[key]) for key in ("accuracy_predicted", "accuracy_kept")]
