"""Two predictions fused, by hand and pixel by pixel; probabilities enlarged, against MATLAB's kernel written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from segda.evaluation.inference import View
from segda.pseudo_labelling.fusion import enlarged, fused, mean_enlarged

NUMBERS = {"weight": 0.6, "low": 0.3, "doubt": 0.2}


def column(*prob: float) -> torch.Tensor:
    """(C, 1, 1)."""
    return torch.tensor(prob, dtype=torch.float64)[:, None, None]


def test_fusion_by_hand():
    """o = (.5, .3, .2), e = (.2, .7, .1): weights .5 and .6 * .7 = .42 [spec of MGCDA, 5.5]."""
    ours = fused(column(0.5, 0.3, 0.2), column(0.2, 0.7, 0.1), things=torch.zeros(3, dtype=torch.bool), **NUMBERS)
    expected = column(0.5 * 0.5 + 0.42 * 0.2, 0.5 * 0.3 + 0.42 * 0.7, 0.5 * 0.2 + 0.42 * 0.1) / 0.92
    torch.testing.assert_close(ours, expected)
    assert [round(p, 4) for p in ours.flatten().tolist()] == [0.3630, 0.4826, 0.1543]


@pytest.mark.parametrize(
    ("own", "other", "weight"),
    [
        ((0.1, 0.7, 0.2), (0.6, 0.2, 0.2), 0.3),  # a thing here, that the reference doubts
        ((0.1, 0.7, 0.2), (0.6, 0.3, 0.1), 0.6),  # which it does not rule out
        ((0.8, 0.1, 0.1), (0.1, 0.8, 0.1), 0.3),  # a thing there, that is gone
        ((0.7, 0.2, 0.1), (0.1, 0.8, 0.1), 0.3),  # a thing there, that is doubted as much as the doubt
        ((0.8, 0.1, 0.1), (0.1, 0.1, 0.8), 0.6),  # what does not move
    ],
)
def test_a_thing_that_only_one_sees_makes_the_reference_count_less(own, other, weight):
    ours = fused(column(*own), column(*other), things=torch.tensor([False, True, False]), **NUMBERS)
    share = weight * max(other)
    expected = (max(own) * column(*own) + share * column(*other)) / (max(own) + share)
    torch.testing.assert_close(ours, expected)


def cubic(x: np.ndarray) -> np.ndarray:
    """Keys' kernel with a = -0.5, as MATLAB's imresize."""
    x, a = np.abs(x), -0.5
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0))


def matrix(small: int, large: int) -> np.ndarray:
    """(large, small) weights of one side: half-pixel centres, at the border those inside share the whole."""
    place = (np.arange(large) + 0.5) * small / large - 0.5
    weight = cubic(place[:, None] - np.arange(small))
    return weight / weight.sum(1, keepdims=True)


def test_enlarging_is_bicubic_in_the_logarithm():
    prob = torch.from_numpy(np.random.default_rng(0).dirichlet(np.ones(4), (5, 7))).permute(2, 0, 1)
    prob[:, 2, 3] = torch.tensor([1.0, 0, 0, 0])
    ours = enlarged(prob.clone(), (13, 20))
    logs = np.maximum(np.log(np.maximum(prob.numpy(), 1e-300)), -20)
    theirs = np.exp(matrix(5, 13) @ logs @ matrix(7, 20).T)
    theirs /= theirs.sum(0)
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=0, atol=1e-12)
    torch.testing.assert_close(ours.sum(0), torch.ones(13, 20, dtype=torch.float64))


def test_views_are_averaged_by_their_weights_and_the_filling_is_cut_off():
    logits = [torch.randn(1, 3, 4, 6, generator=torch.Generator().manual_seed(k)) for k in (1, 2)]
    seen = [View(logits[0], False, None, 3.0), View(logits[1], True, None, 1.0)]
    ours = mean_enlarged(seen, (8, 12), (6, 12))
    parts = [enlarged(one[0].softmax(0), (8, 12))[:, :6] for one in logits]
    torch.testing.assert_close(ours, 0.75 * parts[0] + 0.25 * parts[1])
