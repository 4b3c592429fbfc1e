"""What travels through segda: a Scene (images with what is known about their pixels) and a Batch of domains by name.

Shapes, here and everywhere: `B` batch, `C` classes, `H W` pixels, `h w` cells of a feature map.

On the wire (reader, augmentation, loader) a scene is single and small: image `(3, H, W)` uint8, label `(H, W)` uint8.
`stack` makes a batch of them, `to` moves it and turns it into what networks and methods see:
image `(B, 3, H, W)` float32 RGB in [0, 1], label `(B, H, W)` int64, weight `(B, H, W)` float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, overload

import torch
from torch import Tensor

from segda.distributed.shares import ALONE, Share
from segda.ground.ignore import IGNORE as IGNORE  # a label's, so it is known from here

DOMAINS = ("source", "target", "reference", "style")
"""The domains of a batch, in the order of their numbers in the stream."""


def block_of(domain: str) -> str:
    """The block of a recipe's `data` that says how the domain's images are read and cut."""
    return "target" if domain == "style" else domain


Box = tuple[int, int, int, int]
"""top, left, height, width in pixels."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Images with what is known about their pixels.

    label: train ids, IGNORE where unknown; None for a target scene, whose ground truth is never read in training.
    weight: how much each pixel counts in a loss; None means one.
    names: one short name an image (its file), for messages.
    classes: the values that each image's label holds, ascending; None if nobody has looked. `to` looks, before the
    label leaves the host, since a step that asked the device for them would wait for all it has to do.
    labelled: pixels that are not IGNORE, a share's mean over the whole step, where the scenes of a step are in shares
    (segda/distributed/shares.py) and somebody has counted; None: count here.
    """

    image: Tensor
    label: Tensor | None = None
    weight: Tensor | None = None
    names: tuple[str, ...] = ()
    classes: tuple[tuple[int, ...], ...] | None = None
    labelled: float | None = None

    def to(self, device: torch.device | str) -> Scene:
        """The scene on `device` in the types that networks and methods work with; uint8 images become [0, 1]."""
        classes = self.classes
        if classes is None and self.label is not None and self.label.device.type == "cpu":
            classes = present(self.label)
        image = self.image.to(device, non_blocking=True)
        if image.dtype == torch.uint8:
            image = image.float().div_(255)
        label = None if self.label is None else self.label.to(device, non_blocking=True).long()
        weight = None if self.weight is None else self.weight.to(device, non_blocking=True).float()
        return Scene(image, label, weight, self.names, classes, self.labelled)

    def pin_memory(self) -> Scene:
        """A copy in memory that a cuda device reads by itself, while the host goes on."""
        label, weight = (None if part is None else part.pin_memory() for part in (self.label, self.weight))
        return Scene(self.image.pin_memory(), label, weight, self.names, self.classes, self.labelled)

    def replace(self, **changes) -> Scene:
        """A copy with changes. What is known of a new label is nothing, unless it comes with it."""
        return replace(self, **({"classes": None, "labelled": None} if "label" in changes else {}) | changes)


Absent: TypeAlias = Any
"""The type of None where a domain may be missing: whether it is there is a fact of the method (`Method.source`), which
is not made to ask."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One draw of each domain.

    source: None where a training has none. reference: image i belongs to image i of the target (or of the source, as
    the recipe says) and was cropped and flipped with it; None where a training has no references.
    style: further scenes of the target, of a method that takes their look alone; else None.
    share: what the batch is of its step. It has the step's random numbers, and knows what all shares know.
    """

    source: Scene | Absent
    target: Scene
    reference: Scene | Absent = None
    share: Share = ALONE
    style: Scene | Absent = None

    @property
    def scenes(self) -> dict[str, Scene]:
        """The domains that are there, by name."""
        return {domain: scene for domain in DOMAINS if (scene := getattr(self, domain)) is not None}

    def to(self, device: torch.device | str) -> Batch:
        return self.replace(**{domain: scene.to(device) for domain, scene in self.scenes.items()})

    def replace(self, **changes: Any) -> Batch:
        """A copy with changes."""
        return replace(self, **changes)


def stack(scenes: Sequence[Scene]) -> Scene:
    """Single scenes of one size -> one scene with a leading batch dimension."""

    def together(parts: list[Tensor | None]) -> Tensor | None:
        known = [part for part in parts if part is not None]
        assert len(known) in (0, len(parts)), "some scenes of a batch have a label or weight and some do not"
        return torch.stack(known) if known else None

    image = together([scene.image for scene in scenes])
    assert image is not None
    return Scene(
        image,
        together([scene.label for scene in scenes]),
        together([scene.weight for scene in scenes]),
        tuple(name for scene in scenes for name in scene.names),
    )


def present(label: Tensor) -> tuple[tuple[int, ...], ...]:
    """(B, H, W) labels -> the values that each of them holds, IGNORE too, ascending. Waits for a label on a device."""
    return tuple(tuple(torch.bincount(one.flatten()).nonzero().flatten().tolist()) for one in label)


@overload
def crop(pixels: Tensor, box: Box | None) -> Tensor: ...


@overload
def crop(pixels: None, box: Box | None) -> None: ...


def crop(pixels: Tensor | None, box: Box | None) -> Tensor | None:
    """The part of `(..., H, W)` pixels inside `box`; all of it when there is no box, nothing of nothing."""
    if pixels is None or box is None:
        return pixels
    top, left, height, width = box
    return pixels[..., top : top + height, left : left + width]


def windows(side: int, window: int, stride: int) -> list[int]:
    """First pixels of the windows along one side: every `stride`, the last ones moved back to end inside.

    ceil((side - window) / stride) + 1 windows, one if the image is not larger than the window.
    """
    count = max(side - window + stride - 1, 0) // stride + 1
    return [max(min(index * stride, side - window), 0) for index in range(count)]
