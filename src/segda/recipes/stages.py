"""Recipes of several stages, each of which trains, labels, translates or measures: see `Recipe.stages`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from segda.errors import RecipeError, nearest
from segda.recipes.blocks import Composed, merged
from segda.recipes.complaints import explain
from segda.recipes.keys import OUTPUTS, Ensemble, Labelling, Translating

if TYPE_CHECKING:
    from segda.recipes.recipe import Recipe

KINDS: dict[str, str] = {
    "train": "{train: ...}",
    "pseudo-label": "{pseudo-label: ...}",
    "translate": "{translate: ...}",
    "evaluate": "{evaluate: ...}",
}
"""What a stage does, and how it is written."""


@dataclass(frozen=True)
class Stage:
    """One stage of a recipe: trains a recipe, labels, translates or measures."""

    name: str
    recipe: Recipe | None = None
    labelling: Labelling | None = None
    translating: Translating | None = None
    ensemble: Ensemble | None = None
    outputs: tuple[tuple[str, str], ...] = ()
    """Keys of the recipe, or of the labelling, that stand for the output of an earlier stage, and that stage."""

    @property
    def needs(self) -> tuple[str, ...]:
        """The earlier stages whose output it takes."""
        if self.translating:
            return (self.translating.run,)
        uses = self.labelling or self.ensemble
        return tuple(dict.fromkeys((*(uses.runs if uses else ()), *(stage for _, stage in self.outputs))))


def outputs(tree: Mapping[str, Any]) -> dict[str, str]:
    """The keys of a recipe that may stand for the output of a stage -> what that stage does."""
    return OUTPUTS | {f"given.{name}": "train" for name in tree.get("given") or {}}


def stages_in(recipe: Recipe, where: str, parse: Callable[[Mapping[str, Any], str], Recipe]) -> tuple[Stage, ...]:
    """The stages, each that trains with its whole recipe: the keys that all share, and in their place its own.

    A key of OUTPUTS whose value is a stage's name stands for its output. `expect` and `data.target.labels` among the
    shared keys are of the last one. RecipeError for what is no stage, or asks for one that does not come before.

    parse: reads the recipe of a stage; a stage has no stages.
    """
    source = recipe._source
    whole = Composed(recipe.model_dump(mode="json", exclude_unset=True), source.comments, source.head)
    found: dict[str, Stage] = {}
    trains = [name for name, content in recipe.stages.items() if "train" in content]
    for name, content in recipe.stages.items():
        at = f"{where}: stages.{name}"
        if not re.fullmatch(r"\w[\w.+-]*", name):
            raise RecipeError(f"{at}: cannot be part of a folder's name; use letters, digits and _ . + -")
        if len(content) != 1 or (kind := next(iter(content))) not in KINDS:
            kinds = ", ".join(content) or "nothing"
            raise RecipeError(f"{at}: unknown stage kind ({kinds}); a stage is {' or '.join(KINDS.values())}")
        if kind == "evaluate" and not recipe.evaluate.data:
            raise RecipeError(f"{at}: has no effect without evaluate.data; name labelled data there")
        if kind in ("pseudo-label", "evaluate"):
            found[name] = _using_stage(name, kind, content[kind], found, at)
            continue
        if kind == "translate":
            found[name] = _translating_stage(name, content[kind], found, at)
            continue
        for key in content[kind].keys() & {"use", "stages"}:
            raise RecipeError(f"{at}: {key}: only a file can name blocks, and no stage has stages; write the keys out")
        shared = {key: value for key, value in whole.values.items() if key != "stages"}
        if name != trains[-1]:
            shared = shared | {"expect": None, "data": merged(shared["data"], {"target": {"labels": None}})}
        elif recipe.data.target.labels and _value(content[kind], "data.target.labels") in recipe.stages:
            raise RecipeError(
                f"{at}: data.target.labels: the stage takes those of a stage, the recipe itself "
                f"{recipe.data.target.labels}; remove one (--set stages={{}} trains on the folder alone)"
            )
        own = whole.below(("stages", name, kind))
        found[name] = _training_stage(
            name, Composed(shared, whole.comments, whole.head).merged(own), found, recipe, at, parse
        )
    names = [*found]
    after = names[names.index(trains[-1]) + 1 :] if trains else names
    idle = [one for one in after if found[one].ensemble is None]
    if idle:
        raise RecipeError(
            f"{where}: stages.{idle[-1]}: is the last and trains nothing; let the last be a train stage, but for those "
            "that evaluate"
        )
    return tuple(found.values())


def _using_stage(name: str, kind: str, content: Mapping[str, Any], before: Mapping[str, Stage], at: str) -> Stage:
    """A stage that labels or measures."""
    block: type[Labelling] | type[Ensemble] = Labelling if kind == "pseudo-label" else Ensemble
    try:
        told = block.model_validate(content)
    except ValidationError as error:
        raise RecipeError(f"{at}: {explain(error, block)}") from error
    trained = [one for one, stage in before.items() if stage.recipe is not None]
    for run in told.runs:
        if run not in trained:
            raise RecipeError(f"{at}: runs: no stage {run!r} trains before it{nearest(run, trained)}")
    if isinstance(told, Ensemble):
        return Stage(name, ensemble=told)
    from segda.pseudo_labelling.refine import REFINEMENTS
    from segda.pseudo_labelling.rules import RULES
    from segda.recipes.build import check

    rule, refine = check(RULES, told.rule, f"{at}: rule", ()), told.refine
    outputs: tuple[tuple[str, str], ...] = ()
    if refine is not None:
        refine = check(REFINEMENTS, refine, f"{at}: refine", ())
        outputs = (("refine.run", refine["run"]),) if refine.get("run") in trained else ()
    return Stage(name, labelling=told.model_copy(update={"rule": rule, "refine": refine}), outputs=outputs)


def _translating_stage(name: str, content: Mapping[str, Any], before: Mapping[str, Stage], at: str) -> Stage:
    from segda.recipes.build import build, check
    from segda.recipes.facts import method_class
    from segda.training.enlarging import ENLARGEMENTS

    try:
        translating = Translating.model_validate(content)
    except ValidationError as error:
        raise RecipeError(f"{at}: {explain(error, Translating)}") from error
    trained = {one: stage.recipe for one, stage in before.items() if stage.recipe is not None}
    recipe = trained.get(translating.run)
    if recipe is None:
        raise RecipeError(
            f"{at}: run: no stage {translating.run!r} trains before it{nearest(translating.run, trained)}"
        )
    if "translator" not in method_class(recipe.method).products:
        raise RecipeError(f"{at}: run: {translating.run} trains no translator; name a stage that does")
    if translating.enlarge is not None:
        enlarge = check(ENLARGEMENTS, translating.enlarge, f"{at}: enlarge", ())
        build(ENLARGEMENTS, enlarge, f"{at}: enlarge")  # looks at its values
        translating = translating.model_copy(update={"enlarge": enlarge})
    return Stage(name, translating=translating)


def _training_stage(
    name: str,
    content: Composed,
    before: Mapping[str, Stage],
    recipe: Recipe,
    at: str,
    parse: Callable[[Mapping[str, Any], str], Recipe],
) -> Stage:
    takes = []
    for key, kind in outputs(content.values).items():
        value = _value(content.values, key)
        if not isinstance(value, str) or value not in recipe.stages:
            continue
        if value not in before:
            raise RecipeError(f"{at}: {key}: stage {value} does not come before it; move it up")
        if kind not in recipe.stages[value]:
            raise RecipeError(f"{at}: {key}: {value} is no {kind} stage; name one")
        takes.append((key, value))
    # null takes a block of the shared keys away: the network, of a method without a student.
    own = parse({key: value for key, value in content.values.items() if value is not None}, at)
    own._source = Composed({}, content.comments, content.head)
    return Stage(name, own, outputs=tuple(takes))


def _value(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, Mapping) else None
    return tree
