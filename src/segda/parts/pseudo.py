"""Pseudo-labels: what a teacher's prediction says of a target scene, and which of its pixels count.

    fraction            all pixels, by the share of confident ones in the batch (DACS, DAFormer, EBDA)
    pixel               the pixels of confidence at least the threshold
    class-confidence    the pixels of confidence at least the smaller of the threshold and their class's median
    class-entropy       the pixels of entropy at most the larger of the threshold and their class's median

The last two are the choice by class that ESL makes between two trainings (Saporta et al. 2020), made in each step. A
choice has a border: of two pixels there that are alike but for rounding, another number of processes may take the
other.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from segda.distributed.shares import Share
from segda.errors import RecipeError
from segda.parts.entropy import entropy
from segda.scene import Scene

Rule = Literal["fraction", "pixel", "class-confidence", "class-entropy"]

BY_CLASS = ("class-confidence", "class-entropy")


def confident_fraction(logits: Tensor, target: Scene, threshold: float, *, share: Share) -> Scene:
    """The target scene labelled by the most probable class, every pixel weighted by the share of confident pixels.

    logits (B, C, H, W) of the target images. q = (pixels with max softmax >= threshold) / (B H W): one scalar for the
    whole batch, in [0, 1]. label = argmax everywhere, also where the network is unsure; weight = q, times the target's
    own weight where it has one (rows that must not teach).  DACS (Tranheden et al. 2021), DAFormer sec. 3.1.
    """
    return _by_fraction(logits.float().softmax(1), target, threshold, share)


def _by_fraction(probabilities: Tensor, target: Scene, threshold: float, share: Share) -> Scene:
    prob, label = probabilities.max(1)
    weight = share.mean((prob >= threshold).float().mean()).expand(prob.shape)
    return _labelled(target, label, weight)


def all_count(logits: Tensor, target: Scene) -> Scene:
    """The same with weight 1 for every pixel, times the target's own."""
    label = logits.argmax(1)
    return _labelled(target, label, torch.ones_like(label, dtype=torch.float32))


def class_medians(values: Tensor, label: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """The median of the values (n,) in each class of label (n,): (C,) float32, and (C,) bool: whether it has any value.

    Of m values the k-th smallest, k = ceil(m / 2), as torch.median has it; 0 for a class without a value. Nothing that
    an accelerator must wait for.
    """
    by_value = values.float().argsort()
    order = by_value[label[by_value].argsort(stable=True)]
    counts = torch.zeros(classes, dtype=torch.long, device=label.device)
    counts.scatter_add_(0, label, torch.ones_like(label))
    first = counts.cumsum(0) - counts
    middle = (first + (counts - 1).clamp(min=0) // 2).clamp(max=len(values) - 1)
    found = counts > 0
    return torch.where(found, values.float()[order[middle]], 0.0), found


class Selection(nn.Module):
    """Labels a target scene with its most probable classes, and gives the pixels that count weight 1, others 0.

    classes: C. rule: see the module. threshold: a probability; of class-entropy, nats. momentum: of the rules by class:
    None takes the medians of the step; a number m in [0, 1) takes running ones, level <- m level + (1 - m) median
    once a step for each class that the step has; a class begins with its first median.
    RecipeError where a setting has no meaning.
    """

    level: Tensor
    begun: Tensor

    def __init__(self, classes: int, *, rule: Rule, threshold: float, momentum: float | None = None):
        super().__init__()
        if momentum is not None and rule not in BY_CLASS:
            raise RecipeError(
                f"method.selection_momentum: {momentum} has no effect with selection: {rule}, which has no medians; "
                "remove it"
            )
        if momentum is not None and not 0 <= momentum < 1:
            raise RecipeError(f"method.selection_momentum: {momentum} is not in [0, 1)")
        if threshold < 0 or (rule != "class-entropy" and threshold > 1):
            unit = "nats, 0 or more" if rule == "class-entropy" else "a probability, 0 to 1"
            raise RecipeError(f"method.threshold: {threshold}; with selection: {rule} it is {unit}")
        self.classes, self.rule, self.threshold, self.momentum = classes, rule, threshold, momentum
        if momentum is not None:
            self.register_buffer("level", torch.zeros(classes))
            self.register_buffer("begun", torch.zeros(classes, dtype=torch.bool))

    @torch.no_grad()
    def forward(self, logits: Tensor, target: Scene, share: Share) -> Scene:
        """(B, C, H, W) logits of the target images -> the scene with label and weight (B, H, W); its own weight, where
        it has one, is multiplied in.
        """
        unsure = entropy(logits) if self.rule == "class-entropy" else None
        return self.chosen(logits.float().softmax(1), unsure, target, share)

    @torch.no_grad()
    def of_probabilities(self, probabilities: Tensor, target: Scene, share: Share) -> Scene:
        """The same of (B, C, H, W) numbers that need not sum to 1 (parts/refinement.py), taken as they are; their
        entropy is that of their shares in the sum.
        """
        unsure = None
        if self.rule == "class-entropy":
            unsure = entropy(probabilities.clamp(min=torch.finfo(torch.float32).tiny).log())
        return self.chosen(probabilities, unsure, target, share)

    def chosen(self, probabilities: Tensor, unsure: Tensor | None, target: Scene, share: Share) -> Scene:
        """By the rule. unsure (B, H, W): entropies in nats, where the rule asks for them."""
        if self.rule == "fraction":
            return _by_fraction(probabilities, target, self.threshold, share)
        prob, label = probabilities.max(1)
        if self.rule == "pixel":
            return _labelled(target, label, (prob >= self.threshold).float())
        values = prob if unsure is None else unsure
        median = self._medians(values, label, share)[label]
        if self.rule == "class-entropy":
            chosen = values <= median.clamp(min=self.threshold)
        else:
            chosen = values >= median.clamp(max=self.threshold)
        return _labelled(target, label, chosen.float())

    def _medians(self, values: Tensor, label: Tensor, share: Share) -> Tensor:
        """(C,) the median of each class, over all shares of the step; running, if it has a momentum."""
        values, label = share.concatenated(values), share.concatenated(label)
        median, found = class_medians(values.flatten(), label.flatten(), self.classes)
        if self.momentum is None:
            return median
        if share.first:
            moved = torch.where(self.begun, self.momentum * self.level + (1 - self.momentum) * median, median)
            self.level.copy_(torch.where(found, moved, self.level))
            self.begun.logical_or_(found)
        return self.level.clone()

    def confident(self, pseudo: Scene) -> Tensor:
        """The confident share of what it labelled, for the log."""
        assert pseudo.weight is not None
        return pseudo.weight.max() if self.rule == "fraction" else pseudo.weight.mean()


def _labelled(target: Scene, label: Tensor, weight: Tensor) -> Scene:
    return target.replace(label=label, weight=weight if target.weight is None else weight * target.weight)
