"""The recipes of the published benchmarks, DAFormer's and EBDA's, on small files in the layouts of their data sets."""

from __future__ import annotations

from pathlib import Path

import pytest

from layouts import LAYOUTS, write_row
from segda.commands.train import train
from segda.data.rows import DATASETS
from segda.data.sets.dataset import DataSet
from segda.data.sets.datasets import open_data
from segda.data.sets.files import FileSet
from segda.errors import DataError
from segda.recipes.blocks import shipped
from segda.recipes.recipe import Recipe, load_recipe
from segda.run_data import space_of

PAIRS = ("gta5_cityscapes", "synthia_cityscapes", "cityscapes_acdc", "cityscapes_dark-zurich")
PUBLISHED = [
    *(f"{method}_{pair}" for method in ("source_only", "dacs", "daformer", "ebda") for pair in PAIRS),
    *(f"{method}_cityscapes_foggy_rain" for method in ("daformer", "ebda")),
    "mic_daformer_gta5_cityscapes",
]
REFERRED = ["refign_cityscapes_acdc", "refign_cityscapes_dark-zurich"]

SMALL = [
    "steps=1", "device=cpu", "precision='32'", "data.workers=0",
    "network.weights=scratch", "network.encoder=tiny", "network.channels=8",
    "data.source.augment.resize=[96, 64]", "data.source.augment.crop=[64, 64]",
    "data.target.augment.resize=[96, 64]", "data.target.augment.crop=[64, 64]",
    "data.target.augment.ignore_top=2", "data.target.augment.ignore_bottom=15",
    "data.source.rare_class.min_pixels=1",
]  # fmt: skip
"""What makes a step take a moment; everything else is as published."""

UNSURE = ("H/source", "H/target", "H/mixed")

