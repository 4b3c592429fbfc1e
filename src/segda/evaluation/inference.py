"""From an image to class scores at its own size: fit into a box, run whole or in windows, average with the
mirrored.

As in DAFormer's test pipeline (mmsegmentation `inference.py`): the logits at the network's input size are
upsampled a second time to the image's size, softmax comes after that, and several views are averaged as
probabilities.

A 2048 x 1024 image with 19 classes has 160 MB of scores. Nothing here holds them all: a class is upsampled
when its turn comes (the channels of a bilinear upsampling do not touch each other), which is also faster than
one argmax over the lot.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from segda.data.augment import resize
from segda.networks.network import Network
from segda.scene import Scene, stack

Size = tuple[int, int]
"""height, width in pixels."""


class Settings(Protocol):
    """What a recipe's `evaluate` block says about inference.

    resize: (width, height) box, None for the image as it is. how: the image whole, or in windows.
    window, stride: (height, width), for `slide`. flip: average with the mirrored image.
    """

    resize: tuple[int, int] | None
    how: Literal["whole", "slide"]
    window: Size | None
    stride: Size | None
    flip: bool


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
) -> list[Tensor]:
    """(3, H, W) uint8 RGB -> the logits (1, C, h, w) float32 of each view of it, at the network's input size,
    upright.
    """
    small = stack([resize(Scene(image), settings.resize)]).to(device).image

    def logits(seen: Tensor) -> Tensor:
        with torch.no_grad(), autocast:
            if settings.how == "slide":
                return slide(network, seen, settings.window, settings.stride)
            return network.infer(seen).float()

    return [logits(small), logits(small.flip(-1)).flip(-1)] if settings.flip else [logits(small)]


def upsampled(logits: Tensor, size: Size) -> Iterator[Tensor]:
    """(1, C, h, w) -> C times (H, W): bilinear, corners not aligned, one class after the other."""
    for channel in range(logits.shape[1]):
        yield interpolate(logits[:, channel : channel + 1], size, mode="bilinear", align_corners=False)[0, 0]


def probabilities(seen: Sequence[Tensor], size: Size) -> Iterator[Tensor]:
    """Views (1, C, h, w) -> C times (H, W) float32: the mean over the views of softmax(upsampled logits),
    class by class.

    A first pass sums up each view's normaliser ln sum_c exp(logit), a second one gives exp(logit -
    normaliser).
    """
    normalisers = []
    for logits in seen:
        normaliser = torch.full(size, -math.inf, device=logits.device)
        for score in upsampled(logits, size):
            normaliser = torch.logaddexp(normaliser, score)
        normalisers.append(normaliser)
    for scores in zip(*(upsampled(logits, size) for logits in seen), strict=True):
        total = torch.zeros(size, device=scores[0].device)
        for score, normaliser in zip(scores, normalisers, strict=True):
            total += (score - normaliser).exp()
        yield total / len(scores)


def labels(seen: Sequence[Tensor], size: Size) -> Tensor:
    """Views -> (H, W) uint8 train ids of the most probable class; the first one where two are equal."""
    # One view: softmax does not change the order, so the upsampled logits decide.
    scores = upsampled(seen[0], size) if len(seen) == 1 else probabilities(seen, size)
    return _winners(scores)[0]


def labels_and_entropy(seen: Sequence[Tensor], size: Size) -> tuple[Tensor, Tensor]:
    """Views -> (H, W) uint8 train ids, (H, W) float32 entropy -sum_c p ln p in nats (0 to ln C) of the mean
    probabilities.
    """
    entropy = torch.zeros(size, device=seen[0].device)

    def counted() -> Iterator[Tensor]:
        for prob in probabilities(seen, size):
            entropy.add_(torch.special.entr(prob))
            yield prob

    winner, _ = _winners(counted())
    return winner, entropy.clamp_min_(0)


def _winners(scores: Iterator[Tensor]) -> tuple[Tensor, Tensor]:
    best = next(scores).clone()
    winner = torch.zeros(best.shape, dtype=torch.uint8, device=best.device)
    for channel, score in enumerate(scores, 1):
        winner.masked_fill_(score > best, channel)
        best = torch.maximum(best, score)
    return winner, best


def label_of(
    network: Network,
    image: Tensor,
    settings: Settings,
    device: torch.device,
    autocast: AbstractContextManager,
) -> Tensor:
    """(3, H, W) uint8 RGB -> (H, W) uint8 train ids on `device`: all of the above."""
    return labels(views(network, image, settings, device, autocast), tuple(image.shape[1:]))
