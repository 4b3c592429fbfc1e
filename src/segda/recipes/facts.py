"""What a recipe must say, and what it must not say, for the facts that its method declares (methods/method.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from segda.errors import RecipeError
from segda.methods import METHODS
from segda.methods.method import Method
from segda.recipes.build import class_named

if TYPE_CHECKING:
    from segda.recipes.recipe import Recipe


def method_class(spec: Mapping[str, Any], where: str = "method") -> type[Method]:
    """The class that a recipe's method block names; RecipeError for a module that is no method."""
    found = class_named(METHODS, spec, where)
    if not issubclass(found, Method):
        raise RecipeError(f"{where}.name: {spec['name']!r} is no method; derive it from segda.methods.method.Method")
    return found


def student_missing(tree: Mapping[str, Any]) -> list[str]:
    """The keys of a student that a recipe's tree lacks, of a method that trains one."""
    try:
        trains = method_class(tree["method"]).has_student()
    except (KeyError, AttributeError, RecipeError):  # said elsewhere
        return []
    return [key for key in ("network", "optim") if trains and not tree.get(key)]


def refuse_unfit(recipe: Recipe, where: str, add_to: str) -> None:
    """RecipeError where the recipe lacks what the method must have, or gives what has no effect with it.

    Pseudo-labels may be missing: an earlier stage may make them, so they are asked for when a training begins.
    """
    method, name = method_class(recipe.method, f"{where}: method"), recipe.method["name"]
    players = set(method.players) - {"student"}
    if surplus := recipe.players.keys() - players:
        raise RecipeError(f"{where}: players.{min(surplus)}: method {name} has no such player; remove it")
    if missing := players - recipe.players.keys():
        raise RecipeError(
            f"{where}: players.{min(missing)}: missing; method {name} needs an optimiser for it (name: adam, ...)"
        )
    student = {
        "network": bool(recipe.network),
        "optim": recipe.optim is not None,
        "start": recipe.start is not None,
        "exact_statistics": bool(recipe.exact_statistics),
        "activation_checkpointing": recipe.activation_checkpointing,
        "compile": recipe.compile,
        "shard": recipe.shard,
        "evaluate.data": bool(recipe.evaluate.data),
        "evaluate.every": recipe.evaluate.every > 0,
        "loss.class_weights": recipe.loss.class_weights != "none",
    }
    for key, given in student.items():
        if given and not method.has_student():
            raise RecipeError(f"{where}: {key}: has no effect with method {name}, which trains no student; remove it")
    if gone := [key for key in ("network", "optim") if not student[key] and method.has_student()]:
        raise RecipeError(f"{where}: {', '.join(gone)}: missing; add {'it' if len(gone) == 1 else 'them'} to {add_to}")
    if not recipe.stages:  # of these, the last one has a start of its own
        refuse_no_start(recipe, method, f"{where}: ")
    begin = recipe.method.get("begin", 0)
    if begin and begin >= recipe.steps:
        raise RecipeError(
            f"{where}: method.begin: {begin} is not below steps: {recipe.steps}, so that self-training would never "
            f"begin; set it lower, as to {5 * recipe.steps // 8}"
        )
    refuse_unfit_swap(recipe, method, name, where)
    if recipe.data.target.labels is not None and method.target_labels == "never":
        raise RecipeError(f"{where}: data.target.labels: has no effect with method {name}; remove it")


def refuse_no_start(recipe: Recipe, method: type[Method], where: str = "") -> None:
    """RecipeError where the method goes on from a trained network and the recipe names none."""
    if method.start == "must" and recipe.start is None:
        raise RecipeError(
            f"{where}start: missing; method {recipe.method['name']} goes on from a trained network: start: RUN (a run, "
            "or a file of its network)"
        )


def without_source() -> str:
    """The methods that need no source, by their names."""
    return ", ".join(name for name, method in METHODS.items() if method.source != "must")


def refuse_unfit_swap(recipe: Recipe, method: type[Method], name: str, where: str) -> None:
    """RecipeError where source images cannot take the target's look, or would take it twice."""
    source, target = recipe.data.source, recipe.data.target
    if target.augment.swap is not None:
        raise RecipeError(
            f"{where}: data.target.augment.swap: the source takes the target's look; set data.source.augment.swap"
        )
    if source is None or not (method.style or source.augment.swap is not None):
        return
    if method.style and source.augment.swap is not None:
        raise RecipeError(
            f"{where}: data.source.augment.swap: method {name} swaps already, by its own beta; remove one of the two"
        )
    sizes = source.augment.size, target.augment.size
    if None not in sizes and sizes[0] != sizes[1]:
        key = "crop" if target.augment.bring_to is None else "bring_to"
        raise RecipeError(
            f"{where}: data.target.augment.{key}: {list(sizes[1] or ())} is not {list(sizes[0] or ())}, that of the "
            "source, whose images take the look of the target's; give both one size"
        )
