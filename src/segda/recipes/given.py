"""Which trained networks a method takes, and whether a recipe gives them.

A method takes a network where the signature of its class says so: `perceptual: Network` must be given, `perceptual:
Network | None = None` may be.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from segda.errors import RecipeError, nearest
from segda.recipes.build import networks_asked, parameters_of
from segda.recipes.facts import method_class

if TYPE_CHECKING:
    from segda.recipes.recipe import Recipe


def refuse_other_networks(recipe: Recipe, where: str) -> None:
    """RecipeError where `given` lacks a network that the method needs, or names one that it does not take."""
    cls, name = method_class(recipe.method, f"{where}: method"), recipe.method["name"]
    asked = networks_asked(cls) - {"student"}
    needed = {key for key in asked if parameters_of(cls)[key].default is inspect.Parameter.empty}
    if inside := asked & recipe.method.keys():
        key = min(inside)
        raise RecipeError(f"{where}: method.{key}: is a trained network; name its run: given: {{{key}: RUN}}")
    if surplus := recipe.given.keys() - asked:
        known = nearest(min(surplus), asked) if asked else "; it takes none"
        raise RecipeError(f"{where}: given.{min(surplus)}: method {name} takes no such network{known}")
    if missing := needed - recipe.given.keys():
        key = min(missing)
        raise RecipeError(
            f"{where}: given.{key}: missing; method {name} needs a trained network: given: {{{key}: RUN}}"
        )
