"""Recipes: everything needed to repeat a run, as one flat YAML file and as one typed object.

`load_recipe` reads a shipped name or a path, `Recipe.override` changes single keys ("optim.lr=1e-4"), `build` makes the
network and the method from their blocks: keyword arguments are the settings, so a recipe and Python use the same names.
Numbers that a paper chose have no default here; plumbing (workers, log interval, precision) has.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from segda.data.stream.augment import Augment
from segda.data.stream.loading import OnBadImage
from segda.data.stream.stream import Of, RareClass
from segda.errors import RecipeError, nearest
from segda.ground.hardware import DeviceName, PrecisionName
from segda.ground.safe_yaml import read_yaml, yaml_values
from segda.pseudo_labelling.rules import RULES
from segda.recipes.build import check, explain
from segda.training.optim import Optim


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


class Source(Block):
    """The labelled domain."""

    set: str
    """`name:split[:condition]`."""
    augment: Augment
    rare_class: RareClass | None = None
    """Rare-class sampling; None: every image once an epoch."""


class Target(Block):
    """The unlabelled domain."""

    set: str
    """`name:split[:condition]`; its labels are never opened."""
    augment: Augment
    labels: Path | None = None
    """Folder of pseudo-labels, written by `segda pseudo-label`; for methods that learn from them."""


class Reference(Block):
    """Images that show what the target's (or the source's) show under better conditions: the same place by day."""

    set: str
    """`name:split[:condition]`; its labels are never opened. Resized, cropped and mirrored as the images it is of."""
    of: Of = "target"
    """Whose images have these references."""
    pairs: Path | None = None
    """List of which belongs to which, a line `image,reference` each; None: the data set's own rule, else the name."""


class Data(Block):
    """The domains and how their images are sampled."""

    root: Path | None = None
    """Folder of the data sets; None: $SEGDA_DATA, then data/."""
    space: str | None = None
    """Label space that the network learns; None: the source's own, or the target's where there is no source."""
    source: Source | None = None
    """None for methods that learn without it."""
    target: Target
    reference: Reference | None = None
    """For methods that learn with it."""
    batch: int = Field(ge=1)
    """Scenes of each domain in a step; with `accumulate` in each of its passes, with torchrun in each process."""
    workers: int = Field(0, ge=0)
    """Processes that read ahead; the stream is the same for any number."""
    on_bad_image: OnBadImage = "stop"
    """At an image or label whose file is missing or damaged, or that kills each process that reads it: stop the run, or
    skip it: another draw takes its place, log and report say which. What is of a wrong kind stops the run always.
    """


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
    """Where `segda train --stages` takes data.target.labels from."""

    recipe: str
    """Of the run that labels the target: a shipped name or a path."""
    overrides: list[str] = []
    """Keys that are changed in it, as KEY=VALUE."""
    rule: dict[str, Any]
    """Which of its pixels are kept, see pseudo_labelling/rules.py."""


