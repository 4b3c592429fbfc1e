"""Label, entropy and confidence of a pixel against slow twins in double precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from segda.evaluation.certainty import labels, most_probable, probabilities
from segda.evaluation.inference import View


def wide_by_hand(prob: np.ndarray, size: tuple[int, int], *, align_corners: bool) -> np.ndarray:
    """(C, h, w) -> (C, H, W) float64, bilinear, one pixel after the other."""

    def place(k: int, wide: int, narrow: int) -> tuple[int, int, float]:
        x = k * (narrow - 1) / (wide - 1) if align_corners else max((k + 0.5) * narrow / wide - 0.5, 0)
        low = min(int(x), narrow - 1)
        return low, min(low + 1, narrow - 1), x - low

    made = np.zeros((len(prob), *size))
    for row in range(size[0]):
        top, bottom, down = place(row, size[0], prob.shape[1])
        for column in range(size[1]):
            left, right, across = place(column, size[1], prob.shape[2])
            upper = (1 - across) * prob[:, top, left] + across * prob[:, top, right]
            lower = (1 - across) * prob[:, bottom, left] + across * prob[:, bottom, right]
            made[:, row, column] = (1 - down) * upper + down * lower
    return made


def logits_of(seed: int, size: tuple[int, int] = (3, 5)) -> torch.Tensor:
    return 3 * torch.randn(1, 4, *size, generator=torch.Generator().manual_seed(seed))


def before(logits: torch.Tensor, align_corners: bool, **facts) -> View:
    """A view that becomes probabilities before it is upsampled."""
    return View(logits, align_corners, **facts, softmax="before")


def softmax(logits: torch.Tensor) -> np.ndarray:
    power = np.exp(logits[0].double().numpy())
    return power / power.sum(0)


@pytest.mark.parametrize("align_corners", [False, True])
def test_probabilities_are_upsampled_and_averaged_and_scored(align_corners):
    size = (9, 13)
    seen = [before(logits_of(0), align_corners), before(logits_of(1, (5, 6)), align_corners, weight=3.0)]
    wide = [wide_by_hand(softmax(view.logits), size, align_corners=align_corners) for view in seen]
    theirs = 0.25 * wide[0] + 0.75 * wide[1]
    ours = list(probabilities(seen, size))
    np.testing.assert_allclose(torch.stack(ours).numpy(), theirs, atol=3e-7)
    label, entropy = most_probable(ours, "entropy")
    _, confidence = most_probable(ours, "confidence")
    assert label.dtype == torch.uint8 and entropy.dtype == confidence.dtype == torch.float32
    assert (label.numpy() == theirs.argmax(0)).all()
    np.testing.assert_allclose(entropy.numpy(), -(theirs * np.log(theirs)).sum(0) / np.log(4), atol=2e-6)
    np.testing.assert_allclose(confidence.numpy(), theirs.max(0), atol=3e-7)


def test_a_label_depends_on_what_is_upsampled():
    # Halfway between logits (8, 0, 0) and (0, 1, 0) class 0 wins by its logit; by its probability it wins by far less,
    # and near the second cell class 1 has the upper hand sooner.
    logits = torch.tensor([[8.0, 0], [0, 1], [0, 0]]).view(1, 3, 1, 2)
    after, early = View(logits, True), before(logits, True)
    for k in range(1, 8):
        share = k / 8  # of the way to the second cell
        late = [8 * (1 - share), share, 0]
        soon = (1 - share) * softmax(logits)[:, 0, 0] + share * softmax(logits)[:, 0, 1]
        assert labels([after], (1, 9))[0, k] == np.argmax(late) and labels([early], (1, 9))[0, k] == np.argmax(soon)
    assert not torch.equal(labels([after], (1, 9)), labels([early], (1, 9)))


def test_what_was_filled_up_around_the_image_is_cut_off():
    view = before(logits_of(0), True, covers=(9, 13))
    whole = torch.stack(list(probabilities([view], (9, 13))))
    part = torch.stack(list(probabilities([view], (9, 7))))
    assert torch.equal(part, whole[:, :, :7])


def test_at_their_own_size_probabilities_are_untouched():
    view = before(logits_of(0), True)
    assert torch.equal(torch.stack(list(probabilities([view], (3, 5)))), view.logits.softmax(1)[0])


def test_the_first_of_equal_classes_wins():
    prob = torch.tensor([0.25, 0.375, 0.375, 0.0]).view(4, 1, 1)
    for score in ("entropy", "confidence"):
        assert most_probable(prob, score)[0].item() == 1


def test_a_network_without_numbers_has_no_score():
    broken = torch.full((1, 4, 2, 2), float("nan"))
    for score in ("entropy", "confidence"):
        probs = probabilities([before(broken, False)], (4, 4))
        assert most_probable(probs, score)[1].isnan().all()


def test_an_entropy_is_never_below_zero():
    # Bilinear weights can sum to a little more than one: -p ln p of 1 + 1e-7 is negative.
    prob = torch.tensor([1.0000001, 0.0]).view(2, 1, 1)
    assert most_probable(prob, "entropy")[1].item() == 0
