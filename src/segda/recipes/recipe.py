"""Recipes: everything needed to repeat a run, as one typed object.

`load_recipe` reads a shipped name, a path or a mix of blocks (blocks.py), `Recipe.override` changes single keys
("optim.lr=1e-4"), `build` makes the network and the method from their blocks: keyword arguments are the settings, so a
recipe and Python use the same names. Numbers that a paper chose have no default here; plumbing (workers, log interval,
precision) has. A recipe may be of several stages, see `Recipe.stages`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)

from segda.data.stream.settings import Augment, Balanced, Kernel, Of, RareClass, Shape
from segda.errors import RecipeError, nearest
from segda.ground.choices import (
    DeviceName,
    Domain,
    LoggerName,
    Mean,
    OnBadImage,
    PrecisionName,
    Softmax,
    unknown_device,
)
from segda.ground.safe_yaml import Keys, yaml_line, yaml_values
from segda.recipes.blocks import Composed, compose, flat, has, is_mix, merged
from segda.recipes.complaints import explain
from segda.recipes.derived import derived
from segda.recipes.optimisers import Optim


class Block(BaseModel):
    """A part of a recipe: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Paper(Block):
    """Whose method and numbers these are."""

    title: str
    """Of the paper."""
    arxiv: str | None = None
    """Its number there."""
    code: str | None = None
    """owner/repository, and the commit where it is known."""


class Expect(Block):
    """What a run of this recipe should reach, and who says so."""

    data: str
    """The data set that was measured."""
    miou: float
    """In percent."""
    note: str
    """Who says so, and of what."""


class Source(Block):
    """The labelled domain."""

    set: str
    """`name:split[:condition]`."""
    augment: Augment
    rare_class: RareClass | None = None
    """Rare-class sampling; None: every image once an epoch."""
    balanced: Balanced | None = None
    """Epochs that are a subset of the images, with so many of each class; None: every image once an epoch."""
    images: Path | None = None
    """Folder of its images in another style, written by `segda translate` or other code; labels are the set's own. A
    part with other `labels` keeps its images."""
    labels: Path | None = None
    """Folder of pseudo-labels, in place of its own labels for the part of `set` that they were made for."""

    @model_validator(mode="after")
    def _classes_are_sampled_in_one_way(self) -> Source:
        if self.rare_class is not None and self.balanced is not None:
            raise ValueError("rare_class and balanced both say which images are drawn; set one of them to null")
        return self


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
    shape: Shape = "keep"
    """How an image gets into the box, see Augment."""
    kernel: Kernel = "bilinear"
    """How it is resampled, see Augment."""
    how: Literal["whole", "slide"]
    """The whole image at once, or windows of it: where several see a pixel, the mean of their logits counts. Without
    `resize` an image of more than 4096 x 2048 pixels is seen in windows of 2048 in any case, for want of memory.
    """
    window: tuple[int, int] | None = None
    """Of `slide`: height, width."""
    stride: tuple[int, int] | None = None
    """Of `slide`: step down, step right."""
    scales: tuple[Annotated[float, Field(gt=0, le=10)], ...] = Field((1.0,), min_length=1)
    """Factors of that size: the network sees each, and the mean of the probabilities counts."""
    flip: bool = False
    """Average with the mirrored image, at each size."""
    softmax: Softmax = "after"
    """Whether logits become probabilities before they are upsampled to the label's size, or after."""
    classes: tuple[str, ...] | None = Field(None, min_length=1)
    """Classes that means go over, as all but the background; None: all. Predicted are all of them in any case. Of data
    whose labels do not know them all, means go over those that they know.
    """
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


class Loss(Block):
    """What holds for the supervised loss of all methods."""

    class_weights: Literal["none", "inverse", "median"] | dict[str, Annotated[float, Field(ge=0, le=1e6)]] = "none"
    """What classes of the source's labels weigh, see parts/class_weights.py: all the same, by how often they occur in
    the source, or by their names (1 where none is given).
    """


def each_once(runs: list[str]) -> list[str]:
    """ValueError for a stage that is named twice."""
    if twice := [run for run in runs if runs.count(run) > 1]:
        raise ValueError(f"{twice[0]} is named twice; name it once")
    return runs


class Labelling(Block):
    """A stage that labels the target with what earlier stages have trained."""

    runs: list[str] = Field(min_length=1)
    """Stages, whose networks' mean counts, each once."""
    rule: dict[str, Any]
    """Which of its pixels are kept, see pseudo_labelling/rules.py."""
    data: str | None = None
    """What is labelled; None: the recipe's target."""
    weights: Literal["student", "teacher"] = "student"
    """Which network of each."""
    resize: tuple[PositiveInt, PositiveInt] | None = None
    """Box (width, height) that images are brought to, and the labels' size; None: the runs' evaluate.resize."""
    refine: dict[str, Any] | None = None
    """What the predictions are fused with, see pseudo_labelling/refine.py; its `run` may be a stage."""

    _each_once = field_validator("runs")(each_once)


