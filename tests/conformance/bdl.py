"""BDL's labels and adversarial loss against recorded values (golden/classics)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from classics_weights import CLASSES, GOLDEN, discriminator
from segda.evaluation.certainty import most_probable
from segda.parts.adversary import SOURCE, TARGET, adversarial_loss
from segda.pseudo_labelling.order_statistics import order_statistics
from segda.pseudo_labelling.rules import RULES, labels_kept, rule_spec
from segda.recipes.build import build

RULE = build(RULES, rule_spec("class-median"), "rule")


def test_labels_by_the_class_median_are_the_authors():
    recorded, told = GOLDEN.npz("bdl_median.npz"), GOLDEN.json("bdl_losses.json")["median"]
    maps = torch.from_numpy(recorded["counts"].astype(np.float32) / np.float32(32768))
    images = [tuple(part.numpy() for part in most_probable(iter(image), "confidence")) for image in maps]
    assert np.array_equal(np.stack([label for label, _ in images]), recorded["argmax"])
    # Theirs went through an interpolation to the size that they have.
    np.testing.assert_allclose(np.stack([score for _, score in images]), recorded["prob"], rtol=0, atol=2e-7)
    pixels, found = order_statistics(
        lambda: iter(images), len(CLASSES), lambda n: () if RULE.index(n) is None else (RULE.index(n),)
    )
    assert pixels.tolist() == told["pixels"]
    there = pixels > 0
    np.testing.assert_allclose(found[:, 0][there], np.array(told["raw"])[there], rtol=0, atol=2e-7)
    thresholds = np.array([RULE.threshold(float(score)) for score in found[:, 0]])
    np.testing.assert_allclose(thresholds[there], np.array(told["thresholds"])[there], rtol=0, atol=2e-7)
    labels = np.stack([labels_kept(RULE, label, score, thresholds) for label, score in images])
    assert np.array_equal(labels, recorded["labels"])
    assert np.bincount(labels.ravel(), minlength=256)[: len(CLASSES)].tolist() == told["kept"]


@pytest.mark.parametrize(("answer", "domain"), [(0, SOURCE), (1, TARGET)])
def test_the_discriminators_word_on_probabilities_is_the_authors(answer, domain):
    values, told = GOLDEN.npz("bdl_losses.npz"), GOLDEN.json("bdl_losses.json")
    logits = torch.from_numpy(np.float32(2) * GOLDEN.normal("bdl.disc.logits", (1, 19, 97, 129))).requires_grad_()
    score = discriminator()(logits.softmax(1))
    np.testing.assert_allclose(score.detach().numpy(), values["D_out_f32"], rtol=0, atol=1e-5)
    loss = adversarial_loss(score, domain)
    loss.backward()
    assert loss.item() == pytest.approx(told[f"bce_target{answer}_f32"], rel=1e-6)
    assert logits.grad.norm().item() == pytest.approx(told[f"bce_target{answer}_grad_l2_f32"], rel=1e-4)
    corner = values[f"bce_target{answer}_grad_logits_f32"]
    np.testing.assert_allclose(
        logits.grad[..., : corner.shape[2], : corner.shape[3]].numpy(), corner, rtol=0, atol=1e-5 * abs(corner).max()
    )
