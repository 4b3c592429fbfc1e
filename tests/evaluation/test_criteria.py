"""The criteria against slow loops in float64 and values worked by hand."""

import itertools
import math

import numpy as np
import pytest
import torch

from segda.evaluation.certainty import surveyed
from segda.evaluation.criteria import (
    CRITERIA,
    LAMBDA,
    Evidence,
    chosen_pixels,
    hopkins,
    neighbourhood_density,
    uniformity,
)
from segda.evaluation.inference import View
from segda.evaluation.selection import ranks, spearman

CLASSES, SIZE = 3, (6, 8)


def views(seed, sharp=2.0):
    """Two views of one image, one of them at half the size."""
    draw = torch.Generator().manual_seed(seed)
    return [
        View(torch.randn(1, CLASSES, 6 // part, 8 // part, generator=draw) * sharp, False, weight=1 / part)
        for part in (1, 2)
    ]


def probs_of(seen):
    """(N, C) float64 by torch's own upsampling of all classes at once."""
    whole = sum(view.weight for view in seen)
    total = sum(
        view.weight
        / whole
        * torch.nn.functional.interpolate(view.logits.double(), SIZE, mode="bilinear", align_corners=False).softmax(1)
        for view in seen
    )
    return total[0].flatten(1).T.numpy()


def entropy_of(prob):
    return -sum(p * math.log(p) for p in prob if p > 0)


def density_of(prob, tau=0.05):
    """Equations 2 and 3 of the paper, loop by loop."""
    total = 0.0
    for i, one in enumerate(prob):
        near = []
        for j, other in enumerate(prob):
            if j != i:
                near.append(math.exp(one @ other / math.sqrt((one @ one) * (other @ other)) / tau))
        total += entropy_of([value / sum(near) for value in near])
    return total / len(prob)


@pytest.fixture(scope="module")
def seen():
    """Evidence of three images, and the (N, C) probabilities of each and of its chosen pixels."""
    evidence, everything, chosen = Evidence(), [], []
    for image in range(3):
        pixels = chosen_pixels(image, 48, 20)
        evidence.add(surveyed(views(image), SIZE, pixels))
        everything.append(probs_of(views(image)))
        chosen.append(everything[-1][pixels.numpy()])
    return evidence, everything, chosen


def close(ours, theirs):
    return ours == pytest.approx(theirs, rel=2e-6, abs=1e-6)


def test_mean_entropy_and_mutual_information_are_those_of_all_pixels(seen):
    evidence, everything, _ = seen
    prob = np.concatenate(everything)
    mean = np.mean([entropy_of(one) for one in prob])
    assert close(CRITERIA["entropy"].of(evidence), mean)
    assert close(CRITERIA["mutual-information"].of(evidence), entropy_of(prob.mean(0)) - mean)


def test_density_is_the_mean_over_images_of_the_papers(seen):
    evidence, _, chosen = seen
    assert close(CRITERIA["density"].of(evidence), np.mean([density_of(prob) for prob in chosen]))


def test_nuclear_norm_is_numpys_of_all_chosen_pixels(seen):
    evidence, _, chosen = seen
    prob = np.concatenate(chosen)
    theirs = np.linalg.norm(prob, "nuc") / math.sqrt(len(prob) * CLASSES)
    assert close(CRITERIA["nuclear-norm"].of(evidence), theirs)


def evidence_of(prob):
    """Of one image whose pixels have these probabilities."""
    prob = torch.tensor(prob)
    seen = View(prob.log().clamp_min(-60).T.reshape(1, prob.shape[1], 1, -1), False)
    evidence = Evidence()
    evidence.add(surveyed([seen], (1, len(prob)), torch.arange(len(prob))))
    return evidence


def test_certain_and_equal_shares_are_the_best_of_information_and_nuclear_norm():
    best, collapsed = evidence_of([[1.0, 0], [0, 1]] * 2), evidence_of([[1.0, 0]] * 4)
    assert CRITERIA["mutual-information"].of(best) == pytest.approx(math.log(2))
    assert CRITERIA["nuclear-norm"].of(best) == pytest.approx(1)
    assert CRITERIA["mutual-information"].of(collapsed) == pytest.approx(0, abs=1e-12)
    assert CRITERIA["nuclear-norm"].of(collapsed) == pytest.approx(1 / math.sqrt(2))
    # What the doc strings say of how they are fooled.
    assert CRITERIA["entropy"].of(collapsed) == pytest.approx(CRITERIA["entropy"].of(best), abs=1e-12)
    assert CRITERIA["density"].of(collapsed) == pytest.approx(math.log(3))
    assert CRITERIA["density"].of(best) < math.log(3)


def test_the_better_end_is_the_one_that_the_papers_choose():
    """The highest of information, SND, BNM, MixVal and TransferScore; sure networks have the lowest entropy."""
    assert [name for name, criterion in CRITERIA.items() if criterion.best == "lowest"] == ["entropy"]


def test_a_uniform_prediction_has_entropy_ln_c_and_no_information():
    uniform = evidence_of([[0.25] * 4] * 5)
    assert CRITERIA["entropy"].of(uniform) == pytest.approx(math.log(4))
    assert CRITERIA["mutual-information"].of(uniform) == pytest.approx(0, abs=1e-7)


def test_two_orthogonal_pixels_and_a_double_have_the_density_worked_by_hand():
    # Pixels a, a, b: of an a the other a is e^20 times as near as b; of b both are as near.
    ratio = math.exp(20)
    other = entropy_of([ratio / (ratio + 1), 1 / (ratio + 1)])
    ours = neighbourhood_density(torch.tensor([[1.0, 0], [1, 0], [0, 1]]))
    assert ours == pytest.approx((2 * other + math.log(2)) / 3)


def test_agreement_is_the_share_of_pixels_and_nothing_without_a_teacher():
    evidence = evidence_of([[1.0, 0], [0, 1], [1, 0], [1, 0]])
    assert math.isnan(CRITERIA["agreement"].of(evidence))
    evidence.add_agreement(torch.tensor([[0, 1, 0, 0]]), torch.tensor([[0, 1, 1, 1]]))
    assert CRITERIA["agreement"].of(evidence) == 0.5


def test_mixval_is_the_mean_of_the_shares_inside_and_between_classes():
    evidence = Evidence()
    assert math.isnan(CRITERIA["mixval"].of(evidence))
    own, partner = torch.tensor([[0, 0, 0, 1, 1]]), torch.tensor([[0, 0, 1, 0, 0]])
    evidence.add_mixed(torch.tensor([[0, 1, 0, 1, 0]]), own, partner)
    # Two pixels of one class, one of them right; three of two classes, two of them right.
    assert CRITERIA["mixval"].of(evidence) == pytest.approx((1 / 2 + 2 / 3) / 2)
    alike = Evidence()
    alike.add_mixed(own, own, own)
    assert CRITERIA["mixval"].of(alike) == 1 and LAMBDA > 0.5


def test_uniformity_is_zero_where_directions_are_as_far_apart_as_can_be_and_a_loops_elsewhere():
    apart = torch.tensor([[1.0, 0], [-0.5, math.sqrt(0.75)], [-0.5, -math.sqrt(0.75)]])
    assert uniformity(5 * apart) == pytest.approx(0, abs=1e-9)
    weights = torch.randn(4, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    aim, found = math.acos(-1 / 3), []
    for one, other in itertools.permutations(weights.numpy(), 2):
        found.append((math.acos(one @ other / np.linalg.norm(one) / np.linalg.norm(other)) - aim) ** 2)
    assert uniformity(weights) == pytest.approx(np.mean(found))
    assert uniformity(torch.ones(2, 3)) == pytest.approx(math.pi**2)


def test_hopkins_tells_clusters_from_a_cloud_and_is_a_loops():
    rng = np.random.default_rng(2)
    cloud = rng.random((200, 2))
    clusters = np.repeat(rng.random((4, 2)), 50, 0) + rng.normal(0, 1e-3, (200, 2))
    assert 0.35 < hopkins(torch.from_numpy(cloud)) < 0.65
    assert hopkins(torch.from_numpy(clusters)) > 0.9
    assert hopkins(torch.ones(10, 3)) == 0
    draw = np.random.default_rng(0)
    drawn = cloud.min(0) + (cloud.max(0) - cloud.min(0)) * draw.random((10, 2))
    own = draw.choice(200, 10, replace=False)
    anywhere = sum(min(np.linalg.norm(one - other) for other in cloud) for one in drawn)
    others = sum(min(np.linalg.norm(cloud[i] - other) for j, other in enumerate(cloud) if j != i) for i in own)
    assert hopkins(torch.from_numpy(cloud)) == pytest.approx(anywhere / (anywhere + others))


def test_transfer_score_is_made_of_its_three_parts(seen):
    evidence, everything, _ = seen
    assert math.isnan(CRITERIA["transfer-score"].of(evidence))
    draw = torch.Generator().manual_seed(3)
    evidence.cells = [torch.randn(30, 4, generator=draw) for _ in range(2)]
    evidence.weights = torch.randn(CLASSES, 4, generator=draw)
    prob = np.concatenate(everything)
    told = (entropy_of(prob.mean(0)) - np.mean([entropy_of(one) for one in prob])) / math.log(CLASSES)
    theirs = -uniformity(evidence.weights) + hopkins(torch.cat(evidence.cells)) + told
    assert close(CRITERIA["transfer-score"].of(evidence), theirs)


def test_the_same_pixels_are_chosen_of_an_image_each_time_others_of_another():
    assert chosen_pixels(3, 1000).tolist() == chosen_pixels(3, 1000).tolist() != chosen_pixels(4, 1000).tolist()
    assert len(set(chosen_pixels(3, 1000).tolist())) == 100
    assert sorted(chosen_pixels(3, 7).tolist()) == list(range(7))


def test_ranks_share_places_and_leave_out_what_has_no_value():
    assert ranks([0.5, 0.1, 0.5, 0.9]) == [2.5, 1, 2.5, 4]
    assert ranks([2.0, math.nan, 1.0])[0] == 2 and math.isnan(ranks([2.0, math.nan, 1.0])[1])
    assert ranks([1.0, 1.0, 1.0]) == [2, 2, 2]


def test_spearmans_correlation_is_that_of_values_worked_by_hand():
    assert spearman([1, 2, 3], [10, 20, 1000]) == pytest.approx(1)
    assert spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    # Without ties 1 - 6 sum d^2 / (n (n^2 - 1)): d = 1, 1, 0, 2, 2 -> 1 - 60 / 120.
    assert spearman([1, 2, 3, 4, 5], [2, 1, 3, 5.5, 4.5]) == pytest.approx(1 - 6 * 4 / 120)
    # Ranks 1, 2.5, 2.5, 4 and 1, 2, 3, 4: 4.5 / sqrt(4.5 * 5).
    assert spearman([0, 1, 1, 2], [0, 1, 2, 3]) == pytest.approx(4.5 / math.sqrt(4.5 * 5))
    assert spearman([1, 2, math.nan, 3], [1, 2, 0, 3]) == pytest.approx(1)
    assert math.isnan(spearman([1, 1, 1], [1, 2, 3])) and math.isnan(spearman([1, math.nan], [1, 2]))
