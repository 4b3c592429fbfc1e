"""What networks say of each pixel: the label, and how sure they are of it.

In evaluation, logits are upsampled to the image's size, and softmax comes after that, unless `evaluate.softmax` says
before. Views of one network are averaged as probabilities; an ensemble says which: AdvEnt+MinEnt is a mean of logits,
FDA's three models one of probabilities. Pseudo-labels usually come from the other order, as in ESL's extraction
(esl_UDA.py): softmax first, then probabilities are interpolated and averaged. FDA has both the other way round.

A 2048 x 1024 image with 19 classes has 160 MB of scores. Nothing here holds them all: a class is upsampled when its
turn comes (the channels of a bilinear upsampling do not touch each other), which is also faster than one argmax over
the lot.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from segda.evaluation.inference import Size, View
from segda.ground.choices import Mean
from segda.pseudo_labelling.rules import Score


def upsampled(view: View, size: Size) -> Iterator[Tensor]:
    """The view's logits (1, C, h, w) -> C times (H, W) for an image of that size: bilinear, class by class."""
    return _interpolated(view.logits, view, size)


def _interpolated(scores: Tensor, view: View, size: Size) -> Iterator[Tensor]:
    height, width = size
    for channel in range(scores.shape[1]):
        yield interpolate(
            scores[:, channel : channel + 1],
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
    """Views -> C times (H, W) float32: the weighted mean of their probabilities, class by class."""
    shares = _shares(seen)
    for probs in zip(*(_probabilities(view, size) for view in seen), strict=True):
        total = torch.zeros(size, device=probs[0].device)
        for prob, share in zip(probs, shares, strict=True):
            total += prob.mul_(share)
        yield total


def _probabilities(view: View, size: Size) -> Iterator[Tensor]:
    """A view -> C times (H, W) float32: softmax(upsampled logits), or softmax(logits) upsampled.

    Of the former, a first pass sums up the normaliser ln sum_c exp(logit), a second one gives exp(logit - normaliser).
    """
    if view.softmax == "before":
        yield from _interpolated(view.logits.softmax(1), view, size)
        return
    normaliser = torch.full(size, -math.inf, device=view.logits.device)
    for score in upsampled(view, size):
        normaliser = torch.logaddexp(normaliser, score)
    for score in upsampled(view, size):
        yield (score - normaliser).exp_()


def _shares(seen: Sequence[View]) -> list[float]:
    whole = sum(view.weight for view in seen)
    return [view.weight / whole for view in seen]


def labels(seen: Sequence[View], size: Size, mean: Mean = "probabilities") -> Tensor:
    """Views -> (H, W) uint8 train ids of the class with the highest mean; the first one where two are equal."""
    if len(seen) == 1 and seen[0].softmax == "after":  # it does not change the order, so the upsampled logits decide
        return _decided(upsampled(seen[0], size))[0]
    return _decided(mean_logits(seen, size) if mean == "logits" else probabilities(seen, size))[0]


def labels_and_entropy(seen: Sequence[View], size: Size) -> tuple[Tensor, Tensor]:
    """Views -> (H, W) uint8 train ids, (H, W) float32 entropy -sum_c p ln p in nats (0 to ln C) of the mean
    probabilities.
    """
    label, _, entropy, _ = _decided(probabilities(seen, size), entropy=True)
    return label, entropy


def labels_and_confidence(seen: Sequence[View], size: Size) -> tuple[Tensor, Tensor]:
    """Views -> (H, W) uint8 train ids, (H, W) float32 mean probability of that class, 1 / C to 1."""
    label, best, _, _ = _decided(probabilities(seen, size))
    return label, best


@dataclass(frozen=True)
class Survey:
    """What is said of all pixels of an image.

    label: (H, W) uint8 train ids. confidence: (H, W) float32, its mean probability. entropy: (H, W) float32 in nats.
    mean: (C,) float32, the mean of each class's probability over the image. chosen: (k, C) float32, the probabilities
    of the chosen pixels.
    """

    label: Tensor
    confidence: Tensor
    entropy: Tensor
    mean: Tensor
    chosen: Tensor


def surveyed(seen: Sequence[View], size: Size, pixels: Tensor) -> Survey:
    """Views -> a survey of the image; pixels: (k,) int64, numbers of those to choose, row by row."""
    means: list[Tensor] = []
    chosen: list[Tensor] = []

    def noted() -> Iterator[Tensor]:
        for prob in probabilities(seen, size):
            means.append(prob.mean())
            chosen.append(prob.flatten()[pixels.to(prob.device)])
            yield prob

    label, confidence, entropy, _ = _decided(noted(), entropy=True)
    return Survey(label, confidence, entropy, torch.stack(means), torch.stack(chosen, 1))


def most_probable(probs: Iterable[Tensor], score: Score) -> tuple[Tensor, Tensor]:
    """C times (H, W) probabilities -> (H, W) uint8 train ids and (H, W) float32 scores.

    The label is the first of the most probable classes. entropy = -sum_c p ln p / ln C with 0 ln 0 = 0, in [0, 1];
    confidence = max_c p. NaN where a probability is.
    """
    label, best, entropy, classes = _decided(probs, entropy=score == "entropy")
    return label, best if score == "confidence" else entropy / math.log(max(classes, 2))


@torch.no_grad()
def _decided(scores: Iterable[Tensor], *, entropy: bool = False) -> tuple[Tensor, Tensor, Tensor, int]:
    """C times (H, W) scores -> uint8 train ids of the first of the highest, that score, -sum_c p ln p of them if they
    are probabilities and it is asked for, and C.
    """
    scores = iter(scores)
    best = next(scores).clone()
    winner = torch.zeros(best.shape, dtype=torch.uint8, device=best.device)
    unsure = torch.zeros_like(best)
    if entropy:
        unsure += torch.special.entr(best)
    better, classes = torch.empty_like(winner), 1
    for score in scores:
        torch.gt(score, best, out=better.view(torch.bool))
        # Classes come in ascending order, so that the newest is the highest: four times as fast as masked_fill_.
        torch.maximum(winner, better.mul_(classes), out=winner)
        torch.maximum(best, score, out=best)
        if entropy:
            unsure += torch.special.entr(score)
        classes += 1
    # Interpolation may leave a p just above one, and an entropy just below zero.
    return winner, best, unsure.clamp_min_(0), classes
