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


@pytest.mark.parametrize("name", ["fda_gta5_cityscapes", "fda_synthia_cityscapes"])
def test_the_stages_of_fda_are_three_rounds_of_three_networks(name):
    recipe = load_recipe(name)
    stages = {stage.name: stage for stage in stages_of(recipe)}
    alone = recipe.override("stages={}")
    for number, (which, before) in enumerate([("first", None), ("second", "first"), ("third", "second")]):
        for beta in ("01", "05", "09"):
            changes = [f"method.beta=0.{beta}"]
            changes += ["method.entropy_after=null", f"data.target.labels={before}_labels"] if before else []
            assert stages[f"{which}_{beta}"].recipe == alone.override(*changes)
        runs = [f"{which}_{beta}" for beta in ("01", "05", "09")]
        if number < 2:
            labelling = stages[f"{which}_labels"].labelling
            assert (labelling.runs, labelling.resize) == (runs, (1024, 512)) and labelling.rule["softmax"] == "after"
    assert stages["ensemble"].ensemble.runs == runs and stages["ensemble"].ensemble.mean == "probabilities"
    assert len(stages) == 9 + 2 + 1 and alone.evaluate.resize == (1344, 576) and alone.evaluate.softmax == "before"


if __name__ == "__main__":
    lines = [f"{json.dumps(name)}: {json.dumps(resolved(name))}" for name in sorted(shipped())]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
