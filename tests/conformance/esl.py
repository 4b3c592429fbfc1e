"""ESL's pseudo-labels (valeoai/ESL, esl_UDA.py) against recorded ones: see golden/advent_esl and its README.

Where the authors' code counts slots that no image has filled, and where 0 ln 0 gives it NaN, ours differs on purpose
(docs/FIDELITY.md); the expectation is then worked out here, by sorting.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import advent_weights
from golden import Golden
from segda.data.labels.spaces import space_named
from segda.evaluation.certainty import most_probable, probabilities
from segda.evaluation.inference import View
from segda.pseudo_labelling.order_statistics import order_statistics
from segda.pseudo_labelling.rules import RULES, EntropyMedian, labels_kept, rule_spec
from segda.recipes.build import build
from segda.scene import IGNORE

GOLDEN = Golden("advent_esl")
CLASSES = len(space_named("cityscapes-19").classes)
ESL: EntropyMedian = build(RULES, rule_spec("entropy-median"), "rule")


@pytest.fixture(scope="module")
def theirs():
    return GOLDEN.json("esl_expected.json"), GOLDEN.npz("esl_expected.npz")


def maps(*, zeros: bool) -> np.ndarray:
    """(6, 19, 32, 64) float32 probabilities, exact; with `zeros` some of them are 0 and 1."""
    recorded = GOLDEN.npz("esl_counts.npz")
    counts = recorded["counts"].copy()
    if zeros:
        image, row, column = recorded["counts_zeros_pixels"].astype(int).T
        counts[image, :, row, column] = recorded["counts_zeros_vectors"]
    return counts.astype(np.float32) / np.float32(32768)


def predicted(prob: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Label and entropy of each image."""
    found = [most_probable(iter(torch.from_numpy(image)), "entropy") for image in prob]
    return [(label.numpy(), score.numpy()) for label, score in found]


