"""Recipes as they were written earlier, and domains that are no blocks: one line says what to write."""

from __future__ import annotations

import pytest
import yaml

from conftest import RECIPE
from segda.errors import RecipeError
from segda.recipes.overriding import OLD_KEYS
from segda.recipes.recipe import load_recipe, parse_recipe


def refusal(call, *arguments) -> str:
    with pytest.raises(RecipeError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("old", "new"), OLD_KEYS.items())
def test_a_file_with_a_key_of_an_earlier_version_is_told_the_new_one(tmp_path, old, new):
    tree = yaml.safe_load(RECIPE)
    *blocks, key = old.split(".")
    holder = tree
    for block in blocks:
        holder = holder.setdefault(block, {})
    holder[key] = {"crop": [1, 2]}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(tree))
    assert refusal(load_recipe, path) == f"{path}: {old}: is called {new} now; rename it"


@pytest.mark.parametrize(("old", "new"), OLD_KEYS.items())
@pytest.mark.parametrize(("below", "value"), [("", "true"), (".crop", "[1,2]"), ("", "null")])
def test_an_option_with_a_key_of_an_earlier_version_is_told_the_new_one(old, new, below, value):
    recipe = parse_recipe(yaml.safe_load(RECIPE), "recipe")
    message = refusal(recipe.override, f"{old}{below}={value}")
    assert message == f"--set {old}{below}: is called {new} now; write --set {new}{below}={value}"


@pytest.mark.parametrize(
    ("domain", "line"),
    [
        ("source", "source: {set: 'gta5:train', augment: {...}}"),
        ("target", "target: {set: 'gta5:train', augment: {...}}"),
        ("reference", "reference: {set: 'gta5:train'}"),
    ],
)
def test_a_data_set_where_a_block_must_stand_is_told_the_block(domain, line):
    tree = yaml.safe_load(RECIPE)
    tree["data"][domain] = "gta5:train"
    assert refusal(parse_recipe, tree, "mine.yaml") == f"mine.yaml: data.{domain}: is a block now; write {line}"
    recipe = parse_recipe(yaml.safe_load(RECIPE), "recipe")
    option = refusal(recipe.override, f"data.{domain}=gta5:train")
    assert option == f"--set data.{domain}: is a block now; write --set data.{domain}.set=gta5:train"


@pytest.mark.parametrize("given", [3, ["gta5:train"], True])
@pytest.mark.parametrize("domain", ["source", "target", "reference"])
def test_what_is_no_block_at_all_is_told_what_to_write(domain, given):
    tree = yaml.safe_load(RECIPE)
    tree["data"][domain] = given
    message = refusal(parse_recipe, tree, "mine.yaml")
    assert message.startswith(
        f"mine.yaml: data.{domain}: must be a block of keys (got {given!r}); write {domain}: {{set: "
    )


@pytest.mark.parametrize("given", ["missing", "null"])
def test_a_target_must_be_there(given):
    tree = yaml.safe_load(RECIPE)
    tree["data"].pop("target") if given == "missing" else tree["data"].update(target=None)
    message = refusal(parse_recipe, tree, "mine.yaml")
    assert message == "mine.yaml: data.target: missing; write target: {set: NAME:SPLIT, augment: {...}}"


def test_a_source_must_be_there_for_a_method_that_learns_from_it():
    tree = yaml.safe_load(RECIPE)
    del tree["data"]["source"]
    assert refusal(parse_recipe, tree, "mine.yaml") == (
        "mine.yaml: data.source: missing; method source_only learns from it: write source: {set: NAME:SPLIT, "
        "augment: {...}}, or take a method that does without: source_free"
    )


def test_an_unknown_key_of_a_domain_is_told_the_nearest():
    tree = yaml.safe_load(RECIPE)
    tree["data"]["target"]["lables"] = "folder"
    assert "data.target: unknown key 'lables'; did you mean 'labels'?" in refusal(parse_recipe, tree, "mine.yaml")
