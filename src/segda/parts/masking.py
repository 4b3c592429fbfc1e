"""Masked image consistency: what is hidden in an image must be told from its surroundings (Hoyer et al., CVPR 2023).

Random blocks of an image are erased, and the student must say of all its pixels what is known of the whole image. As in
the authors' code (lhoyer/MIC `masking_consistency_module.py`) the image is recoloured and blurred before. With two
masks the second pass sees just what the first one does not, as in MaskTwins (Wang et al., ICML 2025).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from segda.distributed.shares import Share
from segda.errors import RecipeError
from segda.networks.network import Network, Output
from segda.networks.vfm import VFM
from segda.parts.entropy import Balance, balance, entropy, entropy_summary
from segda.parts.losses import supervised
from segda.parts.photometric import Colours, photometric
from segda.parts.pseudo import all_count, confident_fraction
from segda.parts.teacher import Teacher
from segda.scene import Batch, Scene


class OwnTeacher(BaseModel):
    """A teacher for the masked images alone."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    decay: float = Field(ge=0, lt=1)
    """See Teacher; 0 is the student as it is."""
    threshold: float | None = Field(ge=0, le=1)
    """As `fraction` has it, see parts/pseudo.py; None: every pixel counts."""


class MaskingSettings(BaseModel):
    """What is masked, and how."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Literal["target", "source", "both"]
    """target: its images, not mixed, with the teacher's labels. source: its images with their own labels. both: of
    every two scenes the first, of source and target: half as many of each."""
    of: Literal["image", "inside", "tokens"] = "image"
    """What blocks are of: the image; the image as network vfm sees it inside, where that is larger; or its tokens, one
    each, which the encoder's mask token replaces."""
    block: int | None = Field(ge=1)
    """Side of a block in pixels, before it is rounded so that whole blocks fill the image; None for tokens."""
    ratio: float = Field(ge=0, lt=1)
    """Probability that a block is erased."""
    weight: float = Field(gt=0)
    """Factor of the main head's loss. Other heads keep their shares, as in the authors' code (FIDELITY.md)."""
    augment: bool
    """Whether the images are recoloured and blurred first, as `photometric` says, with draws of their own."""
    masks: Literal[1, 2] = 1
    """Passes; the second one sees what the first one does not. The loss is their mean."""
    balance: Balance | None = None
    """EBDA's term on the prediction of the masked images."""
    teacher: OwnTeacher | None = None
    """None: the method's own labels and weights."""

    @model_validator(mode="after")
    def _a_token_is_a_block(self) -> MaskingSettings:
        if (self.block is None) != (self.of == "tokens"):
            raise ValueError("block is null with of: tokens, and a number of pixels otherwise")
        return self


