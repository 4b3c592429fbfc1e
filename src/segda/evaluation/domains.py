"""Which domain a measured data set belongs to: the target that a recipe adapts to, its source, or neither."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from segda.data.sets.specs import kinds_of
from segda.recipes.recipe import Recipe

Domain = Literal["target", "source", ""]
"""Empty where nobody can tell."""

ORDER: tuple[Domain, ...] = ("target", "source", "")
"""In tables."""


def domain_of(data: str, recipe: Recipe) -> Domain:
    """The domain that the data set is more like: `camvid:test:dusk` is of the target `camvid:train:dusk`."""
    target = likeness(data, recipe.data.target.set)
    source = 0 if recipe.data.source is None else likeness(data, recipe.data.source.set)
    if target == source:
        return ""
    return "target" if target > source else "source"


def likeness(one: str, other: str) -> int:
    """2: a data set of one name in the same conditions, whatever the split; 1: the conditions of one are among the
    other's, as no condition always is; 0: neither. Of unions, the likest parts count.
    """
    found = [
        2 if ours == theirs else int(ours <= theirs or theirs <= ours)
        for name, ours in kinds_of(one)
        for named, theirs in kinds_of(other)
        if name == named
    ]
    return max(found, default=0)


def domains_of(data: Sequence[str], recipes: Iterable[Recipe]) -> dict[str, Domain]:
    """Each data set's domain: the target first, then the source, then the others, each in the order of evaluate.data.

    The first recipe counts whose target is among them. Where no recipe's is, they keep the first one's order.
    """
    found: dict[str, Domain] = {}
    for recipe in recipes:
        known = {spec: number for number, spec in enumerate(recipe.evaluate.data)}
        ordered = sorted(dict.fromkeys(data), key=lambda spec: known.get(spec, len(known)))
        here = {spec: domain_of(spec, recipe) for spec in ordered}
        if "target" in here.values():
            return dict(sorted(here.items(), key=lambda one: ORDER.index(one[1])))
        found = found or here
    return found or dict.fromkeys(data, "")


def with_domain(data: str, domain: Domain) -> str:
    """`streets:val:night (target)`."""
    return f"{data} ({domain})" if domain else data
