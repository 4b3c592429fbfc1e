"""Entropy of the prediction: in nats, relative to its largest value, class by class, as a distribution for the log; and
the balance loss (EBDA).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from segda.distributed.shares import Share
from segda.errors import RecipeError
from segda.networks.network import Output


def entropy(logits: Tensor) -> Tensor:
    """H = -sum_c p_c ln p_c with p = softmax(logits), in nats: 0 when the network is certain, ln C if it is at a loss.

    (B, C, H, W) -> (B, H, W) float32. 0 ln 0 = 0, also in the gradient, since ln p comes from log_softmax.
    """
    log_prob = logits.float().log_softmax(1)
    return -(log_prob.exp() * log_prob).sum(1)


def self_information(logits: Tensor) -> Tensor:
    """Each class's share of the entropy, I_c = -p_c log2 p_c / log2 C: a pixel's shares sum to H / ln C, at most 1.

    (B, C, H, W) -> (B, C, H, W) float32. 0 where p = 0; the authors add 1e-30 to the logarithm's argument, which
    changes no float32.  Vu et al. 2019, eq. 4; valeoai/ADVENT func.py prob_2_entropy.
    """
    log_prob = logits.float().log_softmax(1)
    return log_prob.exp() * log_prob / -math.log(logits.shape[1])


def information(output: Output) -> dict[str, Tensor]:
    """The self-information maps of each head's logits."""
    return {name: self_information(head.logits) for name, head in output.heads.items()}


def mean_entropy(logits: Tensor) -> Tensor:
    """mean over pixels of H / ln C: 0 when the network is certain everywhere, 1 when it is at a loss; a scalar.

    Vu et al. 2019, eq. 3 as a mean; valeoai/ADVENT loss.py entropy_loss.
    """
    return entropy(logits).mean() / math.log(logits.shape[1])


def robust_entropy(logits: Tensor, eta: float) -> Tensor:
    """mean over pixels of (e^2 + 1e-8)^eta with e = H / ln C, a scalar: for eta > 0.5 unsure pixels count for more.

    Finite at p = 0. The paper adds 0.001^2 to e^2, the authors' code, which this follows, 1e-8; its 2.9444 is ln 19 to
    four digits.  Yang and Soatto 2020, eq. 5; YanchaoYang/FDA deeplab.py:168.
    """
    relative = entropy(logits) / math.log(logits.shape[1])
    return (relative.square() + 1e-8).pow(eta).mean()


def diversity(logits: Tensor, share: Share) -> Tensor:
    """sum_c q_c ln q_c / ln C with q the mean of the probabilities over all pixels: -1 where the pixels together are of
    all classes alike, 0 where they are of one; a scalar.

    (B, C, H, W) -> minus the entropy of q, relative to its largest value, so that mean_entropy + diversity is minus the
    mutual information of pixels and classes.  Liang et al. 2020 (SHOT), there in nats.

    Of a step in shares q is the mean of all; a share's result is sum_c p_c ln q_c / ln C with its own mean p. The mean
    of these is the whole, in value and, since all p sum to 1, in gradient.
    """
    prob = logits.float().softmax(1).mean((0, 2, 3))
    together = share.mean(prob.detach()).clamp(min=torch.finfo(torch.float32).tiny)
    return (prob * together.log()).sum() / math.log(logits.shape[1])


QUANTILES = (5, 25, 50, 75, 95)
"""Of the entropy, in %, that `entropy_summary` logs."""

BINS = 48
"""Of its histogram, from 0 to ln C."""


