"""Recipes: everything needed to repeat a run, as one flat YAML file and as one typed object.

`load_recipe` reads a shipped name or a path, `Recipe.override` changes single keys ("optim.lr=1e-4"), `build` makes the
network and the method from their blocks: keyword arguments are the settings, so a recipe and Python use the same names.
Numbers that a paper chose have no default here; plumbing (workers, log interval, precision) has.
"""

from __future__ import annotations

import inspect
import math
import typing
from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from torch import nn

from segda.data.augment import Augment
from segda.data.stream import RareClass
from segda.errors import RecipeError, nearest
from segda.hardware import DeviceName, PrecisionName
from segda.parsing import one_line, read_yaml, yaml_values
from segda.parts.rules import RULES
from segda.training.optim import OPTIMISERS, Optim


class Block(BaseModel):
    """A part of a recipe: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Paper(Block):
    """Whose method and numbers these are."""

    title: str
    arxiv: str | None = None
    code: str | None = None
    """owner/repository, and the commit where it is known."""


class Expect(Block):
    """What a run of this recipe should reach, and who says so."""

    data: str
    miou: float
    note: str


class Data(Block):
    """The two domains and how their images are drawn."""

    root: Path | None = None
    """Folder of the data sets; None: $SEGDA_DATA, then data/."""
    space: str | None = None
    """Label space that the network learns; None: the source's own."""
    source: str
    """Labelled domain, `name:split[:condition]`."""
    target: str
    """Unlabelled domain; its labels are never opened."""
    target_labels: Path | None = None
    """Folder of pseudo-labels of the target, written by `segda pseudo-label`; for methods that learn from them."""
    batch: int = Field(ge=1)
    """Scenes of each domain in a step."""
    workers: int = Field(0, ge=0)
    """Processes that read ahead; the stream is the same for any number."""
    source_augment: Augment
    target_augment: Augment
    rare_class: RareClass | None = None
    """Rare-class sampling of the source; None: every image once an epoch."""


class Evaluate(Block):
    """How a network is scored."""

    data: list[str] = []
    """Data sets scored at the end of a run; the first one's images are the report's pictures."""
    every: int = Field(0, ge=0)
    """Also score after every so many steps; 0: only at the end."""
    resize: tuple[int, int] | None
    """Box (width, height) that images are brought to; None: as they are."""
    shape: Literal["keep", "stretch", "pad"] = "keep"
    """How an image gets into the box, see Augment."""
    kernel: Literal["bilinear", "bicubic"] = "bilinear"
    """How it is resampled, see Augment."""
    how: Literal["whole", "slide"]
    window: tuple[int, int] | None = None
    """Of `slide`: height, width."""
    stride: tuple[int, int] | None = None
    """Of `slide`: step down, step right."""
    scales: tuple[Annotated[float, Field(gt=0, le=10)], ...] = Field((1.0,), min_length=1)
    """Factors of that size: the network sees each, and the mean of the probabilities counts."""
    flip: bool = False
    """Average with the mirrored image, at each size."""
    report_images: int = Field(12, ge=0)
    """Pictures in report.html."""

    @model_validator(mode="after")
    def _slide_has_a_window(self) -> Evaluate:
        if (self.how == "slide") != (self.window is not None and self.stride is not None):
            raise ValueError("window and stride belong to how: slide, which needs both")
        return self

    @model_validator(mode="after")
    def _each_scale_once(self) -> Evaluate:
        if len(set(self.scales)) < len(self.scales):
            raise ValueError("scales: each factor counts once; name it once")
        return self


class PseudoLabels(Block):
    """Where `segda train --stages` takes data.target_labels from."""

    recipe: str
    """Of the run that labels the target: a shipped name or a path."""
    overrides: list[str] = []
    """Keys that are changed in it, as KEY=VALUE."""
    rule: dict[str, Any]
    """Which of its pixels are kept, see parts/rules.py."""


