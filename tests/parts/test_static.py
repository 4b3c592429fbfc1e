"""The static loss and its pseudo-labels on images small enough to check by hand, and in shares."""

from __future__ import annotations

from math import log

import numpy as np
import pytest
import torch

from segda.distributed.shares import ALONE
from segda.parts.static import static_label, static_loss
from segda.scene import IGNORE

STILL = torch.tensor([0, 2])  # of three classes


def logits(*pixels: list[float]) -> torch.Tensor:
    """(1, C, 1, n)."""
    return torch.tensor(pixels).T[None, :, None]


def test_labels_weigh_day_by_its_logit_and_leave_out_what_moves():
    day = logits([1.0, 0.0, 0.2], [1.0, 0.0, 0.2], [0.4, 9.0, 0.0])
    night = logits([0.0, 0.0, 1.0], [0.0, 5.0, 1.0], [0.0, 0.1, 0.3])
    # Pixel 0: class 0 has 0.8, class 2 has 0.2 * 0.2 + 0.8 = 0.84. Pixel 1: what moves wins. Pixel 2: a day logit of
    # 0.4 is not above it: 0.08 for class 0; class 2 has 0.24; day's 9 for what moves does not count.
    label = static_label(day, night, STILL, torch.ones(3), level=0.4, day_share=0.8)
    assert label.tolist() == [[[1, IGNORE, 1]]]
    weights = torch.tensor([1.1, 1.0, 1.0])  # 0.88 is more than 0.84
    assert static_label(day, night, STILL, weights, level=0.4, day_share=0.8).tolist() == [[[0, IGNORE, 1]]]


def by_hand(prob: np.ndarray, label: np.ndarray, weights: np.ndarray, reach: int) -> float:
    """prob (S, H, W), label (H, W): the mean over labelled pixels, of the neighbourhood's best."""
    losses = []
    for (y, x), own in np.ndenumerate(label):
        if own == IGNORE:
            continue
        around = label[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1].ravel()
        agreed = max(weights[c] * prob[c, y, x] for c in around if c != IGNORE)
        agreed = min(max(agreed, 1e-7), 1 - 1e-7)
        losses.append(-(1 - agreed) * log(agreed))
    return float(np.mean(losses))


@pytest.mark.parametrize(("neighbours", "reach"), [("none", 0), ("paper", 1)])
def test_the_loss_is_the_mean_over_labelled_pixels_of_the_best_that_counts(neighbours, reach):
    rng = np.random.default_rng(0)
    label = rng.choice([0, 1, 2, IGNORE], (5, 6))
    weights = np.array([0.9, 1.0, 1.3])
    said = torch.from_numpy(rng.normal(0, 2, (1, 3, 5, 6)))
    ours = static_loss(
        said, torch.from_numpy(label)[None], torch.from_numpy(weights).float(), neighbours=neighbours, share=ALONE
    )
    assert ours.item() == pytest.approx(by_hand(said.softmax(1)[0].numpy(), label, weights, reach), rel=1e-5)


def test_a_weighted_probability_above_one_is_clamped_and_its_gradient_ends():
    said = logits([20.0, 0.0]).requires_grad_()
    loss = static_loss(
        said, torch.zeros(1, 1, 1, dtype=torch.long), torch.tensor([1.2, 1.0]), neighbours="none", share=ALONE
    )
    loss.backward()
    assert 0 <= loss.item() < 1e-12 and said.grad.abs().sum() == 0