@torch.no_grad()
def entropy_summary(domain: str, logits: Tensor) -> dict[str, Tensor]:
    """How unsure the network is of a batch, for the log: H's mean and quantiles in nats, and its histogram.

    (B, C, H, W) logits -> H/DOMAIN, H/DOMAIN/q05 and so on, scalars, and histogram/DOMAIN, (BINS,): shares of pixels,
    1 in all. Every fourth pixel of every fourth row stands for all, so that a step is not slowed down by it. A quantile
    is the k-th smallest of the n values, k = ceil(q n). No gradient, and nothing that an accelerator must wait for.
    """
    unsure = entropy(logits[..., ::4, ::4]).flatten()
    ordered = unsure.sort().values
    ranks = {q: max(0, math.ceil(q * len(ordered) / 100) - 1) for q in QUANTILES}
    # Rounding may lift H a little above ln C, or below 0.
    place = (unsure * (BINS / math.log(logits.shape[1]))).long().clamp(0, BINS - 1)
    counts = torch.zeros(BINS, device=unsure.device).scatter_add_(0, place, torch.ones_like(unsure))
    return {
        f"H/{domain}": unsure.mean(),
        **{f"H/{domain}/q{q:02d}": ordered[rank] for q, rank in ranks.items()},
        f"histogram/{domain}": counts / len(unsure),
    }


class Balance(BaseModel):
    """EBDA's term: weight * mean over pixels of (H - level)^2."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weight: float = Field(gt=0)
    """Its factor."""
    level: float = Field(ge=0)
    """Nats."""


def distance(pixel_entropy: Tensor, level: Tensor | float) -> Tensor:
    """(H - level)^2 of each pixel, in nats squared."""
    return (pixel_entropy - level).square()


def balance(pixel_entropy: Tensor, level: Tensor | float) -> Tensor:
    """mean over pixels of (H - level)^2, a scalar in nats squared.

    All pixels count alike, whatever their label, weight or domain, as in the authors' code (vron8632/EB_DA `dacs.py`).
    """
    return distance(pixel_entropy, level).mean()


class Level(nn.Module):
    """The entropy that `balance` pulls towards: a fixed number of nats, or a running statistic of what is seen.

    setting: nats, or "auto": level <- momentum * level + (1 - momentum) * statistic(H) once a step, starting at the
    first step's statistic. The statistic is the mean, or the k-th smallest value with k = ceil(quantile * pixels).
    The authors keep both running variants commented out (momentum 0.9999, quantile 0.6 or 0.75).
    """

    value: Tensor
    begun: Tensor

    def __init__(
        self,
        setting: float | Literal["auto"],
        statistic: Literal["mean", "quantile"] | None,
        quantile: float | None,
        momentum: float | None,
    ):
        super().__init__()
        self.momentum, self.quantile = momentum, quantile if statistic == "quantile" else None
        given = {"level_statistic": statistic, "level_quantile": quantile, "level_momentum": momentum}
        if setting != "auto":
            unused = [key for key, value in given.items() if value is not None]
            if unused:
                raise RecipeError(f"method.{unused[0]} has no effect with a fixed level; set level: auto or remove it")
        else:
            needed = ["level_statistic", "level_momentum"] + ["level_quantile"] * (statistic == "quantile")
            missing = [key for key in needed if given[key] is None]
            if missing:
                raise RecipeError(
                    f"method.level: auto needs {', '.join(missing)} (authors: momentum 0.9999, quantile 0.75)"
                )
            if statistic == "mean" and quantile is not None:
                raise RecipeError("method.level_quantile has no effect with level_statistic: mean; remove it")
            assert momentum is not None
            if not 0 <= momentum < 1 or (self.quantile is not None and not 0 < self.quantile <= 1):
                raise RecipeError("method: level_momentum must be in [0, 1) and level_quantile in (0, 1]")
        self.register_buffer("value", torch.tensor(0.0 if setting == "auto" else float(setting)))
        self.register_buffer("begun", torch.tensor(setting != "auto"))

    def follow(self, pixel_entropy: Tensor, share: Share) -> Tensor:
        """Takes one step's entropies in and returns the level, a scalar tensor without gradient."""
        if self.momentum is not None:  # it moves
            seen = pixel_entropy.detach().flatten()
            if self.quantile is None:
                statistic = share.mean(seen.mean())
            else:
                seen = share.concatenated(seen)
                statistic = seen.kthvalue(max(1, -int(-self.quantile * seen.numel() // 1))).values
            if share.first:
                moved = self.momentum * self.value + (1 - self.momentum) * statistic
                self.value.copy_(torch.where(self.begun, moved, statistic))
                self.begun.fill_(True)
        return self.value.clone()
