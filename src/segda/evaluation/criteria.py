"""Criteria without labels: numbers by which networks can be ranked on images of which nobody has labels.

`Evidence` is what a network says of a set of images, as far as the criteria need it: sums, and some of the cells before
its last layer, in all CELLS of them. Each criterion is a function of it; CRITERIA says which end is the better one. No
criterion is an estimate of the mIoU, and each can be fooled, see its doc string. What they are worth stands in
docs/results/select.md.

`N` pixels, of all images. Where all pixels would be too many, PIXELS of each image are chosen, always the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from segda.evaluation.certainty import Survey

PIXELS = 100
"""Chosen of each image [code SND, AdaptSegNet/run_all.py eval_siment]."""

CELLS = 5000
"""Chosen of all images, for the clustering tendency of what reaches the last layer."""

TEMPERATURE = 0.05
"""tau of the soft neighbourhood density [paper SND, sec. 3.2; code SND]."""

HOPKINS_SHARE = 0.05
"""Points that the Hopkins statistic samples [code TransferScore]."""

LAMBDA = 0.55
"""What an image counts beside the one that is mixed into it [code MixVal, --lam]."""


@dataclass
class Evidence:
    """What a network says of images; all sums float64.

    pixels, entropy: their number and the sum of their entropies in nats. prob: (C,) sum of their probabilities.
    gram, chosen: (C, C) sum of p p^T over the chosen pixels, and their number. densities: of each image, see
    neighbourhood_density. agreed: pixels on which student and teacher say the same; None without the other one.
    mixed: pixels of mixed images, rightly told and all, where both images were said to be of one class, and where not.
    cells: (k, D) of each image, what reaches the last layer. weights: (C, D'), that layer's, a row a class.
    """

    pixels: int = 0
    entropy: float = 0.0
    prob: Tensor | None = None
    gram: Tensor | None = None
    chosen: int = 0
    densities: list[float] = field(default_factory=list)
    agreed: int | None = None
    mixed: np.ndarray = field(default_factory=lambda: np.zeros((2, 2), np.int64))
    cells: list[Tensor] = field(default_factory=list)
    weights: Tensor | None = None

    def add(self, survey: Survey) -> None:
        """One image."""
        count, chosen = survey.label.numel(), survey.chosen.cpu().double()
        self.pixels += count
        self.entropy += float(survey.entropy.mean()) * count
        prob, gram = survey.mean.cpu().double() * count, chosen.T @ chosen
        self.prob = prob if self.prob is None else self.prob + prob
        self.gram = gram if self.gram is None else self.gram + gram
        self.chosen += len(chosen)
        if len(chosen) > 1:
            self.densities.append(neighbourhood_density(chosen))

    def add_agreement(self, label: Tensor, other: Tensor) -> None:
        """(H, W) train ids of this network, and of the other one of its run."""
        self.agreed = (self.agreed or 0) + int((label == other).sum())

    def add_mixed(self, label: Tensor, own: Tensor, partner: Tensor) -> None:
        """(H, W) train ids that the network says of a mixed image, and of the two: the one that counts LAMBDA first."""
        same, right = own == partner, label == own
        for row, where in enumerate((same, ~same)):
            self.mixed[row] += (int((right & where).sum()), int(where.sum()))


def mean_entropy(seen: Evidence) -> float:
    """mean_n H(p_n), H(p) = -sum_c p_c ln p_c, in nats: 0 (certain everywhere) to ln C. Lower is better.

    Morerio, Cavazza and Murino, "Minimal-Entropy Correlation Alignment", ICLR 2018. A network that says one class of
    everything with certainty has 0: so has any that was trained to be certain.
    """
    return seen.entropy / seen.pixels


def mutual_information(seen: Evidence) -> float:
    """H(mean_n p_n) - mean_n H(p_n), in nats: 0 (all pixels are told the same) to ln C. Higher is better.

    Certain of each pixel, and not all of one class (Bridle, Heading and MacKay, NIPS 1991). It asks for equal shares of
    the classes, which streets do not have.
    """
    return float(torch.special.entr(_shares(seen)).sum()) - mean_entropy(seen)


def soft_neighbourhood_density(seen: Evidence) -> float:
    """The mean over images of neighbourhood_density, in nats: 0 to ln(PIXELS - 1). Higher is better.

    Saito et al., "Tune it the Right Way", ICCV 2021, in the way of its code for segmentation: of each image its own
    pixels. Where we part from that code: a pixel is no neighbour of its own, as in the paper's equation 2. NaN where no
    image has two pixels. A network that says the same of all pixels has the highest value.
    """
    return _mean(seen.densities)


def neighbourhood_density(prob: Tensor) -> float:
    """(N, C) probabilities of an image's pixels -> mean_i H(q_i), in nats.

    q_ij = exp(s_ij / tau) / sum_{k != i} exp(s_ik / tau) for j != i, s_ij the cosine of p_i and p_j.
    """
    near = normalize(prob.double(), dim=1)
    similar = (near @ near.T / TEMPERATURE).fill_diagonal_(-math.inf)
    return float(torch.special.entr(similar.softmax(1)).sum(1).mean())


def batch_nuclear_norm(seen: Evidence) -> float:
    """||P||_* / sqrt(N min(N, C)) of the (N, C) probabilities P of the chosen pixels. Higher is better.

    1 / sqrt(C) where all are told one class with certainty, 1 where they are told with certainty and in equal shares.

    The sum of P's singular values: the roots of the eigenvalues of P^T P, which is summed image by image. Cui et al.,
    "Towards Discriminability and Diversity: Batch Nuclear-Norm Maximization", CVPR 2020; the divisor, the largest value
    that there can be, is ours. As mutual information, it asks for equal shares.
    """
    assert seen.gram is not None
    norm = torch.linalg.eigvalsh(seen.gram).clamp_min(0).sqrt().sum()
    return float(norm) / math.sqrt(seen.chosen * min(seen.chosen, len(seen.gram)))


def agreement(seen: Evidence) -> float:
    """The share of pixels of which student and teacher say the same class, 0 to 1. Higher is better.

    The same for both. NaN for a run without teacher. A teacher that follows its student closely agrees, whatever it
    says.
    """
    return math.nan if seen.agreed is None else seen.agreed / seen.pixels


def mixval(seen: Evidence) -> float:
    """How consistent predictions are between images: 0 to 1, higher is better.

    Two images x, y are mixed, LAMBDA x + (1 - LAMBDA) y; right is a pixel that is told what was told of x alone. The
    mean of two shares of right pixels: of those where x and y were told the same, and of the others. Hu et al., "Mixed
    Samples as Probes for Unsupervised Model Selection in Domain Adaptation", NeurIPS 2023 (code: LHXXHB/MixVal).

    Where we part from it: y is the image before x, and pixels take the part of images; the paper, which is about whole
    images, looks for partners of one class, and averages the two shares' ranks. Of the kinds that no pixel is of, none
    counts; NaN where there is no second image.
    """
    return _mean([right / asked for right, asked in seen.mixed.tolist() if asked])


def transfer_score(seen: Evidence) -> float:
    """-U + H + M / ln C: higher is better, 2 would be perfect.

    U: uniformity of the last layer's weights. H: hopkins of what reaches it. M: the mutual information. Yang et al.,
    "Can We Evaluate Domain Adaptation Models Without Target-Domain Labels?", ICLR 2024; U as in its code
    (TransferScore, utils.py), with squares. NaN where the network's last layer is no convolution to its classes.
    """
    if seen.weights is None or sum(map(len, seen.cells)) < 2:
        return math.nan
    told = mutual_information(seen) / math.log(len(_shares(seen)))
    return hopkins(torch.cat(seen.cells)) - uniformity(seen.weights) + told


def uniformity(weights: Tensor) -> float:
    """(C, D) -> mean_{i != j} (angle(w_i, w_j) - arccos(-1 / (C - 1)))^2, in square radians.

    0 where all directions are as far apart as C can be.
    """
    classes, direction = len(weights), normalize(weights.double(), dim=1)
    angle = (direction @ direction.T).clamp(-1, 1).arccos()
    apart = (angle - math.acos(-1 / (classes - 1))).square()
    return float((apart.sum() - apart.diagonal().sum()) / (classes * (classes - 1)))


def hopkins(points: Tensor) -> float:
    """(N, D) -> u / (u + w): 0.5 for points at random, 1 for tight clusters; 0 where all points are one.

    u: the sum of the distances of m points, drawn evenly from the box that the points fill, to their nearest point.
    w: the same for m of the points themselves and their nearest other one. m = HOPKINS_SHARE N, at least 1. Always the
    same are drawn. Hopkins and Skellam, 1954; Lawson and Jurs, 1990.
    """
    points = points.double()
    rng = np.random.default_rng(0)
    count = max(1, int(len(points) * HOPKINS_SHARE))
    low, high = points.min(0).values, points.max(0).values
    drawn = low + (high - low) * torch.from_numpy(rng.random((count, points.shape[1])))
    own = torch.from_numpy(rng.choice(len(points), count, replace=False))
    apart = torch.cdist(points[own], points, compute_mode="donot_use_mm_for_euclid_dist")
    apart[torch.arange(count), own] = math.inf
    others = float(apart.min(1).values.sum())
    anywhere = float(torch.cdist(drawn, points, compute_mode="donot_use_mm_for_euclid_dist").min(1).values.sum())
    return anywhere / (anywhere + others) if anywhere + others else 0.0


@dataclass(frozen=True)
class Criterion:
    """A criterion, and which of its values is the best."""

    of: Callable[[Evidence], float]
    best: Literal["lowest", "highest"]


CRITERIA: dict[str, Criterion] = {
    "entropy": Criterion(mean_entropy, "lowest"),
    "mutual-information": Criterion(mutual_information, "highest"),
    "density": Criterion(soft_neighbourhood_density, "highest"),
    "nuclear-norm": Criterion(batch_nuclear_norm, "highest"),
    "agreement": Criterion(agreement, "highest"),
    "mixval": Criterion(mixval, "highest"),
    "transfer-score": Criterion(transfer_score, "highest"),
}
"""Those that are made of evidence; `source`, the mIoU on labelled source images, is measured (selection.py)."""


def chosen_pixels(image: int, count: int, most: int = PIXELS) -> Tensor:
    """(k,) int64 which of an image's `count` pixels are chosen, k <= most: always the same for an image's number."""
    return torch.from_numpy(np.random.default_rng((0, image)).choice(count, min(count, most), replace=False))


def _shares(seen: Evidence) -> Tensor:
    assert seen.prob is not None
    return seen.prob / seen.pixels


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan
