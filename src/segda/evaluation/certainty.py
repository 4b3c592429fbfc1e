"""What networks predict of an image's pixels and how sure they are of it: the material of pseudo-labels.

Other than in evaluation, softmax comes before the upsampling, as in ESL's extraction (esl_UDA.py): probabilities are
interpolated, and several networks' probabilities averaged. One class comes after the other, so that the scores of all
classes at full size are never held.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from segda.evaluation.inference import Size, View
from segda.pseudo_labelling.rules import Score


def upsampled_probabilities(seen: Sequence[View], covers: Size, size: Size) -> Iterator[Tensor]:
    """Views -> C times (H, W) float32: the mean, by the views' weights, of softmax(logits) interpolated to `covers`.

    Of that, `size` is the upper left part: the rest was filled up around the image.
    """
    whole = sum(view.weight for view in seen)
    probs = [(view.logits.softmax(1), view.align_corners, view.weight / whole) for view in seen]
    for c in range(seen[0].logits.shape[1]):
        mean = torch.zeros(size, device=seen[0].logits.device)
        for prob, align_corners, share in probs:
            wide = interpolate(prob[:, c : c + 1], covers, mode="bilinear", align_corners=align_corners)
            mean += share * wide[0, 0, : size[0], : size[1]]
        yield mean


def most_probable(probs: Iterable[Tensor], score: Score) -> tuple[Tensor, Tensor]:
    """C times (H, W) probabilities -> (H, W) uint8 train ids and (H, W) float32 scores.

    The label is the first of the most probable classes. entropy = -sum_c p ln p / ln C with 0 ln 0 = 0, in [0, 1];
    confidence = max_c p. NaN where a probability is.
    """
    label = best = entropy = None
    classes = 0
    for p in probs:
        if label is None:
            label, best, entropy = torch.zeros_like(p, dtype=torch.uint8), p.clone(), torch.zeros_like(p)
        else:
            label.masked_fill_(p > best, classes)
            best = torch.maximum(best, p)
        if score == "entropy":
            entropy += torch.special.entr(p)
        classes += 1
    assert label is not None
    if score == "confidence":
        return label, best
    # Interpolation may leave a p just above one, and an entropy just below zero.
    return label, (entropy / math.log(max(classes, 2))).clamp_min_(0)
