"""The keys of recipes: their types, and what each means. Numbers that a paper chose have no default here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator

from segda.data.stream.settings import Augment, Balanced, Kernel, Of, RareClass, Shape
from segda.ground.choices import Domain, Mean, OnBadImage, Softmax


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


OUTPUTS = {
    "data.target.labels": "pseudo-label",
    "data.source.labels": "pseudo-label",
    "data.source.images": "translate",
    "network.weights": "train",
    "start": "train",
}
"""Keys by which a stage takes the output of an earlier one -> what that one does; of `given` each key is one, too."""