class Ensemble(Block):
    """A stage that measures what earlier stages have trained as one network, on the recipe's evaluate.data."""

    runs: list[str] = Field(min_length=2)
    """Stages, whose networks count alike."""
    mean: Mean
    """Of what."""

    _each_once = field_validator("runs")(each_once)


class Translating(Block):
    """A stage that translates images with what an earlier stage has trained."""

    run: str
    """The stage that trains the translator."""
    data: str | None = None
    """What is translated; None: of the domains that the translator knows, the one that it does not paint."""
    to: Domain = "target"
    """The domain that the images are to look like."""
    enlarge: dict[str, Any] | None = None
    """How what is painted is brought to its original's size, see training/enlarging.py; None: not at all."""


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


class Recipe(Block):
    """Everything needed to repeat a run."""

    paper: Paper | None = None
    expect: Expect | None = None
    seed: int = Field(ge=0)
    """Of all that is drawn: the same seed on the same machine gives the same run."""
    steps: int = Field(ge=1)
    """Optimisation steps."""
    data: Data
    network: dict[str, Any] = {}
    """Of the student; for a method that trains none, none."""
    start: str | None = None
    """A trained network that the whole student begins with, in place of its encoder's weights: a run, a file of ours,
    or a checkpoint of other code; see training/start.py."""
    method: dict[str, Any]
    """What is learnt: `name`, and the settings of its class."""
    given: dict[str, str] = {}
    """Trained networks that the method takes, by the names of its arguments: runs, or files of ours."""
    optim: Optim | None = None
    """Of the student."""
    loss: Loss = Loss()
    players: dict[str, Optim] = {}
    """Of the method's other players, by their name."""
    evaluate: Evaluate
    device: DeviceName = "auto"
    """auto, cpu, cuda, cuda:1 or mps; auto takes an accelerator where there is one."""
    precision: PrecisionName = "auto"
    """32, bf16 or 16; auto takes bf16 where the device is quick at it."""
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
    logger: LoggerName | None = None
    """A tracker that is told the numbers of log.jsonl as well, see training/loggers.py."""
    stages: dict[str, dict[str, dict[str, Any]]] = {}
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
            changed += _set_in_stages(tree, setting)
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


BLOCKS: dict[str, str] = {
    "source": "source: {{set: {set}, augment: {{...}}}}",
    "target": "target: {{set: {set}, augment: {{...}}}}",
    "reference": "reference: {{set: {set}}}",
}
"""What to write for a domain of `data`."""
KINDS: dict[str, str] = {
    "train": "{train: ...}",
    "pseudo-label": "{pseudo-label: ...}",
    "translate": "{translate: ...}",
    "evaluate": "{evaluate: ...}",
}
"""What a stage does, and how it is written."""

OUTPUTS = {
    "data.target.labels": "pseudo-label",
    "data.source.labels": "pseudo-label",
    "data.source.images": "translate",
    "network.weights": "train",
    "start": "train",
}
"""Keys by which a stage takes the output of an earlier one -> what that one does; of `given` each key is one, too."""


def outputs(tree: Mapping[str, Any]) -> dict[str, str]:
    """The keys of a recipe that may stand for the output of a stage -> what that stage does."""
    return OUTPUTS | {f"given.{name}": "train" for name in tree.get("given") or {}}


def stages_of(recipe: Recipe, where: str = "recipe") -> tuple[Stage, ...]:
    """The stages, each that trains with its whole recipe: the keys that all share, and in their place its own.

    A key of OUTPUTS whose value is a stage's name stands for its output. `expect` and `data.target.labels` among the
    shared keys are of the last one. RecipeError for what is no stage, or asks for one that does not come before.
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
        found[name] = _training_stage(name, Composed(shared, whole.comments, whole.head).merged(own), found, recipe, at)
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


def _training_stage(name: str, content: Composed, before: Mapping[str, Stage], recipe: Recipe, at: str) -> Stage:
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
    own = parse_recipe({key: value for key, value in content.values.items() if value is not None}, at)
    own._source = Composed({}, content.comments, content.head)
    return Stage(name, own, outputs=tuple(takes))


def _value(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, Mapping) else None
    return tree


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
    if key.partition(".")[0] == "pseudo_labels":
        raise RecipeError(f"--set {key}: is a stage now; write --set STAGE:KEY=VALUE, such as labels:rule.floor=0.2")
    if key.removeprefix("data.") in BLOCKS and isinstance(value, str):
        raise RecipeError(f"--set {key}: is a block now; write --set {key}.set={text:.80}")


def setting(key: str, value: Any) -> str:
    """KEY=VALUE as `--set` takes it."""
    return f"{key}={yaml_line(value)}"


def _set_in_stages(tree: dict[str, Any], setting: str) -> list[Keys]:
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
