"""Stages that translate: a translator, its source's images, and a training on them, as one recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import ADAM, METHOD_SETTINGS, small_recipe
from segda import run as runs
from segda.commands.train import train
from segda.commands.translate import translate
from segda.data.files.images import read_image
from segda.data.sets.translated import read_summary
from segda.errors import RecipeError, RunError
from segda.recipes.recipe import Recipe, load_recipe, parse_recipe, stages_of
from segda.training.stages import plan

TRANSLATOR = {
    "train": {
        "network": None,
        "optim": None,
        "method": {"name": "cyclegan", **METHOD_SETTINGS["cyclegan"]},
        "players": {"generators": ADAM, "discriminators": ADAM},
        "evaluate": {"data": []},
    }
}
STAGES = {
    "translator": TRANSLATOR,
    "translated": {"translate": {"run": "translator"}},
    "last": {"train": {"data": {"source": {"images": "translated"}}}},
}


def staged(root: Path, stages: dict) -> Recipe:
    tree = small_recipe(root).override("steps=2", "evaluate.data=[]").model_dump(mode="json", exclude_unset=True)
    return parse_recipe(tree | {"stages": stages}, "small recipe")


def test_three_stages_leave_what_three_commands_leave(camvid, tmp_path, said):
    recipe = staged(camvid, STAGES)
    train(recipe, tmp_path / "one" / "run")

    translator, images, run = (tmp_path / "three" / name for name in ("translator", "images", "run"))
    train(small_recipe(camvid, "cyclegan").override("steps=2"), translator)
    translate(translator, "camvid:train:day", images, root=camvid, precision="32")
    train(small_recipe(camvid).override("steps=2", "evaluate.data=[]", f"data.source.images={images}"), run)

    ours, theirs = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.png")}
        for folder in (tmp_path / "one" / "run-translated", images)
    )
    assert ours == theirs and len(ours) == 4
    for one, other in (("run-translator", translator), ("run", run)):
        product = "translator" if other == translator else "student"
        ours, theirs = (
            runs.read_tensors(runs.product_path(folder, product)) for folder in (tmp_path / "one" / one, other)
        )
        assert all((ours[name] == theirs[name]).all() for name in theirs)
    titles = [line for line in said if line.startswith("stage ")]
    assert titles[1].startswith("stage 2 of 3, translated: camvid:train:day, translated -> ")

    said.clear()
    train(recipe, tmp_path / "one" / "run")
    assert [line.endswith("is there; skipped") for line in said].count(True) == 3


def test_images_of_another_network_are_refused_before_anything_starts(camvid, tmp_path):
    recipe, out = staged(camvid, STAGES), tmp_path / "run"
    train(recipe, out)
    path = runs.product_path(tmp_path / "run-translator", "translator")
    tensors = {name: value + 1 for name, value in runs.read_tensors(path).items()}
    runs.save_product(path, runs.load_recipe_of(path.parent).method, 2, tensors)
    with pytest.raises(RunError, match=r"run-translated was made by another network than that of .*run-translator"):
        train(recipe, out)
    back = staged(camvid, STAGES | {"translated": {"translate": {"run": "translator", "data": "camvid:val"}}})
    with pytest.raises(
        RunError, match=r"run-translated holds images of camvid:train:day, made to look like the target"
    ):
        train(back, out)


def test_a_stage_enlarges_what_is_painted_and_does_not_go_on_with_what_was_enlarged_otherwise(camvid, tmp_path):
    def enlarging(space: float | None) -> Recipe:
        enlarge = None if space is None else {"name": "joint", "space": space, "colour": 0.1}
        halved = {domain: {"augment": {"resize": [32, 24], "crop": [24, 24]}} for domain in ("source", "target")}
        translator = {"train": TRANSLATOR["train"] | {"data": halved}}
        translated = {"translate": {"run": "translator", "enlarge": enlarge}}
        return staged(camvid, STAGES | {"translator": translator, "translated": translated})

    train(enlarging(0.5), tmp_path / "run")
    assert read_summary(tmp_path / "run-translated")["enlarge"] == {"name": "joint", "space": 0.5, "colour": 0.1}
    sizes = {tuple(read_image(path).shape) for path in (tmp_path / "run-translated").rglob("*.png")}
    assert sizes == {(3, 48, 64)}
    for other in (0.6, None):
        with pytest.raises(RunError, match=r"run-translated was enlarged otherwise \(\{'name': 'joint', 'space': 0.5"):
            train(enlarging(other), tmp_path / "run")


def test_a_stage_translates_the_domain_that_it_does_not_paint_unless_it_says_what(camvid, tmp_path):
    recipe = staged(camvid, STAGES | {"translated": {"translate": {"run": "translator", "to": "source"}}})
    assert plan(recipe, tmp_path / "run")[1].data == "camvid:train:dusk"
    named = staged(camvid, STAGES | {"translated": {"translate": {"run": "translator", "data": "camvid:val"}}})
    assert plan(named, tmp_path / "run")[1].data == "camvid:val"


def test_a_check_says_what_there_is_to_translate(camvid, tmp_path, said):
    train(staged(camvid, STAGES), tmp_path / "run", check=True)
    assert "4 images of camvid:train:day to translate" in said
    assert any(line.startswith("not checked: it takes") for line in said)
    assert not list(tmp_path.glob("run*"))


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ({"translated": {"translate": {"run": "tanslator"}}}, "no stage 'tanslator' trains before it; did you mean"),
        (
            {"translated": {"translate": {"run": "translator", "to": "dusk"}}},
            "to: Input should be 'target' or 'source'",
        ),
        ({"translated": {"translate": {"runs": ["translator"]}}}, "unknown key 'runs'"),
        (
            {"translated": {"translate": {"run": "translator", "enlarge": {"name": "joint", "space": 0.5}}}},
            "stages.translated: enlarge joint needs colour; add it to the recipe",
        ),
        (
            {"translated": {"translate": {"run": "translator", "enlarge": {"name": "joint", "space": 1, "colour": 0}}}},
            "enlarge.colour: 0.0 is not above 0",
        ),
        ({"last": {"train": {"data": {"source": {"images": "translator"}}}}}, "translator is no translate stage"),
        ({"translator": {"train": {}}}, "run: translator trains no translator; name a stage that does"),
        ({"last": {"translate": {"run": "translator"}}}, "is the last and trains nothing"),
    ],
)
def test_stages_that_cannot_be_are_refused(camvid, stages, message):
    with pytest.raises(RecipeError, match=message):
        staged(camvid, STAGES | stages)


def test_the_output_of_a_stage_is_a_key_of_the_one_that_takes_it(camvid):
    assert stages_of(staged(camvid, STAGES))[2].outputs == (("data.source.images", "translated"),)


def test_with_images_of_ones_own_no_translator_is_trained(tmp_path):
    # BDL's second round, or its short one, on what somebody else has translated.
    for name, trained in (("bdl_streets", 2), ("bdl_gta5_cityscapes", 3)):
        planned = plan(load_recipe(name).override("data.source.images=./mine"), tmp_path / "run")
        trains = [stage for stage in planned if stage.trains]
        assert len(trains) == trained and all(stage.recipe.method["name"] == "bdl" for stage in trains)
        assert {str(stage.recipe.data.source.images) for stage in trains} == {"mine"}
        assert all(stage.labelling is not None for stage in planned if not stage.trains)