class Masking(nn.Module):
    """The masked passes of a self-training method."""

    def __init__(self, student: Network, settings: MaskingSettings, photometric: Colours):
        super().__init__()
        if settings.teacher is not None and settings.mode == "source":
            raise RecipeError("method.masking.teacher has no effect with mode: source; remove it")
        if settings.of != "image" and not isinstance(student, VFM):
            raise RecipeError(f"method.masking.of: {settings.of} needs network vfm; set image, or that network")
        if settings.of == "tokens" and isinstance(student, VFM) and student.adapter is not None:
            raise RecipeError("method.masking.of: tokens needs network.decoder: light; set inside or image")
        self.settings = settings
        self.photometric = photometric
        self.teacher = None if settings.teacher is None else Teacher(student, settings.teacher.decay)

    def follow(self, student: Network, batch: Batch, t: int) -> None:
        """Its own teacher, where it has one, follows the student. RecipeError for a batch that cannot be masked."""
        image = batch.target.image
        if self.settings.block is not None:
            grid_of(self._seen_as(student, image), self.settings.block)
        if self.settings.mode == "both" and len(image) % 2:
            raise RecipeError(
                f"data.batch: {len(image)} is odd, but method.masking.mode: both masks one of every two scenes; "
                "set an even number"
            )
        if self.teacher is not None:
            self.teacher.follow(student, t, batch.share)

    def forward(self, student: Network, batch: Batch, pseudo: Scene) -> Iterator[dict[str, Tensor]]:
        """A pass of the student over masked images, one yield each. pseudo: the target as the method labels it."""
        settings, share = self.settings, batch.share
        scene = self._scene(batch, pseudo)
        if settings.augment:
            scene = scene.replace(image=photometric(scene.image, self.photometric, share=share, which="masked"))
        kept = self._kept(student, scene.image, share)
        for number, seen in enumerate((kept, ~kept)[: settings.masks]):
            output = self._looked(student, scene.image, seen)
            name = ("masked", "masked_rest")[number]
            loss = supervised(weighed(output, settings.weight), scene, over="all", share=share)
            terms = {name: loss / settings.masks}
            if settings.balance is not None:
                unsure = balance(entropy(output.logits), settings.balance.level)
                terms[f"{name}_balance"] = settings.balance.weight * unsure / settings.masks
            yield terms | entropy_summary(name, output.logits)

    def _seen_as(self, student: Network, image: Tensor) -> Tensor:
        """The image that blocks are of."""
        return student.inside(image) if self.settings.of != "image" and isinstance(student, VFM) else image

    def _kept(self, student: Network, image: Tensor, share: Share) -> Tensor:
        """False where a block, or a token (B, h, w), is hidden."""
        settings, seen_as = self.settings, self._seen_as(student, image)
        if settings.block is not None:
            return block_masks(seen_as, settings.block, settings.ratio, share)
        assert isinstance(student, VFM)
        return drawn(student.tokens(seen_as), len(image), settings.ratio, share).to(image.device, non_blocking=True)

    def _looked(self, student: Network, image: Tensor, seen: Tensor) -> Output:
        """What the student says of the image where only `seen` is seen."""
        if self.settings.of == "image":
            return student(torch.where(seen, image, colour(student.fill, image)))
        inside, size = self._seen_as(student, image), image.shape[-2:]
        if self.settings.of == "tokens":
            return student(inside, size=size, hidden=~seen)
        return student(torch.where(seen, inside, colour(student.fill, inside)), size=size)

    def _scene(self, batch: Batch, pseudo: Scene) -> Scene:
        """The images to mask with their labels and weights."""
        if self.settings.mode == "source":
            return batch.source
        target = self._labelled(batch, pseudo)
        return target if self.settings.mode == "target" else in_turn(batch.source, target)

    def _labelled(self, batch: Batch, pseudo: Scene) -> Scene:
        if self.teacher is None:
            return pseudo
        assert self.settings.teacher is not None
        logits, threshold = self.teacher(batch.target.image), self.settings.teacher.threshold
        if threshold is None:
            return all_count(logits, batch.target)
        return confident_fraction(logits, batch.target, threshold, share=batch.share)


def block_masks(image: Tensor, block: int, ratio: float, share: Share) -> Tensor:
    """(B, 1, H, W) bool for images (B, 3, H, W): False where a block is erased, drawn anew for each scene.

    Each block stays if a number drawn from [0, 1) is larger than the ratio.
    """
    kept = drawn(grid_of(image, block), len(image), ratio, share)[:, None].float()
    return F.interpolate(kept.to(image.device, non_blocking=True), image.shape[-2:], mode="nearest").bool()


def drawn(grid: tuple[int, int], count: int, ratio: float, share: Share) -> Tensor:
    """(count, *grid) bool, on the host: True where a number drawn from [0, 1) is larger than the ratio."""
    return torch.from_numpy(np.stack([share.rng("mask", scene=k).random(grid) for k in range(count)]) > ratio)


def grid_of(image: Tensor, block: int) -> tuple[int, int]:
    """So many blocks has a mask of images (B, 3, H, W): round(H / block), round(W / block), halves to the even number;
    they are enlarged to the image by its nearest block.  RecipeError where there is none.
    """
    height, width = image.shape[-2:]
    rows, columns = round(height / block), round(width / block)
    if not rows or not columns:
        raise RecipeError(
            f"method.masking.block: {block} is too large for crops of {height} x {width} pixels (height x width), "
            f"which would be no block; give at most {2 * min(height, width) - 1}, or larger crops"
        )
    return rows, columns


def colour(rgb: tuple[float, float, float], image: Tensor) -> Tensor:
    """(3, 1, 1) of the image's kind."""
    return torch.tensor(rgb, dtype=image.dtype).view(3, 1, 1).to(image.device, non_blocking=True)


def in_turn(source: Scene, target: Scene) -> Scene:
    """Of each two scenes the first, source and target in turn: with two, the authors' batch."""
    assert source.label is not None and target.label is not None and target.weight is not None
    ones = torch.ones_like(target.weight) if source.weight is None else source.weight

    def joined(one: Tensor, other: Tensor) -> Tensor:
        return torch.stack((one[::2], other[::2]), 1).flatten(0, 1)

    return Scene(
        joined(source.image, target.image),
        joined(source.label, target.label),
        joined(ones, target.weight),
        (*source.names, *target.names),
    )


def weighed(output: Output, factor: float) -> Output:
    """The output with the main head's share of the loss times a factor."""
    main = output.heads["main"]
    return replace(output, heads={**output.heads, "main": replace(main, weight=factor * main.weight)})
