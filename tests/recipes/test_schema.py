"""The JSON schema of recipes: it knows what the recipes know, and an editor's check by it refuses nothing that is
shipped.
"""

import json
import re
from functools import cache

import pytest

from segda.cli.main import main
from segda.commands.recipe import recipe as recipe_command
from segda.errors import RecipeError
from segda.ground.safe_yaml import read_yaml
from segda.methods import METHODS
from segda.networks import NETWORKS
from segda.recipes.blocks import shipped, shipped_blocks
from segda.recipes.recipe import load_recipe
from segda.recipes.schema import recipe_schema

SCHEMA = cache(recipe_schema)
KINDS = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool,
         "null": type(None)}  # fmt: skip


def wrong(value, schema, where=""):
    """What of a value a schema refuses, by the words of the standard that these schemas are made of; ours is small."""
    if "$ref" in schema:
        schema = SCHEMA()["$defs"][schema["$ref"].rpartition("/")[2]]
    known = {"anyOf", "const", "enum", "type", "properties", "required", "additionalProperties", "items",
             "prefixItems", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minItems", "maxItems",
             "pattern", "title", "description", "default", "discriminator", "format", "$schema", "$defs",
             "propertyNames"}  # fmt: skip
    assert schema.keys() <= known, schema.keys() - known
    if "anyOf" in schema and all(list(wrong(value, one, where)) for one in schema["anyOf"]):
        yield f"{where}: none of the alternatives"
    if ("const" in schema and value != schema["const"]) or ("enum" in schema and value not in schema["enum"]):
        yield f"{where}: not the value"
    if "type" in schema:
        kind = KINDS[schema["type"]]
        if not isinstance(value, kind) or (isinstance(value, bool) and schema["type"] in ("integer", "number")):
            yield f"{where}: no {schema['type']}"
            return
    if isinstance(value, dict):
        inner = schema.get("properties", {})
        yield from (f"{where}: no {key}" for key in schema.get("required", ()) if key not in value)
        for key, one in value.items():
            if key in inner:
                yield from wrong(one, inner[key], f"{where}.{key}")
            elif schema.get("additionalProperties") is False:
                yield f"{where}: unknown {key}"
            elif isinstance(schema.get("additionalProperties"), dict):
                yield from wrong(one, schema["additionalProperties"], f"{where}.{key}")
    if isinstance(value, list):
        items = schema.get("prefixItems", [])
        if len(value) < schema.get("minItems", 0) or len(value) > schema.get("maxItems", len(value)):
            yield f"{where}: wrong length"
        for number, one in enumerate(value):
            kind = items[number] if number < len(items) else schema.get("items", {})
            yield from wrong(one, kind or {}, f"{where}.{number}")
    if isinstance(value, str) and "pattern" in schema and not re.search(schema["pattern"], value):
        yield f"{where}: does not match"
    if isinstance(value, int | float) and not isinstance(value, bool):
        low, high = schema.get("minimum", value), schema.get("maximum", value)
        if not low <= value <= high or value <= schema.get("exclusiveMinimum", value - 1):
            yield f"{where}: out of bounds"


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_recipe_is_one_by_the_schema(name):
    assert list(wrong(load_recipe(name).model_dump(mode="json", exclude_unset=True), SCHEMA())) == []


def test_every_block_is_one_by_the_schema():
    for path in shipped_blocks().values():
        assert list(wrong(read_yaml(path), SCHEMA())) == [], path


def test_every_method_and_network_is_in_it():
    for table, schema in ((METHODS, SCHEMA()["properties"]["method"]), (NETWORKS, SCHEMA()["$defs"]["network"])):
        names = [one["properties"]["name"].get("const") for one in schema["anyOf"] if "properties" in one]
        assert names == [*table, None]


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 0}, {"steps": "many"}, {"stepz": 4}, {"device": 3}, {"logger": "guess"}, {"use": "methods/ease"},
        {"evaluate": {"how": "twice"}}, {"method": {"name": "minent", "entropy": 1}}, {"method": {"name": "guess"}},
        {"network": {"name": "hrda", "over": {"name": "guess"}}}, {"optim": {"name": "adamw", "lr": "fast"}},
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused(change):
    tree = load_recipe("ease_streets").model_dump(mode="json", exclude_unset=True)
    assert list(wrong(tree | change, SCHEMA()))


def test_a_class_of_ones_own_may_have_any_settings():
    tree = load_recipe("ease_streets").model_dump(mode="json", exclude_unset=True)
    assert not list(wrong(tree | {"method": {"name": "mine.py:Mine", "strength": 3}}, SCHEMA()))


def test_the_command_prints_it_or_writes_it(tmp_path, capsys):
    assert main(["recipe", "--schema"]) == 0
    assert json.loads(capsys.readouterr().out) == SCHEMA()
    assert main(["recipe", "--schema", "--to", str(tmp_path / "recipe.json")]) == 0
    assert json.loads((tmp_path / "recipe.json").read_text()) == SCHEMA()
    for given in ({}, {"name": "ease_streets", "schema": True}, {"schema": True, "settings": ["steps=1"]}):
        with pytest.raises(RecipeError, match="give a RECIPE, or --schema alone"):
            recipe_command(**given)
