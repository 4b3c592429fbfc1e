"""What every shipped recipe resolves to, key by key: a change of a block must not move another recipe unnoticed.

After a change that is meant, write the file anew: `python tests/recipes/test_resolved.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from segda.recipes.blocks import shipped
from segda.recipes.recipe import load_recipe, stages_of

FILE = Path(__file__).parent / "resolved.json"
THEN = json.loads(FILE.read_text())


def resolved(name: str) -> dict[str, Any]:
    """All that the recipe says, and what it leaves to its defaults."""
    return leaves(load_recipe(name).model_dump(mode="json"))


def leaves(tree: dict, prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return found


def test_no_recipe_has_come_or_gone_unnoticed():
    assert set(shipped()) == set(THEN)


@pytest.mark.parametrize("name", THEN)
def test_a_recipe_resolves_to_what_it_did(name):
    now, then = resolved(name), THEN[name]
    assert {key: (then.get(key), now.get(key)) for key in then | now if then.get(key) != now.get(key)} == {}
    assert now.keys() == then.keys()


@pytest.mark.parametrize("name", [name for name in THEN if name.startswith("esl_")])
def test_the_stages_of_esl_are_advent_its_labels_and_esl(name):
    recipe = load_recipe(name)
    teacher, labels, last = stages_of(recipe)
    advent = load_recipe(name.replace("esl_", "advent_"))
    assert teacher.recipe == advent.model_copy(update={"expect": None, "seed": recipe.seed})
    assert labels.labelling.runs == ["teacher"]
    assert last.recipe == recipe.override("stages={}", "data.target.labels=labels")
    assert last.outputs == (("data.target.labels", "labels"),)


if __name__ == "__main__":
    lines = [f"{json.dumps(name)}: {json.dumps(resolved(name))}" for name in sorted(shipped())]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
