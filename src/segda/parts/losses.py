"""Supervision: cross entropy with a weight for each pixel, over every head of a network."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from segda.distributed.shares import Share
from segda.ground.ignore import IGNORE
from segda.networks.network import Output
from segda.scene import Scene, crop

Over = Literal["all", "valid", "weight"]


def cross_entropy(
    logits: Tensor,
    label: Tensor,
    weight: Tensor | None = None,
    *,
    over: Over,
    share: Share,
    labelled: float | None = None,
) -> Tensor:
    """sum over pixels of -weight * log softmax(logits)[label], divided by a number of pixels; nats, a scalar.

    logits (B, C, H, W), label (B, H, W) with IGNORE (such a pixel adds 0), weight (B, H, W) or None for ones.
    over="all" divides by B*H*W, ignored pixels included, as mmsegmentation does and so DAFormer and EBDA
    (spec of lhoyer/DAFormer, mmseg `cross_entropy_loss.py`); over="valid" by the number of pixels that are not IGNORE,
    as ADVENT does; over="weight" by the sum of the weights of those, as torch's weighted cross entropy and so DANNet.
    Without any valid pixel the result is 0, not NaN.

    Where a step's scenes are in shares, the mean of the shares' results is the result of all: "valid" divides by the
    mean of their numbers of pixels ("weight": of their sums), which is `labelled` where somebody knows it already.
    """
    pixels = F.cross_entropy(logits.float(), label, ignore_index=IGNORE, reduction="none")
    if weight is not None:
        pixels = pixels * weight
    if over == "all":
        return pixels.mean()
    if over == "valid" and labelled is not None:
        return pixels.sum() / (labelled or 1)
    if over == "weight":
        assert weight is not None, "a mean over weights needs them"
        count = share.mean((weight * (label != IGNORE)).sum())
    else:
        count = share.mean((label != IGNORE).sum())
    return pixels.sum() / torch.where(count == 0, 1, count)


def supervised(output: Output, scene: Scene, *, over: Over, share: Share) -> Tensor:
    """Every head's cross entropy with the label inside its box, weighted by the head's share of the loss."""
    assert scene.label is not None
    losses = [
        head.weight
        * cross_entropy(
            head.logits,
            crop(scene.label, head.box),
            crop(scene.weight, head.box),
            over=over,
            share=share,
            labelled=scene.labelled if head.box is None else None,
        )
        for head in output.heads.values()
    ]
    return sum(losses[1:], start=losses[0])
