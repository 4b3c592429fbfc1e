"""CycleGAN's generators, there and back: `N_net_G_A.pth` of junyanz/pytorch-CycleGAN-and-pix2pix, BDL and MGCDA.

A file holds one generator. As its authors name it, G_A paints what looks like the target and G_B what looks like the
source; a file whose name does not end in G_B is taken for the first. Names and weights are the same here as there. The
running averages of their instance norm are left out: they are not to be used (networks/translator.py).
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from segda import run as runs
from segda.conversion.asked import PLAIN, Asked, Converted, refuse_idle, refuse_taken
from segda.conversion.asked import TRANSLATORS as STYLE
from segda.errors import RecipeError, WeightsError, few
from segda.ground.atomic import atomic_write
from segda.ground.safe_yaml import json_values
from segda.networks.translator import Generator, Upsampling
from segda.networks.weights.archives import write_archive
from segda.networks.weights.files import read_facts
from segda.networks.weights.load import read
from segda.recipes.facts import method_class
from segda.recipes.recipe import Recipe

RECORDED = ("running_mean", "running_var", "num_batches_tracked")
"""How the names of instance norm's averages end."""

PUBLISHED: Upsampling = "transposed"
"""How a generator of theirs upsamples."""

BACKWARD = "G_B"
"""How the name of a file ends, without its ending, that holds the way back."""


def product_of(file: Path) -> str:
    """The product that a file of theirs holds, by its name."""
    return "translator_back" if file.stem.endswith(BACKWARD) else "translator"


def trains_translator(recipe: Recipe) -> bool:
    return "translator" in method_class(recipe.method).products


def refuse_other_recipe(recipe: Recipe | None) -> None:
    """RecipeError unless the recipe is one of a translator."""
    if recipe is None:
        raise RecipeError("--recipe: needed to know the generator, width and blocks; give cyclegan_gta5_cityscapes")
    if not trains_translator(recipe):
        raise RecipeError(
            f"--recipe: method {recipe.method['name']} trains no translator, which {STYLE} files hold; give a recipe "
            "that does, as cyclegan_gta5_cityscapes"
        )
    if recipe.method["upsampling"] != PUBLISHED:
        raise RecipeError(
            f"--recipe: method.upsampling: {recipe.method['upsampling']} is not that of {STYLE} files; set it to "
            f"{PUBLISHED}"
        )


def generator_in(file: Path, recipe: Recipe, asked: Asked) -> tuple[dict[str, Tensor], Converted]:
    """The generator of a file of theirs, checked against the recipe's, and what to tell of it."""
    if asked.allow_missing:
        raise RecipeError("--allow-missing: a generator must be whole; remove it")
    if asked.out.suffix in (*PLAIN, ".safetensors"):
        raise RecipeError(f"--out {asked.out}: our translators are kept in a run folder; name one")
    if not file.is_file():
        raise WeightsError(f"{file}: no such file; give a generator of CycleGAN's, as 45_net_G_A.pth")
    held = read(file, "student").tensors
    plain = {name.removeprefix("module."): value for name, value in held.items()}
    skipped = tuple(name for name in plain if name.endswith(RECORDED))
    unwanted = tuple(name for name in plain if name.startswith(asked.leave_out) and name not in skipped)
    refuse_idle(asked.leave_out, list(unwanted))
    tensors = {name: value for name, value in plain.items() if name not in {*skipped, *unwanted}}
    settings = recipe.method
    generator = Generator(width=settings["width"], blocks=settings["blocks"], upsampling=PUBLISHED)
    own = generator.state_dict()
    wrong = [name for name in own if name not in tensors or tensors[name].shape != own[name].shape]
    wrong += [name for name in tensors if name not in own]
    if wrong:
        raise WeightsError(
            f"{file}: is no generator of width {settings['width']} and {settings['blocks']} blocks: {len(wrong)} of "
            f"{len(own)} tensors differ ({few(wrong)}); change --set method.width and method.blocks, or give the file "
            "of a generator"
        )
    runs.fill(generator, tensors, file)
    way = "the target" if product_of(file) == "translator" else "the source"
    told = Converted(
        asked.out, STYLE, len(tensors), (*skipped, *unwanted), notes=(f"paints what looks like {way}, by its name",)
    )
    return generator.state_dict(), told


def back(given: Path, asked: Asked) -> Converted:
    """A generator of ours as their code reads it."""
    if asked.allow_missing or asked.leave_out:
        raise RecipeError("--allow-missing and --leave-out have no effect on a translator; remove them")
    if asked.out.suffix not in PLAIN:
        raise RecipeError(f"--out {asked.out}: {STYLE} code reads a state dict of torch; write a file ending in .pth")
    refuse_taken(asked.out, asked.overwrite)
    product, path = product_of(asked.out), given
    if given.is_dir():
        recipe = runs.load_recipe_of(given)
        if not trains_translator(recipe):
            raise WeightsError(f"{given}: method {recipe.method['name']} trains no translator; choose another style")
        path = runs.network_path(given, product, asked.step)
    elif asked.step is not None:
        raise RecipeError(f"--step {asked.step}: {given} is a file; give the run folder whose snapshot it shall be")
    tensors = runs.read_tensors(path)
    if not all(name.startswith("model.") for name in tensors):
        raise WeightsError(f"{path}: holds no generator; give a run of a translator, or its translator.safetensors")
    how = json_values(read_facts(path).get("method", "{}")).get("upsampling", PUBLISHED)
    if how != PUBLISHED:
        raise WeightsError(
            f"{path}: holds a generator of upsampling {how}, which {STYLE} code does not have; keep it here"
        )
    with atomic_write(asked.out) as partial, partial.open("wb") as file:
        write_archive(file, {name: value.contiguous() for name, value in tensors.items()}, asked.out)
    return Converted(asked.out, STYLE, len(tensors))
