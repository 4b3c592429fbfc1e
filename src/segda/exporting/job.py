"""`segda export`: a run's network as a file of another format, kept once it says what the network says."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

import numpy as np
import torch
from torch import Tensor

from segda.data.sets.dataset import DataSet
from segda.data.sets.given import images_in
from segda.errors import RecipeError, RunError, RunFailure, nearest
from segda.evaluation.inference import Size, in_boxes
from segda.evaluation.look import spread
from segda.evaluation.measure import evaluate_network
from segda.exporting.about import About, shown
from segda.exporting.exported import Exported
from segda.exporting.formats import FORMATS, Format, is_ours
from segda.exporting.graph import refuse_any_size
from segda.exporting.parity import LEAST_SAME, Parity, parity_of
from segda.exporting.speed import Speeds, speeds_of
from segda.ground.alone import LOCK, alone_in
from segda.ground.atomic import cannot_write, emptied
from segda.ground.choices import ExportPrecision, ExportTo, GivenAs, Said, Weights
from segda.networks import NETWORKS
from segda.networks.network import Network
from segda.recipes.build import from_scratch
from segda.recipes.recipe import Recipe
from segda.run import data_root, load_network, load_recipe_of, step_of
from segda.run_data import measured_on, seen_from_here, space_in

IMAGES = 4
"""As many are compared."""

CALIBRATED = 100
"""As many images at most say what the maps of an int8 network hold."""


@dataclass(frozen=True)
class Asked:
    """What `segda export` was asked for, see commands/export.py."""

    run: Path
    to: ExportTo
    out: Path | None
    size: str
    weights: Weights
    precision: ExportPrecision
    input: GivenAs
    output: Said
    data: str | None
    score: str | None
    root: Path | None
    step: int | None
    overwrite: bool


@dataclass(frozen=True)
class Done:
    """A file that was written. score: data, and the mIoU of the network and of the file on them."""

    path: Path
    about: About
    parity: Parity
    score: tuple[str, float, float] | None

    def lines(self) -> list[str]:
        about = self.about
        step = "" if about.step is None else f" after step {about.step}"
        files = [self.path] if self.path.is_file() else [path for path in self.path.iterdir() if path.is_file()]
        size = sum(path.stat().st_size for path in files) / 1e6
        told = [
            f"{self.path}: {about.weights} of {about.recipe}{step}, {about.precision}, {size:.1f} MB",
            about.sentence(),
            self.parity.sentence(),
        ]
        if self.score is not None:
            data, before, after = self.score
            told.append(f"{data}: mIoU {before:.1%} -> {after:.1%} ({100 * (after - before):+.1f})")
        return told


def export_run(asked: Asked) -> Done:
    """Writes, reads and compares; a file that says other things than the network is not kept."""
    recipe = load_recipe_of(asked.run)
    row = format_named(asked)
    out = place_for(asked, row)
    network = load_network(asked.run, asked.weights, step=asked.step)
    about = about_run(asked, recipe, network)
    images = shown_of(asked, recipe, about, IMAGES)
    scored_on = score_data(asked, recipe)
    root = data_root(recipe, asked.root)
    dataset = None if scored_on is None else measured_on(asked.run, scored_on, root)
    calibration: list[np.ndarray] = []
    if about.precision == "int8":
        calibration = [given_to(image, about) for image in shown_of(asked, recipe, about, CALIBRATED)]
    partial = out.with_name(f".{out.name}.exported")
    held = alone_in(out.parent, f"another process exports to {out}", lock=f".{out.name}{LOCK}")
    try:
        with held, emptied(partial) as folder:
            file = folder / f"network{row.suffix}" if row.suffix else folder
            row.write(network, about, file, calibration)
            exported = Exported(*row.open(file), out)
            parity = parity_of(network, exported, compared(images, about))
            if parity.share < LEAST_SAME[about.precision]:
                raise RunFailure(
                    f"{out}: not kept, since it says other things than the network: {parity.sentence()}; at least "
                    f"{LEAST_SAME[about.precision]:.1%} must agree"
                )
            score = None if dataset is None else scored(network, exported, dataset)
            if not row.suffix and out.exists():
                shutil.rmtree(out)
            file.replace(out)
    except OSError as error:
        raise cannot_write(out, error) from error
    return Done(out, about, parity, score)


def scored(network: Network, exported: Exported, dataset: DataSet) -> tuple[str, float, float]:
    """The data, and the mIoU of the network and of the file on them, both in the file's way of showing images."""
    about = exported.about
    facts = {"weights": about.weights, "step": about.step, "recipe": about.recipe}
    before, after = (
        evaluate_network(
            one, dataset, about.evaluate, torch.device("cpu"), nullcontext(), {**facts, "precision": precision}
        )
        for one, precision in ((network, "float32"), (exported, about.precision))
    )
    return dataset.spec, before.miou, after.miou


def benchmark_run(
    run: Path,
    size: str,
    batch: int,
    calls: int,
    weights: Weights,
    data: str | None,
    root: Path | None,
    step: int | None,
) -> Speeds:
    """`segda benchmark`, see commands/benchmark.py."""
    for option, number in (("--batch", batch), ("--calls", calls)):
        if number < 1:
            raise RecipeError(f"{option} {number}: give at least 1")
    own = "any" if size_named(size, "own") is None else size
    asked = Asked(run, "torch", None, own, weights, "32", "float", "ids", data, None, root, step, False)
    recipe = load_recipe_of(run)
    network = load_network(run, weights, step=step)
    about = about_run(asked, recipe, network)
    images = shown_of(asked, recipe, about, CALIBRATED)
    sizes = {image.shape for image in images}
    if len(sizes) > 1:
        raise RecipeError(f"{asked.run}: its images are of {len(sizes)} sizes; say which one with --size WxH")
    step = about.step
    return speeds_of(
        f"{about.weights} of {about.recipe}" + ("" if step is None else f" after step {step}"),
        network, about, images, batch, calls,
    )  # fmt: skip


