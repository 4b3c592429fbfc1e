"""What segda knows of its methods and networks without asking them is what they say.

`python tests/recipes/test_derived.py` writes it anew.
"""

import json
from functools import cache

from segda.methods import METHODS
from segda.networks import CHOICES, NETWORKS
from segda.recipes.blocks import compose, shipped
from segda.recipes.build import parameters_of
from segda.recipes.derived import FILE, derived
from segda.recipes.recipe import load_recipe, shipped_recipe
from segda.recipes.schema import recipe_schema

checked = cache(load_recipe)


def settings(cls, given):
    parameters = [value for key, value in parameters_of(cls).items() if key != given]
    return ", ".join(value.name if value.default is value.empty else f"[{value.name}]" for value in parameters)


def choices(name):
    return "; ".join(f"{key}: {', '.join(values)}" for key, values in CHOICES[name].items())


def changed(name):
    """The blocks that checking a recipe changes: of 1 it may make 1.0, which is another text."""
    written = compose(name)[0].values
    blocks = {"network": checked(name).network, "method": checked(name).method}
    return {key: block for key, block in blocks.items() if json.dumps(block) != json.dumps(written.get(key))}


def said_by_the_types():
    recipes = {name: changed(name) for name in shipped()}
    return {
        "methods": {name: settings(cls, "student") for name, cls in METHODS.items()},
        "networks": {name: f"{settings(cls, 'class_names')} ({choices(name)})" for name, cls in NETWORKS.items()},
        "recipes": {name: blocks for name, blocks in recipes.items() if blocks},
        "schema": recipe_schema(),
    }


def as_text(values):
    return json.dumps(values, indent=1) + "\n"


def test_the_file_is_what_the_types_say():
    # As text: the order counts, and whether a number is 1 or 1.0.
    assert as_text(derived()) == as_text(said_by_the_types()), f"write it anew: python {__file__}"


def test_a_shipped_recipe_is_printed_as_if_it_had_been_checked():
    for name in shipped():
        assert shipped_recipe(name).to_yaml(defaults=False) == checked(name).to_yaml(defaults=False), name


if __name__ == "__main__":
    FILE.write_text(as_text(said_by_the_types()), encoding="utf-8")
