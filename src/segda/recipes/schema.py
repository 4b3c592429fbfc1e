"""The JSON schema of recipes, for editors that complete keys and underline wrong ones while a YAML file is written.

Made of the types: of `Recipe`, and of the arguments of each method and network. What is missing is not in it, since a
file with `use:` leaves out what its blocks say, and so does a stage: `segda recipe FILE` says it.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from segda.methods import METHODS
from segda.networks import NETWORKS
from segda.recipes.build import networks_asked, parameters_of
from segda.recipes.recipe import Recipe

DIALECT = "https://json-schema.org/draft/2020-12/schema"

OWN_CLASS = {"type": "object", "properties": {"name": {"type": "string", "pattern": ":"}}, "required": ["name"]}
"""A class of somebody's own, `module:Class`, whose settings nobody here knows."""


def recipe_schema() -> dict[str, Any]:
    """Of a recipe's file, with or without `use`."""
    schema = Recipe.model_json_schema()
    shared = schema.pop("$defs")
    properties = schema["properties"]
    properties["use"] = {
        "type": "array",
        "items": {"type": "string"},
        "description": "Blocks, from methods, networks and benchmarks; later ones win, and this file's own keys.",
    }
    shared["network"] = {"anyOf": [*_classes(NETWORKS, shared), OWN_CLASS]}
    properties["method"] = {"anyOf": [*_classes(METHODS, shared), OWN_CLASS]}
    properties["network"] = {"anyOf": [{"$ref": "#/$defs/network"}, {"type": "null"}]}
    named = {"$schema": DIALECT, "title": "A recipe of segda", **{key: schema[key] for key in schema if key != "title"}}
    return _optional(named | {"$defs": shared})


def _classes(table: Mapping[str, type], shared: dict[str, Any]) -> list[dict[str, Any]]:
    """What each class of a table takes; definitions that they need go to `shared`."""
    found = []
    for name, cls in table.items():
        nested, properties = networks_asked(cls), {"name": {"const": name}}
        for key, parameter in parameters_of(cls).items():
            if key in ("self", "class_names", "student"):
                continue
            if key in nested:
                if table is NETWORKS:  # what a method is given is no key of its block
                    properties[key] = {"$ref": "#/$defs/network"}
                continue
            one = TypeAdapter(parameter.annotation).json_schema(ref_template="#/$defs/{model}")
            shared |= one.pop("$defs", {})
            if parameter.default not in (inspect.Parameter.empty, None):
                one["default"] = TypeAdapter(Any).dump_python(parameter.default, mode="json")
            properties[key] = one
        about = (inspect.getdoc(cls) or "").partition("\n")[0]
        found.append({"type": "object", "description": about, "properties": properties, "additionalProperties": False})
    return found


def _optional(tree: Any) -> Any:
    """A schema in which no key is required, but for the name of a class of somebody's own. What has no name is then one
    of several kinds, perhaps of more than one.
    """
    if tree is OWN_CLASS:
        return tree
    if isinstance(tree, Mapping):
        named = {"anyOf" if key == "oneOf" else key: value for key, value in tree.items()}
        return {
            key: _optional(value) for key, value in named.items() if not (key == "required" and isinstance(value, list))
        }
    return [_optional(one) for one in tree] if isinstance(tree, list) else tree
