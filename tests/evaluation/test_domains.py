"""Which domain a data set is of: by name and conditions, whatever the split; and the order of tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import small_recipe
from segda.data.sets.specs import kinds_of
from segda.evaluation.domains import domain_of, domains_of, with_domain


def recipe_of(source: str, target: str, *evaluated: str):
    recipe = small_recipe(Path("data"))
    data = recipe.data.model_copy(
        update={
            "source": recipe.data.source.model_copy(update={"set": source}),
            "target": recipe.data.target.model_copy(update={"set": target}),
        }
    )
    evaluate = recipe.evaluate.model_copy(update={"data": evaluated})
    return recipe.model_copy(update={"data": data, "evaluate": evaluate})


@pytest.mark.parametrize(
    ("source", "target", "data", "domain"),
    [
        ("streets:train:day", "streets:train:night", "streets:val:night", "target"),
        ("streets:train:day", "streets:train:night", "streets:test:day", "source"),
        ("streets:train:day", "streets:train:night", "streets:val:fog", ""),
        ("streets:train:day", "streets:train:night", "streets:val", ""),  # half of either
        ("gta5:train", "cityscapes:train", "cityscapes:val", "target"),
        ("cityscapes:train", "acdc:train", "acdc:val:night", "target"),
        ("cityscapes:train", "cityscapes-foggy:train:refined,0.01", "cityscapes-foggy:val", "target"),
        ("a:train:x,y", "a:train:y", "a:val:y,x", "source"),
        ("gta5:train*2+synthia:train", "folder:my/set.yaml:train", "synthia:val", "source"),
        ("gta5:train", "folder:my/set.yaml:train", "folder:my/set.yaml:val", "target"),
        ("gta5:train", "folder:my/set.yaml:train", "folder:other/set.yaml:val", ""),
        ("camvid:train:day", "camvid:train:day", "camvid:val:day", ""),  # a run on the target's labels
    ],
)
def test_a_data_set_is_of_the_domain_whose_name_and_conditions_it_has(source, target, data, domain):
    assert domain_of(data, recipe_of(source, target)) == domain


def test_a_spec_that_nobody_can_open_has_a_kind_too():
    assert kinds_of("no such*x+:a:b,c") == [("no such", frozenset()), ("", frozenset("bc"))]
    recipe = small_recipe(Path("data"))
    assert domain_of("+**::", recipe) == ""


def test_without_a_source_only_the_target_is_known():
    recipe = recipe_of("camvid:train:day", "camvid:train:dusk")
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"source": None})})
    assert [domain_of(data, recipe) for data in ("camvid:test:dusk", "camvid:val:day")] == ["target", ""]


def test_the_target_comes_first_then_the_source_then_what_is_neither():
    recipe = recipe_of("streets:train:day", "streets:train:night", "streets:val:day", "streets:val:fog")
    found = domains_of(["streets:val:fog", "streets:val:day", "streets:test:night"], [recipe])
    assert list(found.items()) == [
        ("streets:test:night", "target"), ("streets:val:day", "source"), ("streets:val:fog", ""),
    ]  # fmt: skip


def test_where_no_data_set_is_of_the_target_they_keep_the_recipes_order():
    recipe = recipe_of("streets:train:day", "camvid:train:dusk", "streets:val:fog", "streets:val:day")
    data = ["streets:val:rain", "streets:val:day", "streets:val:fog"]
    assert list(domains_of(data, [recipe])) == ["streets:val:fog", "streets:val:day", "streets:val:rain"]
    assert domains_of(data, []) == dict.fromkeys(data, "")


def test_the_first_recipe_whose_target_is_there_decides():
    other = recipe_of("streets:train:day", "camvid:train:dusk")
    ours, last = (recipe_of("streets:train:day", f"streets:train:{condition}") for condition in ("fog", "night"))
    found = domains_of(["streets:val:day", "streets:val:night", "streets:val:fog"], [other, ours, last])
    assert next(iter(found.items())) == ("streets:val:fog", "target") and found["streets:val:night"] == ""


def test_a_domain_is_said_behind_the_name_where_it_is_known():
    assert with_domain("streets:val:night", "target") == "streets:val:night (target)"
    assert with_domain("streets:val:night", "") == "streets:val:night"
