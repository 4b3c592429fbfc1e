"""Two predictions of one place made one: the darker picture's own, and that of its reference, by how sure each is.

Confidence-adaptive fusion of GCMA (Sakaridis et al., ICCV 2019, sec. 3.2) and MGCDA (Sakaridis et al., PAMI 2020, sec.
3.3), as in the authors' code (sakaridis/MGCDA), but for their rounding of the reference's maps to 8 bits.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from segda.evaluation.inference import Size, View

LEAST = -20.0
"""Of a logarithm [code of MGCDA, upsampling of soft predictions]."""


def enlarged(prob: Tensor, size: Size) -> Tensor:
    """(C, h, w) probabilities -> (C, *size): bicubic of their logarithms, summing to 1 again.

    torch's cubic has -0.75 where MATLAB's has -0.5, which torch has with `antialias`; where nothing shrinks that does
    no more. Pixels' centres correspond.
    """
    logs = prob.log().clamp_min_(LEAST)
    if tuple(logs.shape[1:]) != tuple(size):
        logs = F.interpolate(logs[None], tuple(size), mode="bicubic", align_corners=False, antialias=True)[0]
    large = logs.exp_()
    return large.div_(large.sum(0))


def mean_enlarged(seen: Sequence[View], covers: Size, size: Size) -> Tensor:
    """Views -> (C, *size): the mean, by their weights, of softmax(logits) enlarged to `covers`.

    Of that, `size` is the upper left part: the rest was filled up around the image.
    """
    whole = sum(view.weight for view in seen)
    mean: Tensor | None = None
    for view in seen:
        part = enlarged(view.logits[0].softmax(0), covers)[:, : size[0], : size[1]] * (view.weight / whole)
        mean = part if mean is None else mean.add_(part)
    assert mean is not None
    return mean


def fused(own: Tensor, other: Tensor, *, weight: float, low: float, doubt: float, things: Tensor) -> Tensor:
    """(C, H, W) probabilities of a picture, and those of its reference brought to it -> (C, H, W) of both.

    (c own + w c' other) / (c + w c') with c and c' the highest probability of each. w is `weight`; but `low` where one
    of the two sees a thing that the other gives no more than `doubt`: what moves has moved since the reference was
    taken. things: (C,) bool. `low` = `weight` is GCMA's fusion.
    """
    sure, mine = own.max(0)
    other_sure, theirs = other.max(0)
    moved = things[mine] & (other.gather(0, mine[None])[0] <= doubt)
    moved |= things[theirs] & (own.gather(0, theirs[None])[0] <= doubt)
    share = other_sure * weight
    share[moved] = other_sure[moved] * low
    return (sure * own).add_(share * other).div_(sure + share)