class Recipe(Block):
    """Everything needed to repeat a run."""

    paper: Paper | None = None
    expect: Expect | None = None
    seed: int = Field(ge=0)
    steps: int = Field(ge=1)
    """Optimisation steps."""
    data: Data
    network: dict[str, Any] = {}
    """Of the student; for a method that trains none, none."""
    start: str | None = None
    """A trained network that the whole student begins with, in place of its encoder's weights: a run, a file of ours,
    or a checkpoint of other code; see training/start.py."""
    method: dict[str, Any]
    given: dict[str, str] = {}
    """Trained networks that the method takes, by the names of its arguments: runs, or files of ours."""
    optim: Optim | None = None
    """Of the student."""
    players: dict[str, Optim] = {}
    """Of the method's other players, by their name."""
    pseudo_labels: PseudoLabels | None = None
    evaluate: Evaluate
    device: DeviceName = "auto"
    precision: PrecisionName = "auto"
    activation_checkpointing: bool = False
    """Compute the encoder's maps again in the backward pass: less memory, more time, the same numbers."""
    accumulate: int = Field(1, ge=1)
    """Passes of data.batch scenes whose gradients make a step: as a batch so many times as large (batch norm apart)."""
    sync_batchnorm: bool = False
    """Whether batch norm sees the scenes of all processes (torchrun) as one batch, or each its own."""
    shard: bool = False
    """Whether each process keeps but a part of all weights (FSDP2), for encoders that fit no device otherwise."""
    compare_every: int = Field(200, ge=1)
    """Steps after which several processes make sure that their weights are the same."""
    patience: int = Field(1800, ge=1)
    """Seconds that a process waits for the others before it gives up."""
    log_every: int = Field(20, ge=1)
    """Steps between two lines of log.jsonl; values are means over them."""
    save_every: int = Field(500, ge=1)
    """Steps between two checkpoints, of which the last is kept and `keep` older ones."""
    keep: int = Field(0, ge=0)
    """Older checkpoints that are kept beside the last."""
    keep_every: int = Field(0, ge=0)
    """Steps between two snapshots of the student, and of the teacher where there is one; all are kept. 0: none."""

    @model_validator(mode="after")
    def _rates_last_to_the_end(self) -> Recipe:
        for where, optim in (("optim", self.optim), *((f"players.{name}", one) for name, one in self.players.items())):
            if optim is not None and optim.decay_steps is not None and optim.decay_steps < self.steps:
                raise ValueError(f"{where}.decay_steps {optim.decay_steps} is before the last of {self.steps} steps")
        return self

    @property
    def name(self) -> str:
        """Method and domains in a few words, for titles."""
        source = "" if self.data.source is None else f"{self.data.source.set} "
        return f"{self.method.get('name')} {source}-> {self.data.target.set}"

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
    folder = Path(str(files("segda.recipes")))
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
    from segda.recipes.facts import method_class, refuse_unfit
    from segda.recipes.given import refuse_other_networks

    refuse_old_keys(tree, where)
    refuse_odd_domains(tree, where)
    try:
        recipe = Recipe.model_validate(tree)
    except ValidationError as error:
        raise RecipeError(f"{where}: {explain(error, Recipe)}") from error
    refuse_other_networks(recipe, where)
    student = ("student",) if method_class(recipe.method, f"{where}: method").has_student() else ()
    method = check(METHODS, recipe.method, f"{where}: method", (*student, *recipe.given))
    refuse_unfit(recipe, where)
    network = check(NETWORKS, recipe.network, f"{where}: network", ("class_names",)) if recipe.network else {}
    if recipe.pseudo_labels is not None:
        check(RULES, recipe.pseudo_labels.rule, f"{where}: pseudo_labels.rule", ())
    _check_domains(recipe, where)
    recipe = recipe.model_copy(update={"network": network, "method": method})
    odd = next((key for key in not_finite(recipe.model_dump()) if key != "data.source.rare_class.temperature"), None)
    if odd is not None:
        raise RecipeError(f"{where}: {odd}: must be a finite number; write another")
    return recipe


def _check_domains(recipe: Recipe, where: str) -> None:
    """RecipeError for a domain that the method needs and the recipe lacks, or has in vain."""
    from segda.recipes.facts import method_class

    method, name = method_class(recipe.method, where), recipe.method["name"]
    for domain in ("source", "reference"):
        there, need = getattr(recipe.data, domain) is not None, getattr(method, domain)
        if need == "must" and not there:
            raise RecipeError(
                f"{where}: data.{domain}: missing; method {name} learns from it: write "
                f"{BLOCKS[domain].format(set='NAME:SPLIT')}"
            )
        if need == "never" and there:
            raise RecipeError(f"{where}: data.{domain}: has no effect with method {name}; remove it")
    reference = recipe.data.reference
    if reference is not None and reference.of == "source" and recipe.data.source is None:
        raise RecipeError(f"{where}: data.reference.of: there is no data.source; write of: target")


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


def not_finite(tree: Any, where: str = "") -> Iterator[str]:
    """The dotted keys of the numbers in a tree that are NaN or infinite."""
    if isinstance(tree, float) and not math.isfinite(tree):
        yield where
    pairs = tree.items() if isinstance(tree, Mapping) else enumerate(tree) if isinstance(tree, (list, tuple)) else ()
    for key, value in pairs:
        yield from not_finite(value, f"{where}.{key}" if where else str(key))


def _refuse_old_setting(key: str, text: str, value: Any) -> None:
    """RecipeError for a key of an earlier version, with the option to write in its place."""
    for old, new in OLD_KEYS.items():
        if key == old or key.startswith(f"{old}."):
            raise RecipeError(f"--set {key}: is called {new} now; write --set {new}{key.removeprefix(old)}={text:.80}")
    if key.removeprefix("data.") in BLOCKS and isinstance(value, str):
        raise RecipeError(f"--set {key}: is a block now; write --set {key}.set={text:.80}")


def _set(tree: dict[str, Any], setting: str) -> None:
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
