"""Which pixels of a teacher's labels count: each rule by hand and against a slow twin, in shares, over steps."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from distributed.test_shares import micro_batches
from segda.distributed.shares import ALONE
from segda.errors import RecipeError
from segda.parts.entropy import entropy
from segda.parts.pseudo import Selection, class_medians
from segda.scene import Scene

CLASSES = 3


def logits_of(*pixels: tuple[float, ...]) -> Tensor:
    """Probabilities of a row of pixels -> (1, C, 1, n) logits."""
    return torch.tensor(pixels, dtype=torch.float64).log().T[None, :, None]


def scene(logits: Tensor, weight: Tensor | None = None) -> Scene:
    return Scene(torch.zeros(len(logits), 3, *logits.shape[-2:]), weight=weight)


def selected(logits: Tensor, rule: str, threshold: float, **given) -> list[float]:
    return (
        Selection(CLASSES, rule=rule, threshold=threshold)(logits, scene(logits, **given), ALONE).weight[0, 0].tolist()
    )


ROW = logits_of((0.9, 0.05, 0.05), (0.6, 0.3, 0.1), (0.5, 0.4, 0.1), (0.2, 0.7, 0.1), (0.3, 0.4, 0.3))
"""Three pixels of class 0, of confidence 0.9, 0.6, 0.5; two of class 1, of 0.7 and 0.4."""


def test_a_pixel_counts_from_its_threshold_on():
    assert selected(ROW, "pixel", 0.65) == [1, 0, 0, 1, 0]
    exact = ROW.float().softmax(1).max(1).values[0, 0, 1].item()
    assert selected(ROW, "pixel", exact) == [1, 1, 0, 1, 0]
    assert selected(ROW, "pixel", math.nextafter(exact, 1) + 1e-6) == [1, 0, 0, 1, 0]


def test_by_confidence_a_class_keeps_the_surer_half_and_all_above_the_threshold():
    """The medians are 0.6 and, of two, the smaller: 0.4."""
    assert selected(ROW, "class-confidence", 0.95) == [1, 1, 0, 1, 1]
    assert selected(ROW, "class-confidence", 0.5) == [1, 1, 1, 1, 1]


def test_by_entropy_a_class_keeps_the_surer_half_and_all_below_the_threshold():
    """H in nats: 0.394, 0.898, 0.943 of class 0, 0.802 and 1.089 of class 1; the medians 0.898 and, of two, 0.802."""
    assert entropy(ROW)[0, 0].tolist() == pytest.approx([0.394, 0.898, 0.943, 0.802, 1.089], abs=1e-3)
    assert selected(ROW, "class-entropy", 0.33) == [1, 1, 0, 1, 0]
    assert selected(ROW, "class-entropy", 0.95) == [1, 1, 1, 1, 0]
    assert selected(ROW, "class-entropy", math.log(3) + 1e-6) == [1, 1, 1, 1, 1]


def test_the_share_of_confident_pixels_weighs_all_as_published():
    assert selected(ROW, "fraction", 0.65) == pytest.approx([0.4] * 5)
    exact = ROW.float().softmax(1).max(1).values[0, 0, 1].item()
    assert selected(ROW, "fraction", exact) == pytest.approx([0.6] * 5)  # a pixel at the threshold counts
    assert selected(ROW, "fraction", math.nextafter(exact, 1) + 1e-6) == pytest.approx([0.4] * 5)


@pytest.mark.parametrize("rule", ["fraction", "pixel", "class-confidence", "class-entropy"])
def test_labels_are_the_most_probable_classes_and_the_targets_own_weight_stays(rule):
    weight = torch.tensor([[[0.0, 1, 1, 1, 0.5]]])
    select = Selection(CLASSES, rule=rule, threshold=0.0 if rule != "class-entropy" else 2.0)
    pseudo = select(ROW, scene(ROW, weight), ALONE)
    assert pseudo.label[0, 0].tolist() == [0, 0, 0, 1, 1]
    assert torch.equal(pseudo.weight, weight)
    assert select.confident(pseudo) == (1 if rule == "fraction" else 0.7)


@pytest.mark.parametrize("rule", ["fraction", "pixel", "class-confidence", "class-entropy"])
def test_probabilities_choose_what_their_logits_do(rule):
    select = Selection(CLASSES, rule=rule, threshold=0.65)
    ours = select.of_probabilities(ROW.float().softmax(1), scene(ROW), ALONE)
    theirs = select(ROW, scene(ROW), ALONE)
    assert 0 < ours.weight.mean() < 1 and torch.equal(ours.weight, theirs.weight)
    assert torch.equal(ours.label, theirs.label)


def test_the_entropy_of_probabilities_is_that_of_their_shares_in_the_sum():
    """H of 0.9, 0.05, 0.05 is 0.394 whatever the sum, below the floor of 0.5; of class 1 the surer half counts."""
    select = Selection(CLASSES, rule="class-entropy", threshold=0.5)
    sure, others = torch.tensor([0.9, 0.05, 0.05]), torch.tensor([[0.3, 0.6, 0.1], [0.35, 0.55, 0.1]])
    probabilities = torch.cat([torch.tensor([[0.2], [0.5], [1.0]]) * sure, others]).T[None, :, None]
    weight = select.of_probabilities(probabilities, scene(probabilities), ALONE).weight
    assert weight.tolist() == [[[1, 1, 1, 1, 0]]]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.5, 1.5, -2.0]), st.integers(0, 3)), min_size=1, max_size=30))
def test_medians_by_class_are_those_of_a_sorted_list(pixels):
    values, label = torch.tensor([value for value, _ in pixels]), torch.tensor([one for _, one in pixels])
    median, found = class_medians(values, label, 5)
    for c in range(5):
        here = sorted(value for value, one in pixels if one == c)
        assert found[c] == bool(here)
        assert median[c] == (here[(len(here) + 1) // 2 - 1] if here else 0)


@pytest.mark.parametrize("momentum", [None, 0.75])
@pytest.mark.parametrize("rule", ["class-confidence", "class-entropy"])
def test_shares_select_what_all_scenes_together_select(rule, momentum):
    whole, ours = (Selection(CLASSES, rule=rule, threshold=0.5, momentum=momentum) for _ in range(2))
    for step in range(3):
        logits = 2 * torch.randn(6, CLASSES, 5, 7, generator=torch.Generator().manual_seed(step))
        expected = whole(logits, scene(logits), ALONE)
        assert 0 < expected.weight.mean() < 1

        def work(share, logits=logits):
            here = logits[share.first_scene : share.first_scene + 2]
            return ours(here, scene(here), share)

        found = micro_batches(work, scenes=2)
        assert torch.equal(torch.cat([each.weight for each in found]), expected.weight)
        assert torch.equal(torch.cat([each.label for each in found]), expected.label)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, ours.state_dict()[name])


def test_a_running_median_begins_with_the_first_and_waits_for_classes_that_are_absent():
    select = Selection(CLASSES, rule="class-confidence", threshold=1.0, momentum=0.75)
    select(ROW, scene(ROW), ALONE)
    assert select.level.tolist() == pytest.approx([0.6, 0.4, 0])
    assert select.begun.tolist() == [True, True, False]
    second = logits_of((0.8, 0.1, 0.1), (0.1, 0.1, 0.8))
    weight = select(second, scene(second), ALONE).weight
    assert select.level.tolist() == pytest.approx([0.75 * 0.6 + 0.25 * 0.8, 0.4, 0.8])
    assert weight[0, 0].tolist() == [1, 1]
    other = Selection(CLASSES, rule="class-confidence", threshold=1.0, momentum=0.75)
    other.load_state_dict(select.state_dict())
    assert torch.equal(other(ROW, scene(ROW), ALONE).weight, select(ROW, scene(ROW), ALONE).weight)


def test_a_class_is_kept_that_one_weight_for_the_batch_would_drown():
    """A rare class whose surest pixel is less sure than anything else: by class it has its half, by pixel none."""
    rng = np.random.default_rng(0)
    road = [(p, 1 - p - 0.001, 0.001) for p in rng.uniform(0.97, 0.99, 40)]
    sign = [(0.3, 0.2, 0.5), (0.4, 0.15, 0.45), (0.2, 0.25, 0.55), (0.3, 0.1, 0.6)]
    row = logits_of(*road, *sign)
    assert sum(selected(row, "pixel", 0.9)[40:]) == 0
    assert sum(selected(row, "class-confidence", 0.9)[40:]) == 3  # of two middle ones the lower is the median
    assert sum(selected(row, "class-entropy", 0.33)[40:]) == 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rule": "pixel", "threshold": 1.5}, "method.threshold: 1.5; with selection: pixel it is a probability"),
        ({"rule": "class-entropy", "threshold": -0.1}, "method.threshold: -0.1; .* it is nats, 0 or more"),
        ({"rule": "fraction", "threshold": 0.9, "momentum": 0.5}, "selection_momentum: 0.5 has no effect .* fraction"),
        ({"rule": "class-entropy", "threshold": 0.3, "momentum": 1.0}, r"selection_momentum: 1.0 is not in \[0, 1\)"),
    ],
)
def test_a_setting_without_a_meaning_is_refused(wrong, message):
    with pytest.raises(RecipeError, match=message):
        Selection(CLASSES, **wrong)