def kept(images: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Labels and thresholds of the images together."""
    _, found = order_statistics(lambda: images, CLASSES, lambda pixels: [ESL.index(pixels)])
    thresholds = np.array([ESL.threshold(float(score)) for score in found[:, 0]])
    return np.stack([labels_kept(ESL, label, score, thresholds) for label, score in images]), thresholds


def sorted_thresholds(images: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """The authors' thresholds of the real pixels alone, by sorting all of them."""
    label, score = (np.stack(arrays) for arrays in zip(*images, strict=True))
    thresholds = []
    for c in range(CLASSES):
        x = np.sort(score[label == c])
        thresholds.append(max(0.1, x[int(np.round(len(x) * 0.5))]) if len(x) else 0.1)
    return np.array(thresholds)


def test_the_settings_are_the_authors():
    assert (ESL.share, ESL.floor) == (0.5, 0.1)


@pytest.mark.parametrize("case", ["base", "zeros"])
def test_predictions_and_entropies_are_the_authors(theirs, case):
    images = predicted(maps(zeros=case == "zeros"))
    label, score = (np.stack(arrays) for arrays in zip(*images, strict=True))
    assert np.array_equal(label, theirs[1][f"{case}_argmax"]), "the first class of a tie"
    recorded = theirs[1][f"{case}_entropy_f32"]
    there = np.isfinite(recorded)  # they have NaN where a probability is 0
    assert there.all() == (case == "base")
    # Float32 sums of 19 terms: theirs is up to 2e-7 from the same in double.
    assert np.abs(score - recorded)[there].max() < 1e-6 and np.isfinite(score).all()
    if case == "base":
        assert np.abs(score - theirs[1]["base_entropy_f64"]).max() < 1e-6


def test_labels_of_all_images_together_are_the_authors(theirs):
    labels, thresholds = kept(predicted(maps(zeros=False)))
    assert np.array_equal(labels, theirs[1]["base_pseudo"])
    np.testing.assert_allclose(thresholds, theirs[0]["base"]["passes"][0]["threshold"], rtol=0, atol=1e-6)
    assert int((labels == IGNORE).sum()) == theirs[0]["base"]["ignored"]
    assert [int((labels == c).sum()) for c in range(CLASSES)] == theirs[0]["base"]["kept_per_class"]


def test_labels_of_two_full_windows_are_the_authors(theirs):
    images = predicted(maps(zeros=False))
    labels = np.concatenate([kept(images[:3])[0], kept(images[3:])[0]])
    assert np.array_equal(labels, theirs[1]["base_max3_pseudo"])


def test_an_incomplete_window_counts_its_real_pixels_only(theirs):
    # Windows of 4: the authors' second one holds two images and two empty slots of class 0 with entropy 0.
    images = predicted(maps(zeros=False))
    first, second = kept(images[:4])[0], kept(images[4:])[0]
    recorded = theirs[1]["base_max4_pseudo"]
    assert np.array_equal(first, recorded[:4])
    thresholds = sorted_thresholds(images[4:])
    expected = [np.where(score > thresholds[label], IGNORE, label) for label, score in images[4:]]
    assert np.array_equal(second, np.stack(expected))
    # Of class 0 they keep only what lies below the floor; of the others the same as ours.
    prediction = theirs[1]["base_argmax"][4:]
    assert (second != recorded[4:]).any() and (prediction[second != recorded[4:]] == 0).all()


def test_a_probability_of_zero_has_no_entropy_and_spoils_no_threshold(theirs):
    # Theirs: 0 ln 0 is NaN, sorted last and always kept. Recorded beside it: what 0 ln 0 = 0 gives.
    labels, thresholds = kept(predicted(maps(zeros=True)))
    expected = theirs[0]["alt_zeros_if_0log0_is_0"]
    assert np.array_equal(labels, theirs[1]["alt_zeros_pseudo_if_0log0_is_0"])
    np.testing.assert_allclose(thresholds, expected["threshold"], rtol=0, atol=1e-6)
    assert int((labels == IGNORE).sum()) == expected["ignored"]
    assert int((labels != theirs[1]["zeros_pseudo"]).sum()) == expected["differs_from_reference_pixels"]


def test_labels_from_the_network_are_the_authors():
    recorded, arrays = GOLDEN.json("esl_network.json"), GOLDEN.npz("esl_network.npz")
    network = advent_weights.network().eval()
    images = []
    for i in range(3):
        with torch.no_grad():
            logits = network.low_res_logits(advent_weights.recorded(f"esl.net.image.{i}", (1, 3, 65, 129)))
        view = View(logits, True, softmax="before")
        assert view.logits.shape[2:] == (9, 17) and network.align_corners
        label, score = most_probable(probabilities([view], (65, 129)), "entropy")
        images.append((label.numpy(), score.numpy()))
    labels, thresholds = kept(images)
    label, score = (np.stack(each) for each in zip(*images, strict=True))
    assert np.array_equal(label, arrays["argmax"])
    assert [int((label == c).sum()) for c in range(CLASSES)] == recorded["count_per_class"]
    # Two float32 runs of the same network differ by up to 4e-5 in logits of a range of 48.
    assert np.abs(score - arrays["entropy_f32"]).max() < 5e-5
    np.testing.assert_allclose(thresholds, recorded["threshold"], rtol=0, atol=5e-5)
    undecided = np.abs(arrays["entropy_f32"] - np.array(recorded["threshold"])[label]) < 5e-5
    assert undecided.sum() < 30 and np.array_equal(labels[~undecided], arrays["pseudo"][~undecided])


def test_uniform_and_certain_pixels_by_hand():
    prob = torch.zeros(4, 1, 3)
    prob[:, 0, 0] = 0.25
    prob[2, 0, 1] = 1
    prob[1:3, 0, 2] = 0.5
    label, score = most_probable(iter(prob), "entropy")
    assert label.tolist() == [[0, 2, 1]]
    assert score[0].tolist() == pytest.approx([1, 0, math.log(2) / math.log(4)])
    assert most_probable(iter(prob), "confidence")[1].tolist() == [[0.25, 1, 0.5]]