def shown_of(asked: Asked, recipe: Recipe, about: About, count: int) -> list[Tensor]:
    """(1, 3, H, W) RGB in [0, 1], evenly spread over the images asked for, as they are shown."""
    data = seen_from_here(asked.run, recipe.data.target.set) if asked.data is None else asked.data
    images = images_in(data, data_root(recipe, asked.root))
    return [as_shown(images[place].read(), about) for place in spread(len(images), count)]


def format_named(asked: Asked) -> Format:
    """The row of the format; RecipeError for a precision that it is not written in."""
    if asked.to not in FORMATS:
        raise RecipeError(f"--to {asked.to}: unknown format{nearest(asked.to, get_args(ExportTo))}")
    row = FORMATS[asked.to]
    if asked.precision not in row.precisions:
        others = ", ".join(name for name, other in FORMATS.items() if asked.precision in other.precisions)
        raise RecipeError(
            f"--precision {asked.precision}: {asked.to} is written in {', '.join(row.precisions)}"
            + (f"; use --to {others}" if others else "")
        )
    return row


def place_for(asked: Asked, row: Format) -> Path:
    """Where the file goes: --out, else beside the run with its name. RunError where something else is."""
    usual = f"{asked.run.resolve().name}{row.suffix or f'_{asked.to}'}"
    out = asked.run.resolve().with_name(usual) if asked.out is None else asked.out
    suffixes = [other.suffix for other in FORMATS.values() if other.suffix]
    if row.suffix and out.suffix != row.suffix:
        raise RecipeError(f"--out {out}: a file for {asked.to} ends in {row.suffix}; name it so")
    if not row.suffix and out.suffix in suffixes:
        raise RecipeError(f"--out {out}: {asked.to} takes a folder; name it without {out.suffix}")
    if not os.path.lexists(out):
        return out
    if not is_ours(out, row):
        raise RunError(f"{out} exists and is not of segda export; choose another --out")
    if not asked.overwrite:
        raise RunError(f"{out} exists; use --overwrite, or another --out")
    return out


def about_run(asked: Asked, recipe: Recipe, network: Network) -> About:
    """What the file will say of itself. RecipeError for a size that the network does not take."""
    size = size_named(asked.size)
    least = getattr(network, "smallest", 1)
    if size is None and asked.to != "huggingface":  # which holds no graph
        refuse_any_size(network, f"{asked.run}: network {recipe.network['name']}")
    if size is not None and min(size) < least:
        raise RecipeError(f"--size {asked.size}: the network needs {least} pixels on each side")
    return About(
        space=space_in(asked.run).name,
        classes=dict(space_in(asked.run).colours),
        input=asked.input,
        output=asked.output,
        size=size,
        smallest=least,
        precision=asked.precision,
        recipe=recipe.name,
        weights=asked.weights,
        step=step_of(asked.run, asked.weights) if asked.step is None else asked.step,
        network=from_scratch(NETWORKS, recipe.network, "network"),
        evaluate=shown(recipe.evaluate, size),
    )


def size_named(size: str, free: str = "any") -> Size | None:
    """Of "640x480", (480, 640); None of the word for none."""
    if size == free:
        return None
    found = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", size)
    if found is None:
        raise RecipeError(f"--size {size}: give {free}, or width and height such as 640x480")
    return int(found[2]), int(found[1])


def score_data(asked: Asked, recipe: Recipe) -> str | None:
    """What mIoU is measured on: --score, else for int8 the recipe's own first evaluate.data."""
    if asked.score is not None or asked.precision != "int8" or not recipe.evaluate.data:
        return asked.score
    return seen_from_here(asked.run, recipe.evaluate.data[0])


def as_shown(image: Tensor, about: About) -> Tensor:
    """(3, H, W) uint8 -> (1, 3, h, w) RGB in [0, 1] as the network is shown it at first; of windows the first one."""
    small = in_boxes(image, about.evaluate)[0]
    if about.evaluate.how == "slide" and about.evaluate.window is not None:
        height, width = about.evaluate.window
        small = small[:, :height, :width]
    return small[None] / 255


def given_to(image: Tensor, about: About) -> np.ndarray:
    """As it goes into the file."""
    return (image.mul(255).round().to(torch.uint8) if about.input == "uint8" else image).numpy()


def compared(images: Sequence[Tensor], about: About) -> list[Tensor]:
    """The images, one by one; of a file of any size also two at once of an odd size, and one turned upright."""
    if about.size is not None:
        return [*images, torch.cat([images[0], images[-1]])]
    height, width = (max(about.smallest, side * 3 // 4) for side in images[0].shape[-2:])
    odd = (height - 1 + height % 2, width - 1 + width % 2)
    odd = cast(Size, tuple(max(about.smallest, side) for side in odd))
    first = images[0][..., : odd[0], : odd[1]]
    return [*images, torch.cat([first, first.flip(-1)]), images[-1].transpose(-1, -2)]
