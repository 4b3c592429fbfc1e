"""The settings of optimisers in a recipe; training/optim.py makes optimisers of them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Schedule(BaseModel):
    """The learning rate over time: linear warm-up, lr up to `hold`, then (1 - (t - hold) / (decay_steps - hold))^power,
    from lr to min_lr; step by step, or in stairs.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    lr: float = Field(gt=0)
    """At the start (after warm-up); of the encoder, where there is one."""
    power: float = Field(ge=0)
    """Of the fall: 1 is a straight line, 0 holds the rate."""
    decay_steps: int | None = Field(None, ge=1)
    """Step at which the rate would reach min_lr; None: the recipe's last. Some papers stop long before."""
    hold: int = Field(0, ge=0)
    """Steps before it begins to fall; in a run that is no longer, it never does."""
    stairs: int | None = Field(None, ge=1)
    """Steps (of an epoch) that have one rate: the one that is due at their end, as some trainers that change it once an
    epoch."""
    min_lr: float = Field(0.0, ge=0)
    """Where the rates of encoder and head both go. One that starts below it rises, as DAFormer's `poly10` lets it."""
    warmup: int = Field(0, ge=0)
    """Steps over which the rate rises from `warmup_ratio` of its value."""
    warmup_ratio: float | None = Field(None, ge=0, le=1)
    """Share of the rate that a warm-up starts from."""
    warmup_full: bool = False
    """Whether it rises to the full rate, reached in the last step of the warm-up, and only then follows the fall: a
    step down to where that has come meanwhile."""

    @model_validator(mode="after")
    def _phases_fit(self) -> Schedule:
        if self.warmup and self.warmup_ratio is None:
            raise ValueError("warmup needs warmup_ratio, the share of the rate that it starts from")
        if self.warmup_full and self.warmup < 2:
            raise ValueError("warmup_full needs a warmup of two steps or more; give one, or remove it")
        if self.decay_steps is not None and self.hold >= self.decay_steps:
            raise ValueError(
                f"hold {self.hold} is not before decay_steps {self.decay_steps}: the rate has no time to fall"
            )
        return self


class AdamW(Schedule):
    """Decoupled weight decay, as DAFormer: none on the encoder's norms."""

    name: Literal["adamw"]
    head_lr_factor: float = Field(gt=0)
    """The head learns this many times faster."""
    betas: tuple[float, float]
    """Decay of the running means of the gradient and of its square."""
    weight_decay: float = Field(ge=0)
    """A step takes the rate times this from a weight."""
    layer_decay: float | None = Field(None, gt=0, le=1)
    """Each layer of the encoder learns so much slower than the one after it; its last one at the encoder's rate."""


class SGD(Schedule):
    """Momentum, as ADVENT: weight decay on everything that learns, biases included."""

    name: Literal["sgd"]
    head_lr_factor: float = Field(gt=0)
    """The head learns this many times faster."""
    momentum: float = Field(ge=0, lt=1)
    """Share of the last change that the next one keeps."""
    weight_decay: float = Field(ge=0)
    """Times the weight, added to its gradient."""
    backbone_updates: Literal["authors", "once"]
    """How often a step updates a tensor of the encoder: ADVENT's code lists most of them three or four times, see
    `RepeatedSGD`. "once" is what it must have meant, "authors" what its numbers were made with."""


class Adam(Schedule):
    """Without weight decay, as ADVENT's discriminators."""

    name: Literal["adam"]
    betas: tuple[float, float]
    """Decay of the running means of the gradient and of its square."""


Optim = Annotated[AdamW | SGD | Adam, Field(discriminator="name")]

OPTIMISERS = ("adamw", "sgd", "adam")