class Recipe(Block):
    """Everything needed to repeat a run."""

    paper: Paper | None = None
    expect: Expect | None = None
    seed: int = Field(ge=0)
    steps: int = Field(ge=1)
    """Optimisation steps."""
    data: Data
    network: dict[str, Any]
    method: dict[str, Any]
    optim: Optim
    """Of the student."""
    players: dict[str, Optim] = {}
    """Of the method's other players, by their name."""
    pseudo_labels: PseudoLabels | None = None
    evaluate: Evaluate
    device: DeviceName = "auto"
    precision: PrecisionName = "auto"
    log_every: int = Field(20, ge=1)
    """Steps between two lines of log.jsonl; values are means over them."""
    save_every: int = Field(500, ge=1)
    """Steps between two checkpoints, of which the last is kept and `keep` older ones."""
    keep: int = Field(0, ge=0)
    """Older checkpoints that are kept beside the last."""
    keep_every: int = Field(0, ge=0)
    """Steps between two snapshots of the network, of which all are kept; 0: none."""

    @model_validator(mode="after")
    def _rates_last_to_the_end(self) -> Recipe:
        for where, optim in (("optim", self.optim), *((f"players.{name}", one) for name, one in self.players.items())):
            if optim.decay_steps is not None and optim.decay_steps < self.steps:
                raise ValueError(f"{where}.decay_steps {optim.decay_steps} is before the last of {self.steps} steps")
        return self

    @property
    def name(self) -> str:
        """Method and domains in a few words, for titles."""
        return f"{self.method.get('name')} {self.data.source} -> {self.data.target}"

    def override(self, *settings: str) -> Recipe:
        """A new recipe with "dotted.key=value" applied; the value is YAML. RecipeError for an unknown key."""
        tree = self.model_dump(mode="json", exclude_unset=True)
        for setting in settings:
            _set(tree, setting)
        return parse_recipe(tree, "--set")

    def to_yaml(self) -> str:
        """The recipe as YAML: itself a valid recipe."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def shipped() -> dict[str, Path]:
    """The recipes that come with segda, by name."""
    folder = Path(str(files("segda") / "recipes"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_recipe(name: str | Path) -> Recipe:
    """A shipped recipe's name, or the path of a YAML file -> Recipe, checked as far as that goes without data."""
    known = shipped()
    path = known.get(str(name), Path(name))
    if str(name) not in known and path.suffix not in (".yaml", ".yml"):
        raise RecipeError(f"unknown recipe {str(name)!r}{nearest(name, known)} (or give the path of a .yaml file)")
    tree = read_mapping(
        path,
        absent=f"no recipe at {path}; `segda list recipes` names the shipped ones",
        kind=f"no recipe; a recipe is a mapping such as {known.get('ebda_streets', 'recipes/*.yaml')}",
    )
    return parse_recipe(tree, str(path.name if str(name) in known else path))


def read_mapping(path: Path, absent: str, kind: str) -> dict[str, Any]:
    """The mapping that a YAML file holds; RecipeError, saying `absent` where there is no file, `kind` where it holds
    something else.
    """
    try:
        tree = read_yaml(path)
    except FileNotFoundError:
        raise RecipeError(absent) from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read as text ({error}); give a YAML file") from error
    except ValueError as error:
        raise RecipeError(f"{path}: {error}; correct the file") from error
    if not isinstance(tree, dict):
        raise RecipeError(f"{path}: holds {kind}")
    return tree


def parse_recipe(tree: Mapping[str, Any], where: str) -> Recipe:
    """A tree of plain values -> Recipe; also checks the network's and the method's block against their signatures."""
    from segda.methods import METHODS
    from segda.networks import NETWORKS

    try:
        recipe = Recipe.model_validate(tree)
    except ValidationError as error:
        raise RecipeError(f"{where}: {explain(error, Recipe)}") from error
    network = check(NETWORKS, recipe.network, f"{where}: network", ("class_names",))
    method = check(METHODS, recipe.method, f"{where}: method", ("student",))
    if recipe.pseudo_labels is not None:
        check(RULES, recipe.pseudo_labels.rule, f"{where}: pseudo_labels.rule", ())
    others = set(getattr(class_named(METHODS, recipe.method, where), "players", ())) - {"student"}
    if surplus := recipe.players.keys() - others:
        raise RecipeError(f"{where}: players.{min(surplus)}: method {method['name']} has no such player; remove it")
    if missing := others - recipe.players.keys():
        raise RecipeError(
            f"{where}: players.{min(missing)}: missing; method {method['name']} needs an optimiser for it "
            "(name: adam, ...)"
        )
    recipe = recipe.model_copy(update={"network": network, "method": method})
    odd = next((key for key in not_finite(recipe.model_dump()) if key != "data.rare_class.temperature"), None)
    if odd is not None:
        raise RecipeError(f"{where}: {odd}: must be a finite number; write another")
    return recipe


def not_finite(tree: Any, where: str = "") -> Iterator[str]:
    """The dotted keys of the numbers in a tree that are NaN or infinite."""
    if isinstance(tree, float) and not math.isfinite(tree):
        yield where
    pairs = tree.items() if isinstance(tree, Mapping) else enumerate(tree) if isinstance(tree, (list, tuple)) else ()
    for key, value in pairs:
        yield from not_finite(value, f"{where}.{key}" if where else str(key))


def build(table: Mapping[str, type], spec: Mapping[str, Any], where: str, **given: Any) -> Any:
    """The class that `spec` names, made with its settings and with `given` (what no recipe can know)."""
    cls = class_named(table, spec, where)
    settings = _arguments(cls, spec, where, tuple(given))
    return cls(**given, **settings)


def check(table: Mapping[str, type], spec: Mapping[str, Any], where: str, given: tuple[str, ...]) -> dict[str, Any]:
    """The spec with values in their final plain types; RecipeError for an unknown, missing or wrongly typed setting."""
    settings = _arguments(class_named(table, spec, where), spec, where, given)
    plain = {key: TypeAdapter(Any).dump_python(value, mode="json") for key, value in settings.items()}
    return {"name": spec["name"], **plain}


