"""The teacher: a copy of the student whose weights are the running mean of the student's (Tarvainen & Valpola 2017)."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from segda.distributed.shares import Share
from segda.networks.encoders.encoder import frozen_weights
from segda.networks.network import Network


class Teacher(nn.Module):
    """An exponential moving average of a student, asked for predictions only.

    As in DAFormer's code: parameters are averaged, buffers are not. Batch norms stay in training mode, so they
    normalise with the target batch and keep statistics of their own; every kind of dropout is off.
    mirror: it looks at each image's mirror image too. after: see `follow`.
    """

    def __init__(self, student: Network, decay: float, *, mirror: bool = False, after: bool = False):
        super().__init__()
        self.decay, self.mirror, self.after = decay, mirror, after
        self.network = copy.deepcopy(student).requires_grad_(False)

    def train(self, mode: bool = True) -> Teacher:
        self.training = mode
        self.network.train(mode)  # but for batch norm of frozen layers
        for module in self.network.modules():
            module.training = module.training and isinstance(module, nn.modules.batchnorm._BatchNorm)
        return self

    @torch.no_grad()
    def follow(self, student: Network, t: int, share: Share) -> None:
        """teacher <- a * teacher + (1 - a) * student with a = min(1 - 1 / (t + 1), decay).

        At t = 0 this copies the student; then it is the plain mean until `decay` is reached. Called before the
        forward passes of step t, that is, with the student after t updates (lhoyer/DAFormer `dacs.py:_update_ema`).
        Of a step in several micro-batches, the first does it. `after`, as VFM-UDA's code has it, counts updates from
        0: the teacher is the student after one update at t = 1.
        """
        if not share.first:
            return
        updates = max(t - 1, 0) if self.after else t
        keep = min(1 - 1 / (updates + 1), self.decay)
        still = frozen_weights(student)  # and equal from the start: a mean of two equal numbers may round
        pairs = zip(self.network.parameters(), student.parameters(), strict=True)
        ours, theirs = zip(*((one, other) for one, other in pairs if other not in still), strict=True)
        torch._foreach_mul_(ours, keep)
        torch._foreach_add_(ours, theirs, alpha=1 - keep)

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] -> logits (B, C, H, W), without gradient; with `mirror` those of the mean
        probabilities.
        """
        logits = self.network.infer(image)
        if not self.mirror:
            return logits
        other = self.network.infer(image.flip(-1)).flip(-1)
        mean = (logits.float().softmax(1) + other.float().softmax(1)) / 2
        return mean.clamp(min=torch.finfo(torch.float32).tiny).log()