TERMS = {
    "source_only": {"source", "H/source"},
    "dacs": {"source", "mix", "confident", *UNSURE},
    "daformer": {"source", "feature_distance", "mix", "confident", *UNSURE},
    "mic": {"source", "feature_distance", "mix", "confident", "masked", *UNSURE, "H/masked"},
    "ebda": {"source", "feature_distance", "mix", "confident", "balance", *UNSURE},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Every data set in the layout in which it is downloaded."""
    folder = tmp_path_factory.mktemp("data")
    for name, row in DATASETS.items():
        if row.images:
            _, template, labelling = next(layout for layout in LAYOUTS if layout[0] == name)
            write_row(folder / row.folders[0], name, template, labelling)
    return folder


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_recipe_takes_a_step_on_its_data_sets_and_never_opens_a_target_label(
    name, root, tmp_path, monkeypatch, said
):
    opened = []

    def seen(self, i, whole=FileSet.label_ids):
        opened.append(self.spec)
        return whole(self, i)

    monkeypatch.setattr(FileSet, "label_ids", seen)
    recipe = load_recipe(name).override(*SMALL)
    train(recipe, tmp_path / "run", root, check=True)
    # Those of what is scored are looked through before work begins.
    assert set(opened) == {recipe.data.source.set, *recipe.evaluate.data}
    assert recipe.data.target.set not in opened
    terms = next(line for line in said if line.startswith("source ")).split()[::2]
    assert set(terms) == TERMS[recipe.method["name"]]
    assert not (tmp_path / "run").exists()


FOUNDATION = [
    *(f"vfm_{encoder}_{pair}" for encoder in ("dinov2", "dinov3") for pair in PAIRS[:3]),
    *(f"vfm_plus_dinov2_{pair}" for pair in (PAIRS[0], PAIRS[1], PAIRS[3])),
]


@pytest.mark.parametrize("name", FOUNDATION)
def test_a_recipe_on_a_foundation_model_takes_a_step_on_its_data_sets(name, root, tmp_path, said):
    recipe = load_recipe(name)
    tiny = f"{recipe.network['encoder'].split('_')[0]}_tiny"
    held = ["encoder=dinov2_tiny_reg", "weights=scratch", "side=28"] if recipe.method["name"] == "vfm_plus" else []
    recipe = recipe.override(
        "steps=1", "device=cpu", "precision='32'", "data.workers=0", "data.batch=2",
        "network.weights=scratch", f"network.encoder={tiny}", "data.source.rare_class.min_pixels=1",
        *(f"data.{domain}.augment.resize=[96, 64]" for domain in ("source", "target")),
        *(f"data.{domain}.augment.crop=[64, 64]" for domain in ("source", "target")),
        *(f"method.distillation.{setting}" for setting in held),
    )  # fmt: skip
    train(recipe, tmp_path / "run", root, check=True)
    terms = next(line for line in said if line.startswith("source ")).split()[::2]
    far = {"distillation/source", "distillation/target"} if held else set()
    assert set(terms) == TERMS["mic"] - {"feature_distance"} | far


LIT = [
    "steps=1", "device=cpu", "precision='32'", "data.workers=0", "start=null", "network.width=2", "network.blocks=1",
    "network.over={name: deeplab_v2, encoder: small, weights: scratch, multi_level: false}",
    "data.source.augment.crop=[48, 48]", "data.target.augment.crop=[64, 64]",
    "data.target.augment.bring_to=[48, 48]", "method.width=4", "method.target_size=[80, 80]",
]  # fmt: skip
"""The same for DANNet's, whose network is another then."""


def paired(recipe: Recipe, root: Path, folder: Path) -> tuple[Path, DataSet]:
    """A list in which each target image has one of the references, and the target."""
    space = space_of(recipe)
    night, day = (open_data(spec, root, space) for spec in (recipe.data.target.set, recipe.data.reference.set))
    pairs = folder / "pairs.csv"
    pairs.write_text("".join(f"{one},{day.names[i % len(day)]}\n" for i, one in enumerate(night.names)))
    return pairs, night


@pytest.mark.parametrize("name", REFERRED)
def test_refigns_recipes_take_a_step_with_references_on_their_data_sets(name, root, tmp_path, said):
    recipe = load_recipe(name).override(*SMALL)
    pairs, _ = paired(recipe, root, tmp_path)
    train(recipe.override(f"data.reference.pairs={pairs}"), tmp_path / "run", root, check=True)
    terms = next(line for line in said if line.startswith("source ")).split()[::2]
    assert set(terms) == TERMS["daformer"] | {"changed"}


@pytest.mark.parametrize("name", ["dannet_cityscapes_dark-zurich", "dannet_cityscapes_acdc"])
def test_dannets_recipes_take_a_step_with_references_on_their_data_sets(name, root, tmp_path, said):
    recipe = load_recipe(name).override(*LIT)
    pairs, night = paired(recipe, root, tmp_path)
    train(recipe.override(f"data.reference.pairs={pairs}"), tmp_path / "run", root, check=True)
    terms = next(line for line in said if line.startswith("fool/day ")).split()[::2]
    assert {"static", "fool/night", "variation/source", "light/night", "source"} <= set(terms)
    pairs.write_text("\n".join(pairs.read_text().split()[1:]) + "\n")
    with pytest.raises(DataError, match=f"1 of {len(night)} images of .* have no reference .*{night.names[0]}"):
        train(recipe.override(f"data.reference.pairs={pairs}"), tmp_path / "run", root, check=True)


def test_the_published_recipes_are_the_four_methods_on_the_five_benchmarks_and_mic_on_one():
    recipes = {name: load_recipe(name) for name in shipped()}
    on_mit = {name for name, recipe in recipes.items() if recipe.network.get("weights") == "nvidia/mit-b5"}
    assert on_mit == {*PUBLISHED, *REFERRED} and len(PUBLISHED) == 19
    assert {name for name in on_mit if recipes[name].data.reference} == {*REFERRED}
    assert {name for name, recipe in recipes.items() if recipe.network.get("name") == "vfm"} == {*FOUNDATION}
    for name in PUBLISHED:
        recipe = recipes[name]
        assert (recipe.steps, recipe.data.batch, recipe.network["encoder"]) == (40000, 2, "b5")
        assert recipe.data.target.augment.ignore_top == 15 and recipe.data.target.augment.ignore_bottom == 120