def class_named(table: Mapping[str, type], spec: Mapping[str, Any], where: str) -> type:
    """The class that `spec` names: in the table, or a user's own as "module:Class"."""
    name = spec.get("name")
    if name is None:
        raise RecipeError(f"{where} has no name; known: {', '.join(sorted(table))}")
    if isinstance(name, str) and name in table:
        return table[name]
    if not isinstance(name, str) or ":" not in name:
        raise RecipeError(f"{where}.name: unknown {name!r}{nearest(name, table)}")
    if not all(issubclass(known, nn.Module) for known in table.values()):
        raise RecipeError(f"{where}.name: {name!r} is none of them; known: {', '.join(sorted(table))}")
    module, _, attribute = name.partition(":")  # a user's own class: "my_package.my_file:Mine"
    # Every Exception: of a module that is not ours, and of a name that can be none.
    try:
        found = getattr(import_module(module), attribute)
    except Exception as error:
        raise RecipeError(f"{where}.name: cannot import {name!r}: {one_line(error)}") from error
    # Nothing else may be called with what a recipe says: "os:system" is a name, too.
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise RecipeError(f"{where}.name: {name!r} is no torch module; name a class of your own that is one")
    return found


def _arguments(cls: type, spec: Mapping[str, Any], where: str, given: tuple[str, ...]) -> dict[str, Any]:
    parameters = dict(inspect.signature(cls).parameters)
    hints = typing.get_type_hints(cls.__init__)
    label = f"{where} {spec['name']}"
    for key in given:
        if parameters.pop(key, None) is None:
            raise RecipeError(f"{label} takes no {key}, which each such class must; see docs/ADDING.md")
    for key in spec:
        if key != "name" and key not in parameters:
            raise RecipeError(f"{label} has no setting {key!r}{nearest(key, parameters)}")
    missing = [key for key, value in parameters.items() if value.default is value.empty and key not in spec]
    if missing:
        raise RecipeError(
            f"{label} needs {', '.join(missing)}; add {'it' if len(missing) == 1 else 'them'} to the recipe"
        )
    settings = {}
    for key, value in spec.items():
        if key == "name":
            continue
        try:
            settings[key] = TypeAdapter(hints.get(key, Any)).validate_python(value)
        except ValidationError as error:
            raise RecipeError(f"{where}.{key}: {explain(error, hints[key])}") from error
    return settings


def explain(error: ValidationError, model: Any) -> str:
    """One of pydantic's complaints in one line: where, what, the value, and the nearest name of an unknown key."""
    # An unknown key is often the missing one misspelt: say that first.
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    # A union reports its branches in the path ("float", "literal['auto']", "sgd"); users know only their keys.
    places = [part for part in first["loc"] if part not in OPTIMISERS]
    path = [part for part in places if isinstance(part, int) or part.isidentifier()]
    known = _keys_of(model)
    # The keys of `players` are names of a method's own.
    key = ".".join(
        str(part)
        for before, part in zip(("", *places), places, strict=False)
        if isinstance(part, int) or part in known or before == "players"
    )
    where = f"{key}: " if key else ""
    more = len(error.errors()) - 1
    rest = f" (and {more} more)" if more and first["type"] in ("missing", "extra_forbidden") else ""
    if first["type"] == "extra_forbidden":
        *above, unknown = first["loc"]  # which may be no word at all
        above = [part for part in above if part in path]
        owner = ".".join(map(str, above))
        near = nearest(unknown, _keys_at(model, above))
        return f"{owner + ': ' if owner else ''}unknown key {unknown!r:.80}{near}{rest}"
    if first["type"] == "missing":
        return f"{'.'.join(map(str, path))}: missing; add it to the recipe{rest}"
    return f"{where}{first['msg'].removeprefix('Value error, ')} (got {first['input']!r:.80})"


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in typing.get_args(annotation) for model in _models(part)]


def _keys_at(annotation: Any, path: list[Any]) -> list[str]:
    """The keys that exist below `path`."""
    models = _models(annotation)
    for part in path:
        models = [
            found
            for model in models
            if part in model.model_fields
            for found in _models(model.model_fields[part].annotation)
        ]
    return [key for model in models for key in model.model_fields]


def _keys_of(annotation: Any) -> set[str]:
    """All keys of a model and of the models inside it."""
    keys: set[str] = set()
    for model in _models(annotation):
        for key, field in model.model_fields.items():
            keys |= {key} | _keys_of(field.annotation)
    return keys


def _set(tree: dict[str, Any], setting: str) -> None:
    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise RecipeError(f"--set {setting!r}: write KEY=VALUE, for example optim.lr=1e-4")
    try:
        value = yaml_values(text)
    except ValueError as error:
        raise RecipeError(f"--set {key}: {text!r:.80} is not a YAML value: {error}") from error
    *parents, last = key.split(".")
    for parent in parents:
        inner = tree.get(parent)
        if inner is None:
            inner = tree[parent] = {}
        if not isinstance(inner, dict):
            raise RecipeError(f"--set {key}: {parent} is {inner!r:.80}, not a block of keys")
        tree = inner
    tree[last] = value
