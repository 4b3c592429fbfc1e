"""What every shipped recipe resolves to, against what it did when each was one flat file (resolved.json)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from segda.recipes.blocks import shipped
from segda.recipes.recipe import load_recipe, stages_of

THEN = json.loads((Path(__file__).parent / "resolved.json").read_text())

RENAMED = {
    "data.source": "data.source.set",
    "data.source_augment": "data.source.augment",
    "data.rare_class": "data.source.rare_class",
    "data.target": "data.target.set",
    "data.target_augment": "data.target.augment",
    "data.target_labels": "data.target.labels",
    "recompute": "activation_checkpointing",
    "method.anchor": "method.feature_distance",
}
"""Keys, and blocks of them, as they were called then -> as they are called now."""

GONE = {"pseudo_labels"}
"""Keys that nothing replaces by a new name; `test_the_stages_of_esl_are_what_its_pseudo_labels_were` holds this one."""

ADDED = {"stages"}
"""Keys that did not exist then and that a recipe gives a value."""

CHANGED: dict[tuple[str, str], tuple[Any, str]] = {}
"""(recipe, key) -> the value that was chosen since, and why."""


def leaves(tree: dict, prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return found


def renamed(key: str) -> str:
    for then, now in RENAMED.items():
        if key == then or key.startswith(f"{then}."):
            return now + key.removeprefix(then)
    return key


def of_key(key: str, blocks: set[str]) -> bool:
    return any(key == block or key.startswith(f"{block}.") for block in blocks)


def test_no_recipe_has_come_or_gone_unnoticed():
    assert set(shipped()) == set(THEN)


@pytest.mark.parametrize("name", THEN)
def test_a_recipe_resolves_to_what_it_did_as_one_file(name):
    then = {renamed(key): value for key, value in leaves(THEN[name]).items() if not of_key(key, GONE)}
    then |= {key: value for (recipe, key), (value, _) in CHANGED.items() if recipe == name}
    recipe = load_recipe(name)
    now = leaves(recipe.model_dump(mode="json"))
    assert {key: (then[key], now.get(key)) for key in then if then[key] != now.get(key)} == {}
    assert then.keys() <= now.keys()
    # What did not exist then has no value but its default.
    chosen = leaves(recipe.model_dump(mode="json", exclude_unset=True))
    assert [key for key in chosen.keys() - then.keys() if not of_key(key, ADDED)] == []


@pytest.mark.parametrize("name", [name for name in THEN if name.startswith("esl_")])
def test_the_stages_of_esl_are_what_its_pseudo_labels_were(name):
    then, recipe = THEN[name]["pseudo_labels"], load_recipe(name)
    teacher, labels, last = stages_of(recipe)
    named = load_recipe(then["recipe"]).model_copy(update={"expect": None, "seed": recipe.seed})
    assert teacher.recipe == named and labels.labelling.runs == ["teacher"] and then["overrides"] == []
    assert labels.labelling.rule == then["rule"]
    assert last.recipe == recipe.override("stages={}", "data.target.labels=labels")
    assert last.outputs == (("data.target.labels", "labels"),)
