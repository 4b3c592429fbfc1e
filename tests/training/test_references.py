"""Training with references and without a source: on streets, ACDC and Dark Zurich; what a recipe must say for it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from conftest import RECIPE, small_recipe
from layouts import LAYOUTS, write_row
from resuming import at
from resuming import same as same_run
from segda import run as runs
from segda.commands.train import train
from segda.data.sets import streets as street_sets
from segda.errors import DataError, RecipeError
from segda.recipes.recipe import Recipe, parse_recipe
from segda.run_data import space_of
from segda.training import max_batch
from segda.training.assembly import assemble
from small_run import SPACE

AUGMENT = {"resize": [64, 32], "crop": [32, 32], "max_class_share": None, "flip": 0.5}


def recipe_with(root: Path, target: str, reference: str | dict, source: str = "camvid:train:day") -> Recipe:
    tree = yaml.safe_load(RECIPE)
    tree["method"] = {"name": "toys:Referenced", "weight": 100}
    tree["evaluate"] = {"resize": None, "how": "whole", "report_images": 0}
    space = SPACE.name if source.startswith("camvid") else "cityscapes-19"
    tree["data"] |= {
        "root": str(root),
        "space": space,
        "source": {"set": source, "augment": AUGMENT},
        "target": {"set": target, "augment": AUGMENT},
        "reference": {"set": reference} if isinstance(reference, str) else reference,
    }
    return parse_recipe(tree, "recipe")


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return runs.read_tensors(run / "network.safetensors")


def differ(one: Path, other: Path) -> bool:
    ours, theirs = weights_of(one), weights_of(other)
    return any(not torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.fixture
def streets(tmp_path, monkeypatch) -> Recipe:
    """The same street by day is the reference of its night."""
    monkeypatch.setattr(street_sets, "SIZE", (32, 64))
    street_sets.drawn.cache_clear()
    yield recipe_with(tmp_path, "streets:train:night", "streets:train:day", "streets:train:fog")
    street_sets.drawn.cache_clear()


def adverse(root: Path, name: str) -> Recipe:
    """A drawn tree of ACDC or Dark Zurich."""
    for row in (name, f"{name}-ref"):
        write_row(root / name, *next(one for one in LAYOUTS if one[0] == row))
    if name == "acdc":
        return recipe_with(root, "acdc:train:night", "acdc-ref:train:night", "acdc:train:fog")
    table = root / name / "corresp/train/night/GOPR_ref_day.csv"
    table.parent.mkdir(parents=True)
    table.write_text("".join(f"train/night/GOPR{k}/night_{k},train/day/GOPR{1 - k}/day_{1 - k}\n" for k in range(2)))
    return recipe_with(root, "dark-zurich:train:night", "dark-zurich:train:day", "dark-zurich:train:twilight")


def test_streets_train_with_their_day(streets, tmp_path):
    train(streets.override("evaluate.report_images=2"), tmp_path / "run")
    assert all(line["alike"] > 0 for line in runs.read_log(tmp_path / "run") if "alike" in line)
    train(streets.override("data.reference.set=streets:train:snow"), tmp_path / "snow")
    assert differ(tmp_path / "run", tmp_path / "snow"), "the reference has no say"


@pytest.mark.parametrize("name", ["acdc", "dark-zurich"])
def test_adverse_conditions_train_with_their_references_whose_labels_are_never_read(tmp_path, name):
    recipe = adverse(tmp_path / "data", name)
    train(recipe, tmp_path / "with")
    folders = {"acdc": ("night/train", "night/train_ref"), "dark-zurich": ("train/night", "train/day")}[name]
    spoilt = [path for folder in folders for path in (tmp_path / "data" / name / "gt" / folder).rglob("*.png")]
    assert len(spoilt) == 4
    for path in spoilt:
        path.write_bytes(b"no label")
    train(recipe, tmp_path / "without")
    assert not differ(tmp_path / "with", tmp_path / "without")


def test_a_run_with_references_that_was_stopped_ends_as_if_it_had_not_been(streets, tmp_path):
    recipe = streets.override("save_every=2", "data.workers=1")
    train(recipe, tmp_path / "whole")
    with pytest.raises(ZeroDivisionError), at(3, lambda: 1 / 0):
        train(recipe, tmp_path / "stopped")
    train(recipe, tmp_path / "stopped", resume=True)
    assert same_run(tmp_path / "stopped", tmp_path / "whole")


def test_two_passes_with_references_are_a_batch_twice_as_large(streets, tmp_path):
    # Without batch norm, which would see each pass alone.
    network = (
        "network={name: encoder_decoder, encoder: tiny, decoder: deeplab_v2_reduced, weights: scratch, drop_path: 0}"
    )
    recipe = streets.override(network, "steps=1")
    train(recipe, tmp_path / "one")
    train(recipe.override("data.batch=1", "accumulate=2"), tmp_path / "two")
    ours, theirs = weights_of(tmp_path / "two"), weights_of(tmp_path / "one")
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-6) for name in ours)


def test_check_and_max_batch_know_references(streets, tmp_path, said):
    train(streets, tmp_path / "run", check=True)
    assert any("seconds a step" in line for line in said) and not (tmp_path / "run").exists()
    trial = max_batch.Trial(streets)
    noise = trial.noise(2)
    assert noise.reference.image.shape == noise.target.image.shape == (2, 3, 32, 32) and noise.reference.label is None
    assert trial(1).memory


def test_a_list_of_pairs_pairs_and_is_found_from_where_the_command_is_run(tmp_path, monkeypatch):
    recipe = adverse(tmp_path / "data", "dark-zurich")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs.csv").write_text("night_0,day_1\nnight_1,day_0\n")
    train(recipe, tmp_path / "own")
    train(recipe.override("data.reference.pairs=pairs.csv"), tmp_path / "list")
    assert not differ(tmp_path / "own", tmp_path / "list")
    (tmp_path / "pairs.csv").write_text("night_0,day_0\nnight_1,day_2\n")
    with pytest.raises(DataError, match=r"1 of 2 images of dark-zurich:train:night have no reference .*no day_2 there"):
        train(recipe.override("data.reference.pairs=pairs.csv"), tmp_path / "missing")
    assert not (tmp_path / "missing").exists()


def test_references_of_the_source_are_those_of_its_images(tmp_path):
    recipe = adverse(tmp_path / "data", "acdc").override("data.reference={set: 'acdc-ref:train:fog', of: source}")
    train(recipe.override("steps=1"), tmp_path / "run")


# Without a source


def test_a_method_without_a_source_trains_on_the_target_alone(camvid, tmp_path):
    recipe = without_source(camvid)
    assert recipe.name == "toys:SourceFree -> camvid:train:dusk" and space_of(recipe).name == "camvid-11"
    train(recipe, tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<h1>toys:SourceFree: camvid:train:dusk</h1>" in page and recipe == runs.load_recipe_of(tmp_path / "run")
    for label in (camvid / "camvid/trainannot").iterdir():
        label.unlink()
    recipe = recipe.override("evaluate.data=[]")
    train(recipe, tmp_path / "again")
    assert not differ(tmp_path / "run", tmp_path / "again")
    trial = max_batch.Trial(recipe)
    assert trial.noise(1).source is None and trial(1).memory
    train(recipe.override("data.batch=1", "accumulate=2"), tmp_path / "passes")


def test_references_of_a_source_need_one(camvid):
    with pytest.raises(RecipeError, match="data.reference.of: there is no data.source; write of: target"):
        without_source(camvid).override("data.reference={set: 'camvid:train:dusk', of: source}")


def without_source(root: Path) -> Recipe:
    tree = yaml.safe_load(RECIPE)
    tree["data"]["root"] = str(root)
    del tree["data"]["source"]
    return parse_recipe(tree | {"method": {"name": "toys:SourceFree"}}, "recipe")


@pytest.mark.parametrize(
    ("method", "change", "message"),
    [
        ("source_only", "data.source=null", "data.source: missing; method source_only learns from it: write source: {"),
        (
            "source_only",
            "data.reference.set=streets:train:day",
            "data.reference: has no effect with method source_only",
        ),
        ("toys:Referenced", None, "data.reference: missing; method toys:Referenced learns from it: write reference: {"),
        ("toys:SourceFree", None, "data.source: has no effect with method toys:SourceFree; remove it"),
    ],
)
def test_a_recipe_has_the_domains_that_its_method_learns_from_and_no_other(camvid, method, change, message):
    if not method.startswith("toys"):
        with pytest.raises(RecipeError) as caught:
            small_recipe(camvid).override(change)
    else:
        tree = yaml.safe_load(RECIPE) | {"method": {"name": method} | ({"weight": 1} if "Ref" in method else {})}
        with pytest.raises(RecipeError) as caught:
            parse_recipe(tree, "recipe")
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_references_of_another_shape_are_refused_before_anything_is_written(camvid, tmp_path):
    recipe = recipe_with(camvid, "camvid:train:dusk", {"set": "camvid:train:day", "pairs": str(camvid / "pairs.csv")})
    for name in ("0006R0_f01", "0006R0_f02"):
        for folder, mode in (("train", "RGB"), ("trainannot", "L")):
            Image.new(mode, (64, 40)).save(camvid / "camvid" / folder / f"{name}.png")
    with pytest.raises(DataError) as error:
        train(recipe, tmp_path / "run")
    assert "is 64x40, of another shape than the 64x48 of" in str(error.value)
    assert "(2 of 3 pairs are so); give references of the same shape" in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_damaged_reference_is_left_to_the_draw_that_reads_it_where_bad_images_are_skipped(camvid):
    recipe = recipe_with(camvid, "camvid:train:dusk", {"set": "camvid:train:day", "pairs": str(camvid / "pairs.csv")})
    (camvid / "camvid" / "train" / "0006R0_f02.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"0006R0_f02.png"):
        assemble(recipe, camvid, None)
    training = assemble(recipe.override("data.on_bad_image=skip"), camvid, None)
    drawn = [name for (batch,) in training.batches(4, 0) for name in batch.reference.names]
    assert len(drawn) == 8 and "0006R0_f02" not in drawn
