"""From an image to a network's views of it: into a box, through the network whole or in windows; other sizes, the
mirrored image. What the views say of each pixel: certainty.py.

Networks differ in what is upsampled to the image's size (`Network.low_res_logits`) and how (`Network.align_corners`).
DAFormer's test pipeline (mmsegmentation `inference.py`) upsamples logits that are at the input's size already, ADVENT's
(`eval_UDA.py`) those of every eighth pixel.

Several views are held at the size that the network saw: with six sizes of 0.5 to 1.75 times
1024 x 512, each mirrored as well, that is 0.7 GB.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import EllipsisType
from typing import Literal, Protocol

import torch
from torch import Tensor

from segda.data.stream.augment import padded_size, resize, scaled_size, size_of
from segda.data.stream.settings import Kernel, Shape
from segda.ground.choices import Softmax
from segda.networks.network import Network
from segda.scene import Scene, stack, windows

Size = tuple[int, int]
"""height, width in pixels."""

LARGEST = 4096 * 2048
"""Pixels of an image as it is that a network sees whole. Its maps of a larger one take more memory than many machines
have, so it sees that in windows.
"""

PART, STEP = (2048, 2048), (1536, 1536)
"""Those windows, and the step from one to the next: half a million pixels and more are seen from both sides."""


class Settings(Protocol):
    """What a recipe's `evaluate` block says about inference.

    resize: (width, height) box, None for the image as it is. shape, kernel: how the image gets into it, see Augment.
    how: the image whole, or in windows. window, stride: (height, width), for `slide`. See `cut_into`.
    scales: factors of the box, or of the image's size where there is none: a view each, of which the mean counts.
    flip: average with the mirrored image, at each size.
    softmax: whether probabilities are made before logits are upsampled to the image's size, or after.
    classes: those that means go over, None for all.
    """

    resize: tuple[int, int] | None
    shape: Shape
    kernel: Kernel
    how: Literal["whole", "slide"]
    window: Size | None
    stride: Size | None
    scales: tuple[float, ...]
    flip: bool
    softmax: Softmax
    classes: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class View:
    """What a network says of an image that it saw once.

    logits: (1, C, h, w) float32, upright, before they are brought to the image's size.
    align_corners: how they are to be, see Network.
    covers: (height, width) in pixels of the image that the logits stand for: more than the image has where it was
    padded at the right or bottom; None: the image.
    weight: the view's share in a mean of several; the shares need not sum to one.
    softmax: whether they become probabilities before they are brought there or after.
    """

    logits: Tensor
    align_corners: bool
    covers: Size | None = None
    weight: float = 1.0
    softmax: Softmax = "after"


def places(size: Size, window: Size, stride: Size) -> Iterator[tuple[EllipsisType, slice, slice]]:
    """Where the windows of an image of that size are, row by row."""
    for top in windows(size[0], window[0], stride[0]):
        for left in windows(size[1], window[1], stride[1]):
            yield ..., slice(top, top + window[0]), slice(left, left + window[1])


def cut_into(size: Size, settings: Settings) -> tuple[Size, Size] | None:
    """Window and stride in which a network sees an image of that size, once it is in its box; None: whole.

    `slide` has its own. `whole` with a box is whole, since somebody chose that size; without one it is up to LARGEST.
    """
    if settings.how == "slide":
        assert settings.window is not None and settings.stride is not None
        return settings.window, settings.stride
    if settings.resize is None and size[0] * size[1] > LARGEST:
        return PART, STEP
    return None


def slide(network: Network, image: Tensor, window: Size, stride: Size) -> Tensor:
    """(1, 3, H, W) -> (1, C, H, W) float32 logits: the mean over all windows that see a pixel.

    An image smaller than the window is seen as it is, without padding.
    """
    height, width = image.shape[2:]
    total: Tensor | None = None
    visits = torch.zeros(1, 1, height, width, device=image.device)
    for here in places((height, width), window, stride):
        logits = network.infer(image[here]).float()
        if total is None:
            total = logits.new_zeros(1, logits.shape[1], height, width)
        total[here] += logits
        visits[here] += 1
    assert total is not None
    return total / visits


def views(
    network: Network,
    image: Tensor,
    settings: Settings,
    device: torch.device,
    autocast: AbstractContextManager,
    weight: float = 1.0,
    boxed: Sequence[Tensor] | None = None,
    gradients: bool = False,
) -> list[View]:
    """(3, H, W) uint8 RGB -> what the network says of it at each of the scales, and of its mirror image if the settings
    ask for that; each has the same share.

    weight: of all these views together. boxed: what `in_boxes` makes of the image, where that has been done already.
    gradients: whether they are kept.
    Windows are averaged at the network's input size, and are as large at every scale.
    """
    size = size_of(Scene(image))
    share = weight / (len(settings.scales) * (1 + settings.flip))

    def view(seen: Tensor, covers: Size | None, mirrored: bool) -> View:
        with nullcontext() if gradients else torch.no_grad(), autocast:
            cut = cut_into((seen.shape[2], seen.shape[3]), settings)
            logits = network.low_res_logits(seen).float() if cut is None else slide(network, seen, *cut)
        logits = logits.flip(-1) if mirrored else logits
        # One class after the other is upsampled: its cells belong together.
        return View(logits.contiguous(), network.align_corners, covers, share, settings.softmax)

    found = []
    for box, small in zip(boxes(size, settings), in_boxes(image, settings) if boxed is None else boxed, strict=True):
        covers = padded_size(size, box) if settings.shape == "pad" and box is not None else None
        seen = stack([Scene(small)]).to(device).image
        found.append(view(seen, covers, mirrored=False))
        if settings.flip:
            found.append(view(seen.flip(-1), covers, mirrored=True))
    return found


def boxes(size: Size, settings: Settings) -> list[tuple[int, int] | None]:
    """(width, height) of the box of each scale, for an image of that size; None: the image as it is.

    Rounded down, but to no less than 1, as mmsegmentation's MultiScaleFlipAug.
    """
    width, height = settings.resize or (size[1], size[0])
    return [
        settings.resize if factor == 1 else (max(1, int(width * factor)), max(1, int(height * factor)))
        for factor in settings.scales
    ]


def sizes_scaled(size: Size, settings: Settings) -> list[Size]:
    """(height, width) that an image of that size is brought to, at each scale, before any windows are cut."""
    return [
        (box[1], box[0]) if box is not None and settings.shape == "pad" else scaled_size(size, box, settings.shape)
        for box in boxes(size, settings)
    ]


def sizes_shown(size: Size, settings: Settings) -> list[Size]:
    """(height, width) at which an image of that size is shown to the network, at each scale: of the whole, or of the
    smallest of its windows.
    """
    found = []
    for height, width in sizes_scaled(size, settings):
        (down, right), _ = cut_into((height, width), settings) or ((height, width), None)
        found.append((min(height, down), min(width, right)))
    return found


def in_boxes(image: Tensor, settings: Settings) -> list[Tensor]:
    """(3, H, W) uint8 RGB -> (3, h, w) uint8 as the network is shown it, at each scale."""
    found = boxes(size_of(Scene(image)), settings)
    return [resize(Scene(image), box, settings.shape, settings.kernel).image for box in found]
