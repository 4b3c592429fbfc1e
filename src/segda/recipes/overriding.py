"""`--set KEY=VALUE` in the tree of a recipe, and keys of earlier versions, refused with what to write."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segda.errors import RecipeError, nearest
from segda.ground.safe_yaml import Keys, yaml_line, yaml_values
from segda.recipes.blocks import has
from segda.recipes.keys import OUTPUTS

BLOCKS: dict[str, str] = {
    "source": "source: {{set: {set}, augment: {{...}}}}",
    "target": "target: {{set: {set}, augment: {{...}}}}",
    "reference": "reference: {{set: {set}}}",
}
"""What to write for a domain of `data`."""

OLD_KEYS: dict[str, str] = {
    "recompute": "activation_checkpointing",
    "data.source_augment": "data.source.augment",
    "data.target_augment": "data.target.augment",
    "data.rare_class": "data.source.rare_class",
    "data.target_labels": "data.target.labels",
    "method.anchor": "method.feature_distance",
}
"""What keys of earlier versions are called now."""


def refuse_old_keys(tree: Mapping[str, Any], where: str) -> None:
    """RecipeError for a key of an earlier version, with the line to write in its place."""
    for old, new in OLD_KEYS.items():
        block, _, key = old.rpartition(".")
        holder = tree.get(block) if block else tree
        if isinstance(holder, Mapping) and key in holder:
            raise RecipeError(f"{where}: {old}: is called {new} now; rename it")
    if "pseudo_labels" in tree:
        raise RecipeError(
            f"{where}: pseudo_labels: is a stage now; write stages: {{teacher: {{train: {{use: [methods/advent]}}}}, "
            "labels: {pseudo-label: {runs: [teacher], rule: {...}}}, last: {train: {data.target.labels: labels}}}"
        )


def refuse_odd_domains(tree: Mapping[str, Any], where: str) -> None:
    """RecipeError for a domain of `data` that is no block, or for no target, with what to write."""
    data = tree.get("data")
    if not isinstance(data, Mapping):
        return  # said by the schema
    for domain, block in BLOCKS.items():
        given = data.get(domain)
        if isinstance(given, str):
            raise RecipeError(f"{where}: data.{domain}: is a block now; write {block.format(set=repr(given)[:80])}")
        if given is None and domain == "target":
            raise RecipeError(f"{where}: data.target: missing; write {block.format(set='NAME:SPLIT')}")
        if given is not None and not isinstance(given, Mapping):
            write = block.format(set="NAME:SPLIT")
            raise RecipeError(f"{where}: data.{domain}: must be a block of keys (got {given!r:.80}); write {write}")


def _refuse_old_setting(key: str, text: str, value: Any) -> None:
    """RecipeError for a key of an earlier version, with the option to write in its place."""
    for old, new in OLD_KEYS.items():
        if key == old or key.startswith(f"{old}."):
            raise RecipeError(f"--set {key}: is called {new} now; write --set {new}{key.removeprefix(old)}={text:.80}")
    if key.partition(".")[0] == "pseudo_labels":
        raise RecipeError(f"--set {key}: is a stage now; write --set STAGE:KEY=VALUE, such as labels:rule.floor=0.2")
    if key.removeprefix("data.") in BLOCKS and isinstance(value, str):
        raise RecipeError(f"--set {key}: is a block now; write --set {key}.set={text:.80}")


def setting(key: str, value: Any) -> str:
    """KEY=VALUE as `--set` takes it."""
    return f"{key}={yaml_line(value)}"


def set_in_stages(tree: dict[str, Any], setting: str) -> list[Keys]:
    """Sets a key, in all stages that have it or in one; returns the keys that changed."""
    key, equals, text = setting.partition("=")
    stages = tree.get("stages", {})
    stage, colon, rest = key.partition(":")
    if colon:
        if not stages:
            raise RecipeError(f"--set {key}: the recipe has no stages; leave out {stage}:")
        if stage not in stages:
            raise RecipeError(f"--set {key}: the recipe has no stage {stage!r}{nearest(stage, stages)}")
        kind, holder = next(iter(stages[stage].items()))
        return [("stages", stage, kind, *_set(holder, f"{rest}{equals}{text}"))]
    if (key in OUTPUTS or key.startswith("given.")) and text in stages:
        raise RecipeError(f"--set {setting}: {text} is a stage; write ./{text} for the folder, or STAGE:{setting}")
    keys = tuple(key.split("."))
    own = [name for name, content in stages.items() if has(content.get("train"), keys)]
    if own and (keys[-1] == "name" or has(tree, (*keys, "name"))):
        raise RecipeError(f"--set {key}: stages differ in it; write STAGE:{setting}, the stages: {', '.join(stages)}")
    changed = [("stages", name, "train", *_set(stages[name]["train"], setting)) for name in own]
    return [_set(tree, setting), *changed]


def _set(tree: dict[str, Any], setting: str) -> Keys:
    """Sets one key; returns it."""
    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise RecipeError(f"--set {setting!r}: write KEY=VALUE, for example optim.lr=1e-4")
    try:
        value = yaml_values(text)
    except ValueError as error:
        raise RecipeError(f"--set {key}: {text!r:.80} is not a YAML value: {error}") from error
    _refuse_old_setting(key, text, value)
    *parents, last = key.split(".")
    for parent in parents:
        inner = tree.get(parent)
        if inner is None:
            inner = tree[parent] = {}
        if not isinstance(inner, dict):
            raise RecipeError(f"--set {key}: {parent} is {inner!r:.80}, not a block of keys")
        tree = inner
    tree[last] = value
    return (*parents, last)
