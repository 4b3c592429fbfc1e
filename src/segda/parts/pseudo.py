"""Pseudo-labels: what a teacher's prediction says of a target scene."""

from __future__ import annotations

from torch import Tensor

from segda.distributed.shares import Share
from segda.scene import Scene


def confident_fraction(logits: Tensor, target: Scene, threshold: float, *, share: Share) -> Scene:
    """The target scene labelled by the most probable class, every pixel weighted by the share of confident pixels.

    logits (B, C, H, W) of the target images. q = (pixels with max softmax >= threshold) / (B H W): one scalar for the
    whole batch, in [0, 1]. label = argmax everywhere, also where the network is unsure; weight = q, times the target's
    own weight where it has one (rows that must not teach).  DACS (Tranheden et al. 2021), DAFormer sec. 3.1.
    """
    prob, label = logits.float().softmax(1).max(1)
    weight = share.mean((prob >= threshold).float().mean()).expand(prob.shape)
    if target.weight is not None:
        weight = weight * target.weight
    return target.replace(label=label, weight=weight)


def confidence(pseudo: Scene) -> Tensor:
    """The largest pixel weight of a pseudo-labelled scene: its confident share, for the log."""
    assert pseudo.weight is not None
    return pseudo.weight.max()
