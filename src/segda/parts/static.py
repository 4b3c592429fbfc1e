"""What stands still is the same by day and by night: pseudo-labels of both, and a loss on the classes that do not move.

Wu et al., DANNet, CVPR 2021, sec. 3.4.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from segda.distributed.shares import Share
from segda.ground.ignore import IGNORE

Neighbours = Literal["paper", "none"]
"""Whose pseudo-labels a pixel may agree with: any of the 3 x 3 around it, as the paper says, or its own alone. The
authors' code has the first and computes the second, but for a border of two pixels: its shifted copies are one tensor
(loss.py:35). So published numbers are those of "none"."""

LEAST = 1e-7
"""Probabilities are clamped to [LEAST, 1 - LEAST] [code DANNet, loss.py]."""


@torch.no_grad()
def static_label(
    day: Tensor, night: Tensor, static: Tensor, weights: Tensor, *, level: float, day_share: float
) -> Tensor:
    """What night's pixels show where that stands still: of both predictions' weighted sum the largest class.

    day, night: (B, C, H, W) logits of the same place. static: (S,) the numbers of the classes that stand still; of the
    others night's logits count alone. weights: (C,) of all classes; they multiply logits [code DANNet, train.py:183].
    Day's logit counts day_share where it is above `level`, else 1 - day_share. -> (B, H, W), numbers into `static`,
    IGNORE where another class wins.
    """
    day, night = day.float(), night.float()
    seen = day[:, static]
    share = torch.where(seen > level, day_share, 1 - day_share)
    fused = night.clone()
    fused[:, static] = share * seen + (1 - share) * night[:, static]
    winner = (fused * weights.view(-1, 1, 1)).argmax(1)
    place = torch.full_like(weights, IGNORE, dtype=torch.long)
    place[static] = torch.arange(len(static), device=static.device)
    return place[winner]


def static_loss(logits: Tensor, label: Tensor, weights: Tensor, *, neighbours: Neighbours, share: Share) -> Tensor:
    """Mean over labelled pixels of -(1 - S) ln S, S = max over classes of w_c p_c where a pixel that counts has label
    c, p = softmax(logits); nats, a scalar, 0 without a labelled pixel.

    logits (B, S, H, W) of the classes that stand still alone; label (B, H, W) of `static_label`; weights (S,). With
    neighbours="paper" c may be the label of any labelled pixel of the 3 x 3 around, else its own alone. S is clamped to
    [LEAST, 1 - LEAST], where its gradient ends.
    """
    valid = label != IGNORE
    # Not torch's one_hot, which waits for the device to see whether each label is a class.
    hot = (label[:, None] == torch.arange(logits.shape[1], device=label.device).view(-1, 1, 1)).float()
    if neighbours == "paper":
        hot = F.max_pool2d(hot, 3, stride=1, padding=1)
    agreed = (weights.view(-1, 1, 1) * logits.float().softmax(1) * hot).amax(1).clamp(LEAST, 1 - LEAST)
    losses = -(1 - agreed) * agreed.log() * valid
    count = share.mean(valid.sum())
    return losses.sum() / torch.where(count == 0, 1, count)
