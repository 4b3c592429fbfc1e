"""The reference of recipes: each key with its type, its default and what its doc string says, made of the types."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from docs_build.marks import code, definition, safe
from segda.data.sets.told import WRITE
from segda.ground.safe_yaml import yaml_line
from segda.methods import METHODS
from segda.networks import NETWORKS
from segda.pseudo_labelling.refine import REFINEMENTS
from segda.pseudo_labelling.rules import RULES
from segda.recipes.keys import Ensemble, Labelling, Translating
from segda.recipes.schema import class_schemas, model_schema, whole_schema
from segda.training.enlarging import ENLARGEMENTS

HEAD = """# Recipe keys

Made from the types that check a recipe. What the recipes of this package say, and where each number is from, `segda
recipe NAME` prints; [Recipes](../RECIPES.md) is the introduction. `segda recipe --schema` prints the same as a JSON
schema, with which an editor completes the keys and underlines what is wrong.

A key without a default is required. `--set data.batch=2` changes one.

"""


def page() -> str:
    """The page, in Markdown."""
    whole = whole_schema()
    text = HEAD + "## A recipe\n\n" + _keys(whole, "", whole)
    for name, places in _blocks(whole):
        schema = whole["$defs"][name]
        at = f"At {', '.join(code(place) for place in places)}."
        text += f"## {name} {{ #{name.lower()} }}\n\n{_about(schema)}{at}\n\n{_keys(schema, places[0], whole)}"
    text += _stages()
    text += _classes("Methods", "method", whole["properties"]["method"]["anyOf"], METHODS)
    text += _classes("Networks", "network", whole["$defs"]["network"]["anyOf"], NETWORKS)
    text += _table_of("Rules of pseudo-labels", "rule", RULES)
    text += _table_of("What labels are fused with", "refine", REFINEMENTS)
    text += _table_of("What enlarges painted images", "enlarge", ENLARGEMENTS)
    text += "## Images of your own { #own }\n\nThe keys of the YAML file behind `folder:FILE.yaml:SPLIT`; [what they "
    text += "mean](../DATA.md#folders-of-your-own). `*` is a name of your own.\n\n"
    return text + "".join(definition(code(".".join(place)), safe(told)) for place, told in WRITE.items())


def _keys(schema: Mapping[str, Any], place: str, whole: Mapping[str, Any] = {"$defs": {}}) -> str:
    """A definition for each key of a block; one that says nothing of itself is what its block is."""
    required = schema.get("required", ())
    parts = []
    for key, one in schema["properties"].items():
        if "const" in one and key == "name":
            continue
        where = f"{place}.{key}" if place else key
        inside = " ".join(_about(whole["$defs"].get(name, {})).partition(". ")[0] for name in _names(one)[:1])
        text = safe(one["description"]) if "description" in one else inside.strip().rstrip(".") + "."
        kind = _kind(one)
        if one.get("default", "") is None and key not in required:
            kind = kind.removesuffix(f" or {code('null')}")  # which the default says
        parts.append(definition(f"**{code(key)}** {kind}{_default(one, key in required)}", text, where))
    return "".join(parts)


def _default(one: Mapping[str, Any], required: bool) -> str:
    """The default as YAML writes it."""
    if required:
        return ""
    return f" = {code(yaml_line(one['default']))}" if "default" in one else ", may be left out"


def _about(schema: Mapping[str, Any]) -> str:
    """The first paragraph of what a block says of itself, unless it is of its keys."""
    first = " ".join(schema.get("description", "").partition("\n\n")[0].split())
    of_a_key = first.partition(":")[0].split(",")[0] in schema.get("properties", {})
    return "" if of_a_key or not first else safe(first) + "\n\n"


def _kind(one: Mapping[str, Any]) -> str:
    """The type of a value, in words."""
    if "$ref" in one:
        name = one["$ref"].rpartition("/")[2]
        return f"[{name}](#{'networks' if name == 'network' else name.lower()})"
    several = one.get("anyOf") or one.get("oneOf")
    if several:
        if any("const" in inner.get("properties", {}).get("name", {}) for inner in several):
            return "[a method](#methods)"
        return " or ".join(dict.fromkeys(_kind(inner) for inner in several))
    if "enum" in one or "const" in one:
        return " or ".join(code(str(value)) for value in one.get("enum", [one.get("const")]))
    kind = one.get("type", "")
    if kind == "array":
        if "prefixItems" in one:
            return f"\\[{', '.join(_kind(inner) for inner in one['prefixItems'])}\\]"
        return f"list of {_kind(one.get('items', {}))}"
    if kind == "object":
        inner = one.get("additionalProperties")
        return f"mapping to {_kind(inner)}" if isinstance(inner, Mapping) else "mapping"
    if kind in ("integer", "number"):
        return {"integer": "whole number", "number": "number"}[kind] + _bounds(one)
    if kind == "null":
        return code("null")
    return {"string": "path" if one.get("format") == "path" else "text", "boolean": "true or false"}.get(
        kind, "any value"
    )


def _bounds(one: Mapping[str, Any]) -> str:
    signs = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    found = [f"{sign} {one[key]:g}" for key, sign in signs.items() if key in one]
    return f" ({', '.join(found)})" if found else ""


def _blocks(whole: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Each named block with the places where a recipe has it, in the order in which they are met."""
    met: dict[str, list[str]] = {}
    todo = [(whole, "")]
    while todo:
        schema, place = todo.pop(0)
        for key, one in schema.get("properties", {}).items():
            for name in _names(one):
                if name == "network":
                    continue
                star = ".*" if isinstance(one.get("additionalProperties"), Mapping) else ""
                where = f"{place}.{key}{star}" if place else f"{key}{star}"
                if name not in met:
                    todo.append((whole["$defs"][name], where))
                if where not in met.setdefault(name, []):
                    met[name].append(where)
            if key == "method":
                todo += [(cls, "method") for cls in one["anyOf"]]
    yield from met.items()


