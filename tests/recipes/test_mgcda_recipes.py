"""MGCDA's recipes: what each stage learns from, and whose labels and networks it takes."""

from __future__ import annotations

import pytest

from segda.recipes.recipe import load_recipe, stages_of
from segda.recipes.stages import Stage

RECIPES = {
    "mgcda_cityscapes_dark-zurich": ("cityscapes:train", "dark-zurich:train:day", "dark-zurich:train:twilight"),
    "mgcda_filter_cityscapes_dark-zurich": ("cityscapes:train", "dark-zurich:train:day", "dark-zurich:train:twilight"),
    "mgcda_cityscapes_acdc": ("cityscapes:train", "acdc-ref:train", "acdc:train"),
}
"""Source, the target's day, its twilight."""

PAINTED = dict.fromkeys(RECIPES, "dark-zurich:train:twilight") | {"mgcda_cityscapes_acdc": "acdc-ref:train"}
"""What the source is painted as first."""

NETWORKS = ("original", "labels", "twilight", "refined", "night")
"""The stages of networks and labels; four others paint."""


def stages_by_name(name: str) -> dict[str, Stage]:
    return {stage.name: stage for stage in stages_of(load_recipe(name))}


@pytest.mark.parametrize("name", RECIPES)
def test_the_stages_learn_from_unions_with_labels_of_the_stage_before(name):
    source, day, twilight = RECIPES[name]
    stages = stages_by_name(name)
    original, labels, middle, refined, night = (stages[one] for one in NETWORKS)
    assert (original.recipe.data.source.set, original.needs) == (source, ())
    assert (labels.labelling.data, labels.labelling.runs) == (day, ["original"])
    sets = [stage.recipe.data.source.set for stage in (middle, night)]
    assert sets == [f"{source}+{day}", f"{source}+{twilight}"]
    assert set(middle.needs) == {"labels", "original", "painted_twilight"}
    assert set(night.needs) == {"refined", "twilight", "painted_night"}
    for style, target in (("twilight", PAINTED[name]), ("night", night.recipe.data.target.set)):
        painter = stages[f"to_{style}"].recipe
        assert painter.method["name"] == "cyclegan" and painter.data.source.set == source
        assert painter.data.target.set == target and stages[f"painted_{style}"].needs == (f"to_{style}",)
    assert (refined.labelling.data, refined.needs) == (twilight, ("twilight", "original"))
    assert refined.labelling.refine["references"] == day
    for stage in (labels, refined):
        assert stage.labelling.rule == {"name": "fixed", "level": 0}
    # Nothing of the night is learnt from: its labels are nobody's, and a supervised step does not look at the target.
    for stage in (original, middle, night):
        assert "night" not in stage.recipe.data.source.set and stage.recipe.data.target.labels is None


@pytest.mark.parametrize("name", RECIPES)
def test_networks_learn_from_balanced_epochs_and_translators_do_not(name):
    stages = stages_by_name(name)
    for stage in ("original", "twilight", "night"):
        source = stages[stage].recipe.data.source
        assert source.balanced.model_dump() == {"images": 100, "least": 3000, "most": 4000, "place_by_class": True}
        assert (source.augment.scale, source.augment.scale_step) == ((0.7, 1.3), 0.1)
        assert source.augment.short_side == (450, 1100) and source.augment.crop == (600, 600)
    for stage in ("to_twilight", "to_night"):
        source = stages[stage].recipe.data.source
        assert source.balanced is None and source.rare_class is None and source.augment.scale is None
    for stage in ("painted_twilight", "painted_night"):
        assert stages[stage].translating.enlarge == {"name": "joint", "space": 0.5, "colour": 0.1}


def test_gcma_is_mgcda_with_the_filter_and_one_weight():
    mgcda, gcma = (
        stages_by_name(name)["refined"].labelling.refine
        for name in ("mgcda_cityscapes_dark-zurich", "mgcda_filter_cityscapes_dark-zurich")
    )
    changed = {
        key: (mgcda.get(key), gcma.get(key)) for key in mgcda.keys() | gcma.keys() if mgcda.get(key) != gcma.get(key)
    }
    assert changed == {"alignment": ("geometry", "filter"), "low": (0.3, 0.6), "depth": ("dark-zurich-disparity", None)}


def test_streets_go_by_dusk_in_three_trainings_of_a_third_of_the_steps():
    stages = stages_by_name("mgcda_streets")
    original, labels, middle, refined, night = (stages[one] for one in NETWORKS)
    assert [stage.recipe.steps for stage in (original, middle, night)] == [400] * 3
    assert labels.labelling.data == refined.labelling.data == "streets:train:dusk"
    assert refined.labelling.refine["alignment"] == "none"
