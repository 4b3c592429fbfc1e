"""What a recipe changes of the one that a run was begun with, and what of it may be changed when the run goes on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from segda.errors import RecipeError, RunError, nearest
from segda.recipes.recipe import Recipe
from segda.recipes.stages import outputs

Tree = Mapping[str, Any]
Changes = dict[str, tuple[Any, Any]]
"""Dotted key -> its value then and now."""

FREE = (
    "paper", "expect", "data.root", "data.workers", "data.on_bad_image", "activation_checkpointing", "compare_every",
    "patience", "log_every", "save_every", "keep_every", "keep", "evaluate.every", "evaluate.data",
    "evaluate.report_images", "logger",
)  # fmt: skip
"""Keys that may change when a run goes on: neither what is learnt nor what a score means depends on them.

device and precision are not among them: with another one, the same step has other last bits.
"""


AT_THE_END = ("steps", "exact_statistics", "evaluate", "device", "precision", "compile", "shard")
"""Keys, beside the FREE ones, that have a part in what is still done with a run whose last step is done."""


def admit(out: Path, begun_with: Recipe, recipe: Recipe, allowed: Sequence[str] = (), done: bool = False) -> Changes:
    """The changes that are `allowed` (keys, or blocks of them) of a run in `out` that is to go on; not the FREE ones.

    done: the run has done its last step, so that it may change only AT_THE_END: its recipe would otherwise say that
    it has learnt by what it never did. RunError when there are other changes. RecipeError for an allowed key that no
    recipe has.
    """
    before, now = begun_with.model_dump(mode="json"), recipe.model_dump(mode="json")
    known = _keys(before) | _keys(now)
    for name in allowed:
        if name not in known | {PROCESSES, FILES}:
            raise RecipeError(f"--allow-changed {name}: no such key{nearest(name, known)}")
    changed = {key: change for key, change in differences(before, now).items() if not _within(key, FREE)}
    late = {key: change for key, change in changed.items() if done and not _within(key, AT_THE_END)}
    if late:
        raise RunError(
            f"{out} was begun with another recipe ({told(late)}) and has done its last step, so it would learn nothing "
            "of the change; change it back, use a new --out, put an older checkpoint in place of last.pt, or train on: "
            f"--resume --set steps=N {_allowing(['steps', *late])}"
        )
    refused = {key: change for key, change in changed.items() if not _within(key, allowed)}
    if refused:
        raise RunError(
            f"{out} was begun with another recipe ({told(refused)}); change it back, use a new --out, or go on with "
            f"the changed one: --resume {_allowing(refused)}"
        )
    return changed


def _allowing(keys: Iterable[str]) -> str:
    return " ".join(f"--allow-changed {key}" for key in keys)


PROCESSES = "processes"
"""What is allowed to change with it is no key of a recipe: how many processes share a step."""


def admit_processes(out: Path, before: int, now: int, allowed: Sequence[str]) -> Changes:
    """The number of processes, where it is another than the run was begun with and that is `allowed`; else RunError."""
    if before == now:
        return {}
    if PROCESSES not in allowed:
        raise RunError(
            f"{out} was begun by {before} process{'es' * (before > 1)}, a step having scenes of each; these are {now}; "
            f"start as many, use a new --out, or go on with other steps: --resume --allow-changed {PROCESSES}"
        )
    return {PROCESSES: (before, now)}


FILES = "files"
"""What is allowed to change with it is no key of a recipe either: the images that a run learns from."""


def admit_files(out: Path, changed: Changes, allowed: Sequence[str] = ()) -> Changes:
    """The data sets whose files are others than the run was begun with, where that is allowed; else RunError."""
    if changed and FILES not in allowed:
        raise RunError(
            f"{out} was begun with other data ({told(changed)}); put them back, use a new --out, or go on with these: "
            f"--resume --allow-changed {FILES}"
        )
    return changed


def refuse_another(out: Path, begun_with: Recipe, recipe: Recipe) -> None:
    """RunError unless the run in `out` is of this recipe, wherever the data lie."""
    changed = differences(without_root(begun_with), without_root(recipe))
    if changed:
        raise RunError(f"{out} was begun with another recipe ({told(changed)}); change it back or use a new --out")


def without_root(recipe: Recipe) -> dict[str, Any]:
    """The recipe's values, but for where the data lie: they may have moved."""
    tree = recipe.model_dump(mode="json")
    tree["data"].pop("root")
    return tree


def fingerprint(recipe: Recipe, run: Path, but: Sequence[str] = ()) -> str:
    """A text that is the same for runs of recipes that differ in no key, except where data and earlier stages lie.

    run: the run's folder; `but`: keys in which they may differ, too.
    """
    tree = without_root(recipe)
    for key in but:
        tree.pop(key)
    for key in outputs(tree):
        *blocks, last = key.split(".")
        block = tree
        for name in blocks:
            block = block[name] or {}  # a domain may be missing
        place = block.get(last)
        if isinstance(place, str) and Path(place).name.startswith(f"{run.name}-"):
            block[last] = f"its stage {Path(place).name.removeprefix(f'{run.name}-')}"
    return json.dumps(tree, sort_keys=True)


def differences(before: Tree, now: Tree, where: str = "") -> Changes:
    found: Changes = {}
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found |= differences(old, new, f"{where}{key}.")
        elif old != new:
            found[f"{where}{key}"] = (old, new)
    return found


def told(changes: Changes) -> str:
    return "; ".join(f"{key}: {before!r} then, {after!r} now" for key, (before, after) in changes.items())


def _within(key: str, names: Sequence[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in names)


def _keys(tree: Tree, where: str = "") -> set[str]:
    """Dotted names of all keys of a recipe, and of its blocks."""
    found = {f"{where}{key}" for key in tree}
    return found.union(*(_keys(value, f"{where}{key}.") for key, value in tree.items() if isinstance(value, dict)))
