"""Recipes: everything needed to repeat a run, as one typed object.

`load_recipe` reads a shipped name, a path or a mix of blocks (blocks.py), `Recipe.override` changes single keys
("optim.lr=1e-4"), `build` makes the network and the method from their blocks: keyword arguments are the settings, so a
recipe and Python use the same names. Numbers that a paper chose have no default here; plumbing (workers, log interval,
precision) has. A recipe may be of several stages (stages.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PrivateAttr, ValidationError, field_validator, model_validator

from segda.errors import RecipeError
from segda.ground.choices import DeviceName, LoggerName, PrecisionName, unknown_device
from segda.ground.safe_yaml import Keys
from segda.recipes.blocks import Composed, compose, flat, is_mix
from segda.recipes.complaints import explain
from segda.recipes.derived import derived
from segda.recipes.keys import Block, Data, Evaluate, Expect, Loss, Paper
from segda.recipes.optimisers import Optim
from segda.recipes.overriding import BLOCKS, refuse_odd_domains, refuse_old_keys, set_in_stages
from segda.recipes.stages import Stage, stages_in


class Recipe(Block):
    """Everything needed to repeat a run."""

    paper: Paper | None = None
    expect: Expect | None = None
    seed: int = Field(ge=0)
    """Of all that is drawn: the same seed on the same machine gives the same run."""
    steps: int = Field(ge=1)
    """Optimisation steps."""
    data: Data
    network: dict[str, Any] = Field({})
    """Of the student; for a method that trains none, none."""
    start: str | None = None
    """A trained network that the whole student begins with, in place of its encoder's weights: a run, a file of ours,
    or a checkpoint of other code; see training/start.py."""
    method: dict[str, Any]
    """What is learnt: `name`, and the settings of its class."""
    given: dict[str, str] = Field({})
    """Trained networks that the method takes, by the names of its arguments: runs, or files of ours."""
    optim: Optim | None = None
    """Of the student."""
    loss: Loss = Loss()
    players: dict[str, Optim] = Field({})
    """Of the method's other players, by their name."""
    evaluate: Evaluate
    device: DeviceName = "auto"
    """auto, cpu, cuda, cuda:1 or mps; auto takes an accelerator where there is one."""
    precision: PrecisionName = "auto"
    """32, bf16 or 16; auto takes bf16 where the device is quick at it."""
    activation_checkpointing: bool = False
    """Compute the encoder's maps again in the backward pass: less memory, more time, the same numbers."""
    compile: bool = False
    """Have torch compile what the networks compute, on an accelerator: the first steps take minutes. Operations are
    fused, so that sums have another order and bfloat16 is rounded less often: losses agree to rounding, not to the bit,
    and a run that goes on keeps the value it began with. Nobody has run it on a GPU yet."""
    accumulate: int = Field(1, ge=1)
    """Passes of data.batch scenes whose gradients make a step: as a batch so many times as large (batch norm apart)."""
    sync_batchnorm: bool = False
    """Whether batch norm sees the scenes of all processes (torchrun) as one batch, or each its own."""
    exact_statistics: list[Literal["source", "target"]] = Field([])
    """Of whose images the student's batch norms have the statistics in the end, in place of running means over the
    crops of the last steps: whole images, as they are measured, each counted once. Those that training leaves alone
    keep their own. Empty: the running means stay."""
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
    logger: LoggerName | None = None
    """A tracker that is told the numbers of log.jsonl as well, see training/loggers.py."""
    stages: dict[str, dict[str, dict[str, Any]]] = Field({})
    """Name -> {train: what differs from the keys above}, {pseudo-label: a Labelling}, {translate: a Translating} or
    {evaluate: an Ensemble}, in the order in which they run. The last one trains, but for those that measure; see
    `stages_of`.
    """

    _source: Composed = PrivateAttr(Composed({}))
    """The comments of the keys, where they were read from a file."""

    @field_validator("device")
    @classmethod
    def _device_is_one(cls, name: str) -> str:
        if wrong := unknown_device(name):
            raise ValueError(wrong)
        return name

    @model_validator(mode="after")
    def _exact_statistics_are_of_what_is_read(self) -> Recipe:
        told = self.exact_statistics
        if len(set(told)) < len(told):
            raise ValueError(f"exact_statistics: {', '.join(told)}: names a domain twice; name each once")
        if "source" in told and self.data.source is None:
            raise ValueError("exact_statistics: source: the recipe has no data.source; name the target alone")
        if told and self.data.on_bad_image == "skip":
            raise ValueError(
                "exact_statistics: reads every image, and data.on_bad_image is skip; remove one of the two"
            )
        return self

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

    def __eq__(self, other: object) -> bool:
        """Comments make no difference."""
        return isinstance(other, Recipe) and self.model_dump() == other.model_dump()

    def override(self, *settings: str) -> Recipe:
        """A new recipe with "dotted.key=value" applied; the value is YAML. RecipeError for an unknown key.

        Of several stages each that has the key takes it; "stage:dotted.key=value" is of one alone.
        """
        tree = self.model_dump(mode="json", exclude_unset=True)
        changed: list[Keys] = []
        for setting in settings:
            changed += set_in_stages(tree, setting)
        recipe = parse_recipe(tree, "--set")
        kept = {
            keys: comment
            for keys, comment in self._source.comments.items()
            if not any(keys[: len(one)] == one for one in changed)
        }
        recipe._source = Composed({}, kept, self._source.head)
        return recipe

    def to_yaml(self, defaults: bool = True) -> str:
        """The recipe as YAML, itself a valid recipe, with the comments it was read with.

        defaults: also the keys that nobody has set.
        """
        values = self.model_dump(mode="json", exclude_unset=not defaults)
        values = {key: value for key, value in values.items() if key != "stages" or value}
        return flat(Composed(values, self._source.comments, self._source.head))