def _names(one: Any) -> list[str]:
    """The blocks that a value may be."""
    if isinstance(one, Mapping):
        if "properties" in one:
            return []
        own = [one["$ref"].rpartition("/")[2]] if isinstance(one.get("$ref"), str) else []
        inner = [name for key, value in one.items() if key != "discriminator" for name in _names(value)]
        return list(dict.fromkeys(own + inner))
    return [name for value in one for name in _names(value)] if isinstance(one, list) else []


def _stages() -> str:
    text = "## Stages { #stages-of-a-recipe }\n\nWhat `stages` holds: a name, and one of these "
    text += "([how](../RECIPES.md#stages)).\n\n"
    text += definition(
        "**`train`** mapping", "What differs from the keys above; the stage trains with them.", "stages.*.train"
    )
    for kind, model in (("pseudo-label", Labelling), ("translate", Translating), ("evaluate", Ensemble)):
        schema = model_schema(model)
        text += f"### {kind}\n\n{_about(schema)}{_keys(schema, f'stages.*.{kind}')}"
    return text


def _classes(title: str, place: str, schemas: list[dict[str, Any]], table: Mapping[str, type]) -> str:
    text = (
        f"## {title}\n\nOf `{place}`; `name` says which. One of your own is `module:Class` ([how](../ADDING.md)).\n\n"
    )
    for name, schema in zip(table, schemas, strict=False):
        home = f"[source](../../src/{table[name].__module__.replace('.', '/')}.py)"
        text += f"### {name} {{ #{place}-{name} }}\n\n{safe(schema['description'])} {home}\n\n"
        text += _keys(schema, f"{place}-{name}")
    return text


def _table_of(title: str, place: str, table: Mapping[str, type]) -> str:
    text = f"## {title}\n\nOf `{place}`; `name` says which.\n\n"
    for name, schema in zip(table, class_schemas(table, {}), strict=True):
        about = _about(schema | {"description": table[name].__doc__})
        text += f"### {name} {{ #{place}-{name} }}\n\n{about}{_keys(schema, f'{place}-{name}')}"
    return text
