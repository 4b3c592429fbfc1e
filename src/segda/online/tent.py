"""TENT: the entropy of each prediction is made smaller by the norms' scales and shifts alone (Wang et al., ICLR 2021).

As in the authors' code (DequanWang/tent): batch norms normalise by the batch, here one image, and forget the run's own
statistics; the prediction is what was said before the step. An extension of ours: where a network has layer norms or
group norms, these learn as well; the paper has batch norms alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from segda.errors import RecipeError
from segda.evaluation.inference import Size, View, views
from segda.evaluation.look import Eye, Sight
from segda.online.online import Learning, detached, logits_of, numbers

NORMS = (_BatchNorm, nn.LayerNorm, nn.GroupNorm)


class Tent(Learning):
    """steps: of gradient descent on each image; the first one's prediction counts."""

    def __init__(self, eye: Eye, *, lr: float, betas: tuple[float, float], steps: int):
        numbers({"lr": lr, "steps": steps}, "tent")
        norms = [module for module in eye.network.modules() if isinstance(module, NORMS)]
        learns = [parameter for norm in norms for parameter in norm.parameters(recurse=False)]
        if not learns:
            raise RecipeError("tent: this network has no norm with scales and shifts to learn; use another --method")
        super().__init__(eye, learns, lr, betas)
        self.steps = steps

    def told(self, sight: Sight) -> Sequence[View]:
        eye, image = self.eye, sight.scene.image
        prediction = detached(sight.views)
        self.descend(entropy(sight.views, sight.size))
        for _ in range(self.steps - 1):
            seen = views(self.network, image, eye.settings, eye.device, eye.autocast, gradients=True)
            self.descend(entropy(seen, sight.size))
        return prediction


def entropy(seen: Sequence[View], size: Size) -> Tensor:
    """mean_n H(p_n) in nats over the pixels of the image, and over its views by their weight."""
    whole = sum(view.weight for view in seen)
    found = [view.weight / whole * _entropy(logits_of(view, size)) for view in seen]
    return torch.stack(found).sum()


def _entropy(logits: Tensor) -> Tensor:
    """(C, H, W) -> the mean of -sum_c p_c ln p_c."""
    return -(logits.softmax(0) * logits.log_softmax(0)).sum(0).mean()