def load_recipe(name: str | Path, data: Path | str | None = None) -> Recipe:
    """A shipped recipe's name, the path of a YAML file, or blocks with + between them -> Recipe, checked as far as that
    goes without data sets.

    data: with blocks, a YAML file of one's own that says what neither method nor network can.
    """
    found, where = compose(name, data)
    if not is_mix(str(name)):
        add_to = "the recipe"
    else:
        add_to = str(data or "a file of your own, --data FILE.yaml, or name a block of benchmarks")
    recipe = parse_recipe(found.values, where, add_to)
    recipe._source = Composed({}, found.comments, found.head)
    return recipe


def shipped_recipe(name: str) -> Recipe:
    """A recipe that comes with segda, as `load_recipe` gives it, without an import of torch: that its blocks fit the
    classes which they name was tested.
    """
    found, _ = compose(name)
    recipe = Recipe.model_validate(found.values | derived()["recipes"].get(name, {}))
    recipe._source = Composed({}, found.comments, found.head)
    return recipe


def parse_recipe(tree: Mapping[str, Any], where: str, add_to: str = "the recipe") -> Recipe:
    """A tree of plain values -> Recipe; also checks the network's and the method's block against their signatures."""
    from segda.methods import METHODS
    from segda.networks import NETWORKS
    from segda.recipes.build import check
    from segda.recipes.facts import method_class, refuse_unfit, student_missing
    from segda.recipes.given import refuse_other_networks

    refuse_old_keys(tree, where)
    refuse_odd_domains(tree, where)
    try:
        recipe = Recipe.model_validate(tree)
    except ValidationError as error:
        raise RecipeError(f"{where}: {explain(error, Recipe, add_to, student_missing(tree))}") from error
    refuse_other_networks(recipe, where)
    student = ("student",) if method_class(recipe.method, f"{where}: method").has_student() else ()
    method = check(METHODS, recipe.method, f"{where}: method", (*student, *recipe.given))
    refuse_unfit(recipe, where, add_to)
    network = check(NETWORKS, recipe.network, f"{where}: network", ("class_names",)) if recipe.network else {}
    _check_domains(recipe, where)
    recipe = recipe.model_copy(update={"network": network, "method": method})
    odd = next((key for key in not_finite(recipe.model_dump()) if key != "data.source.rare_class.temperature"), None)
    if odd is not None:
        raise RecipeError(f"{where}: {odd}: must be a finite number; write another")
    stages_of(recipe, where)
    return recipe


def stages_of(recipe: Recipe, where: str = "recipe") -> tuple[Stage, ...]:
    """The stages of a recipe, each that trains with its whole recipe; none where it has none. See stages.py."""
    return stages_in(recipe, where, parse_recipe)


def _check_domains(recipe: Recipe, where: str) -> None:
    """RecipeError for a domain that the method needs and the recipe lacks, or has in vain."""
    from segda.recipes.facts import method_class, without_source

    method, name = method_class(recipe.method, where), recipe.method["name"]
    for domain in ("source", "reference"):
        there, need = getattr(recipe.data, domain) is not None, getattr(method, domain)
        if need == "must" and not there:
            other = f", or take a method that does without: {without_source()}" if domain == "source" else ""
            raise RecipeError(
                f"{where}: data.{domain}: missing; method {name} learns from it: write "
                f"{BLOCKS[domain].format(set='NAME:SPLIT')}{other}"
            )
        if need == "never" and there:
            raise RecipeError(f"{where}: data.{domain}: has no effect with method {name}; remove it")
    if recipe.loss.class_weights != "none" and recipe.data.source is None:
        raise RecipeError(
            f"{where}: loss.class_weights: has no effect without data.source, whose classes weigh; remove it"
        )
    reference = recipe.data.reference
    if reference is not None and reference.of == "source" and recipe.data.source is None:
        raise RecipeError(f"{where}: data.reference.of: there is no data.source; write of: target")


def not_finite(tree: Any, where: str = "") -> Iterator[str]:
    """The dotted keys of the numbers in a tree that are NaN or infinite."""
    if isinstance(tree, float) and not math.isfinite(tree):
        yield where
    pairs = tree.items() if isinstance(tree, Mapping) else enumerate(tree) if isinstance(tree, (list, tuple)) else ()
    for key, value in pairs:
        yield from not_finite(value, f"{where}.{key}" if where else str(key))
