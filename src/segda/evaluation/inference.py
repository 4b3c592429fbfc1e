"""From an image to class scores at its own size: into a box, through the network whole or in windows, back up; and the
mean of several views: other sizes, the mirrored image, several networks.

Networks differ in what is upsampled to the image's size (`Network.low_res_logits`) and how (`Network.align_corners`).
DAFormer's test pipeline (mmsegmentation `inference.py`) upsamples logits that are at the input's size already, ADVENT's
(`eval_UDA.py`) those of every eighth pixel. Softmax comes after that. Views of one network are averaged as
probabilities; an ensemble says which: AdvEnt+MinEnt is a mean of logits, FDA's three models one of probabilities.

A 2048 x 1024 image with 19 classes has 160 MB of scores. Nothing here holds them all: a class is upsampled
when its turn comes (the channels of a bilinear upsampling do not touch each other), which is also faster than
one argmax over the lot. Several views are held at the size that the network saw: with six sizes of 0.5 to 1.75 times
1024 x 512, each mirrored as well, that is 0.7 GB.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from segda.data.stream.augment import Kernel, Shape, padded_size, resize
from segda.networks.network import Network
from segda.scene import Scene, stack

Size = tuple[int, int]
"""height, width in pixels."""


class Settings(Protocol):
    """What a recipe's `evaluate` block says about inference.

    resize: (width, height) box, None for the image as it is. shape, kernel: how the image gets into it, see Augment.
    how: the image whole, or in windows. window, stride: (height, width), for `slide`.
    scales: factors of the box, or of the image's size where there is none: a view each, of which the mean counts.
    flip: average with the mirrored image, at each size.
    """

    resize: tuple[int, int] | None
    shape: Shape
    kernel: Kernel
    how: Literal["whole", "slide"]
    window: Size | None
    stride: Size | None
    scales: tuple[float, ...]
    flip: bool


Mean = Literal["logits", "probabilities"]
"""What of several views is averaged."""


@dataclass(frozen=True, slots=True)
class View:
    """What a network says of an image that it saw once.

    logits: (1, C, h, w) float32, upright, before they are brought to the image's size.
    align_corners: how they are to be, see Network.
    covers: (height, width) in pixels of the image that the logits stand for: more than the image has where it was
    padded at the right or bottom; None: the image.
    weight: the view's share in a mean of several; the shares need not sum to one.
    """

    logits: Tensor
    align_corners: bool
    covers: Size | None = None
    weight: float = 1.0


def windows(side: int, window: int, stride: int) -> list[int]:
    """First pixels of the windows along one side: every `stride`, the last ones moved back to end inside.

    ceil((side - window) / stride) + 1 windows, one if the image is not larger than the window.
    """
    count = max(side - window + stride - 1, 0) // stride + 1
    return [max(min(index * stride, side - window), 0) for index in range(count)]


def slide(network: Network, image: Tensor, window: Size, stride: Size) -> Tensor:
    """(1, 3, H, W) -> (1, C, H, W) float32 logits: the mean over all windows that see a pixel.

    An image smaller than the window is seen as it is, without padding.
    """
    height, width = image.shape[2:]
    total: Tensor | None = None
    visits = torch.zeros(1, 1, height, width, device=image.device)
    for top in windows(height, window[0], stride[0]):
        for left in windows(width, window[1], stride[1]):
            here = (..., slice(top, top + window[0]), slice(left, left + window[1]))
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
) -> list[View]:
    """(3, H, W) uint8 RGB -> what the network says of it at each of the scales, and of its mirror image if the settings
    ask for that; each has the same share.

    weight: of all these views together. boxed: what `in_boxes` makes of the image, where that has been done already.
    Windows are averaged at the network's input size, and are as large at every scale.
    """
    size = tuple(image.shape[1:])
    share = weight / (len(settings.scales) * (1 + settings.flip))

    def view(seen: Tensor, covers: Size | None, mirrored: bool) -> View:
        with torch.no_grad(), autocast:
            if settings.how == "slide":
                logits = slide(network, seen, settings.window, settings.stride)
            else:
                logits = network.low_res_logits(seen).float()
        logits = logits.flip(-1) if mirrored else logits
        # One class after the other is upsampled: its cells belong together.
        return View(logits.contiguous(), network.align_corners, covers, share)

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


def in_boxes(image: Tensor, settings: Settings) -> list[Tensor]:
    """(3, H, W) uint8 RGB -> (3, h, w) uint8 as the network is shown it, at each scale."""
    found = boxes(tuple(image.shape[1:]), settings)
    return [resize(Scene(image), box, settings.shape, settings.kernel).image for box in found]


def upsampled(view: View, size: Size) -> Iterator[Tensor]:
    """Logits (1, C, h, w) -> C times (H, W) for an image of that size: bilinear, one class after the other."""
    height, width = size
    for channel in range(view.logits.shape[1]):
        yield interpolate(
            view.logits[:, channel : channel + 1],
            view.covers or size,
            mode="bilinear",
            align_corners=view.align_corners,
        )[0, 0, :height, :width]


def mean_logits(seen: Sequence[View], size: Size) -> Iterator[Tensor]:
    """Views -> C times (H, W) float32: the weighted mean of the upsampled logits, class by class."""
    shares = _shares(seen)
    for scores in zip(*(upsampled(view, size) for view in seen), strict=True):
        yield sum(share * score for share, score in zip(shares, scores, strict=True))


def probabilities(seen: Sequence[View], size: Size) -> Iterator[Tensor]:
    """Views -> C times (H, W) float32: the weighted mean of softmax(upsampled logits), class by class.

    A first pass sums up each view's normaliser ln sum_c exp(logit), a second one gives exp(logit -
    normaliser).
    """
    normalisers = []
    for view in seen:
        normaliser = torch.full(size, -math.inf, device=view.logits.device)
        for score in upsampled(view, size):
            normaliser = torch.logaddexp(normaliser, score)
        normalisers.append(normaliser)
    shares = _shares(seen)
    for scores in zip(*(upsampled(view, size) for view in seen), strict=True):
        total = torch.zeros(size, device=scores[0].device)
        for score, normaliser, share in zip(scores, normalisers, shares, strict=True):
            total += (score - normaliser).exp_().mul_(share)
        yield total


def _shares(seen: Sequence[View]) -> list[float]:
    whole = sum(view.weight for view in seen)
    return [view.weight / whole for view in seen]


def labels(seen: Sequence[View], size: Size, mean: Mean = "probabilities") -> Tensor:
    """Views -> (H, W) uint8 train ids of the class with the highest mean; the first one where two are equal."""
    if len(seen) == 1:  # softmax does not change the order, so the upsampled logits decide
        return _winners(upsampled(seen[0], size))[0]
    return _winners(mean_logits(seen, size) if mean == "logits" else probabilities(seen, size))[0]


def labels_and_entropy(seen: Sequence[View], size: Size) -> tuple[Tensor, Tensor]:
    """Views -> (H, W) uint8 train ids, (H, W) float32 entropy -sum_c p ln p in nats (0 to ln C) of the mean
    probabilities.
    """
    entropy = torch.zeros(size, device=seen[0].logits.device)

    def counted() -> Iterator[Tensor]:
        for prob in probabilities(seen, size):
            entropy.add_(torch.special.entr(prob))
            yield prob

    winner, _ = _winners(counted())
    return winner, entropy.clamp_min_(0)


def labels_and_confidence(seen: Sequence[View], size: Size) -> tuple[Tensor, Tensor]:
    """Views -> (H, W) uint8 train ids, (H, W) float32 mean probability of that class, 1 / C to 1."""
    return _winners(probabilities(seen, size))


def _winners(scores: Iterator[Tensor]) -> tuple[Tensor, Tensor]:
    best = next(scores).clone()
    winner = torch.zeros(best.shape, dtype=torch.uint8, device=best.device)
    better = torch.empty_like(winner)
    for channel, score in enumerate(scores, 1):
        torch.gt(score, best, out=better.view(torch.bool))
        # Classes come in ascending order, so that the newest is the highest: four times as fast as masked_fill_.
        torch.maximum(winner, better.mul_(channel), out=winner)
        torch.maximum(best, score, out=best)
    return winner, best
