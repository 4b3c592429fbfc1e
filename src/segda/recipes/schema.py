"""The JSON schema of recipes, for editors that complete keys and underline wrong ones while a YAML file is written.

Made of the types: of `Recipe`, and of the arguments of each method and network, with what their doc strings say of each
key. What is missing is not in it, since a
file with `use:` leaves out what its blocks say, and so does a stage: `segda recipe FILE` says it.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, TypeAdapter

from segda.methods import METHODS
from segda.networks import NETWORKS
from segda.recipes.build import networks_asked, parameters_of
from segda.recipes.complaints import models_in
from segda.recipes.recipe import Recipe
from segda.recipes.said import about, said

DIALECT = "https://json-schema.org/draft/2020-12/schema"

OWN_CLASS = {"type": "object", "properties": {"name": {"type": "string", "pattern": ":"}}, "required": ["name"]}
"""A class of somebody's own, `module:Class`, whose settings nobody here knows."""


def recipe_schema() -> dict[str, Any]:
    """Of a recipe's file, with or without `use`."""
    return _optional(whole_schema())


def whole_schema() -> dict[str, Any]:
    """Of a recipe whose blocks are all written out; what is required is in it."""
    schema = model_schema(Recipe)
    shared = schema.pop("$defs")
    properties = schema["properties"]
    properties["use"] = {
        "type": "array",
        "items": {"type": "string"},
        "description": "Blocks, from methods, networks and benchmarks; later ones win, and this file's own keys.",
    }
    shared["network"] = {"anyOf": [*class_schemas(NETWORKS, shared), OWN_CLASS]}
    properties["method"] |= {"anyOf": [*class_schemas(METHODS, shared), OWN_CLASS]}
    properties["network"] |= {"anyOf": [{"$ref": "#/$defs/network"}, {"type": "null"}]}
    for key in ("method", "network"):  # of any mapping
        for word in ("type", "additionalProperties", "default"):
            properties[key].pop(word, None)
    named = {"$schema": DIALECT, "title": "A recipe of segda", **{key: schema[key] for key in schema if key != "title"}}
    return named | {"$defs": shared}


def model_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Of a block of a recipe, with what is said of its keys, and its blocks' below `$defs`."""
    return _explained(model.model_json_schema(), model)


def _explained(schema: dict[str, Any], *models: type[BaseModel]) -> dict[str, Any]:
    """A schema in which the keys of these models, and of those inside them, say what they are."""
    shared, todo = schema.get("$defs", {}), list(models)
    for model in todo:
        fields = model.model_fields
        for key, text in said(model, fields).items():
            shared.get(model.__name__, schema)["properties"][key]["description"] = text
        inside = [one for field in fields.values() for one in models_in(field.annotation)]
        todo += [one for one in dict.fromkeys(inside) if one not in todo]
    return schema


def class_schemas(table: Mapping[str, type], shared: dict[str, Any]) -> list[dict[str, Any]]:
    """What each class of a table takes; definitions that they need go to `shared`."""
    found = []
    for name, cls in table.items():
        nested, properties, required = networks_asked(cls), {"name": {"const": name}}, ["name"]
        told = said(cls, parameters_of(cls))
        for key, parameter in parameters_of(cls).items():
            if key in ("self", "class_names", "student"):
                continue
            if parameter.default is inspect.Parameter.empty:
                required.append(key)
            if key in nested:
                if table is NETWORKS:  # what a method is given is no key of its block
                    properties[key] = {"$ref": "#/$defs/network"} | _words(told, key)
                continue
            one = TypeAdapter(parameter.annotation).json_schema(ref_template="#/$defs/{model}")
            one = _explained(one, *models_in(parameter.annotation))
            shared |= one.pop("$defs", {})
            if "properties" in one:  # a block, which others may have as well
                title = one["title"]
                shared[title], one = one, {"$ref": f"#/$defs/{title}"}
            if parameter.default not in (inspect.Parameter.empty, None):
                one["default"] = TypeAdapter(Any).dump_python(parameter.default, mode="json")
            properties[key] = one | _words(told, key)
        known = {"properties": properties, "required": required, "additionalProperties": False}
        found.append({"type": "object", "description": about(cls), **known})
    return found


def _words(told: Mapping[str, str], key: str) -> dict[str, str]:
    return {"description": told[key]} if key in told else {}


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
