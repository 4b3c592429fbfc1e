"""ADVENT's maps, losses, discriminators and schedule against those recorded from the authors' code.

Where a value was recorded in float32 and in float64, the difference of the two is the rounding of the reference itself;
`close` allows ten times the largest of a file's entries, and no less than a few units in the last place.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from advent_weights import theirs as generated
from golden import Golden, assert_near
from segda.distributed.shares import ALONE
from segda.networks.network import Head, Output
from segda.parts.adversary import SOURCE, TARGET, Discriminator, Discriminators, adversarial_loss, frozen
from segda.parts.entropy import entropy, information, mean_entropy, self_information
from segda.parts.losses import cross_entropy
from segda.recipes.optimisers import SGD, Adam
from segda.training.optim import lr_at

GOLDEN = Golden("advent_esl")


def normal(name: str, *shape: int, scale: float = 1) -> torch.Tensor:
    return torch.from_numpy(GOLDEN.normal(name, shape)) * scale


def close(ours: torch.Tensor | float, values: dict, name: str) -> None:
    exact = np.asarray(values[f"{name}_f64"])
    assert_near(ours, exact, "one pass" if exact.ndim else "number", name)


# Entropy


def test_self_information_and_its_gradient_equal_the_authors():
    values = GOLDEN.npz("losses.npz")
    logits = normal("loss.logits", 2, 19, 17, 23, scale=3).requires_grad_()
    maps = self_information(logits)
    maps.backward(normal("loss.grad_p2e", *maps.shape))
    close(maps, values, "prob_2_entropy")
    close(logits.grad, values, "prob_2_entropy_grad_logits")
    close(maps.sum(1), values, "entropy_map")
    close(entropy(logits) / math.log(19), values, "entropy_map")


def test_pixels_that_are_certain_at_a_loss_or_torn_between_two_have_the_authors_self_information():
    # One-hot, uniform, and half and half; a logit of -1e4 has probability 0 exactly.
    prob = torch.zeros(1, 19, 1, 3)
    prob[0, 3, 0, 0] = 1
    prob[0, :, 0, 1] = 1 / 19
    prob[0, [2, 5], 0, 2] = 0.5
    logits = prob.log().clamp(min=-1e4).requires_grad_()
    maps = self_information(logits)
    recorded = GOLDEN.npz("losses.npz")
    # Which classes they had is recorded with the maps themselves: the order within a pixel does not matter.
    ours, exact = (np.sort(each, axis=1) for each in (maps.detach().numpy(), recorded["p2e_special_f64"]))
    np.testing.assert_allclose(ours, exact, atol=1e-6)
    assert maps.sum(1).flatten().tolist() == pytest.approx([0, 1, math.log(2) / math.log(19)], abs=1e-6)
    close(mean_entropy(logits), GOLDEN.json("losses.json"), "entropy_loss_special")
    maps.sum().backward()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize(
    ("name", "shape", "key"),
    [
        ("loss.logits", (2, 19, 17, 23), "entropy_loss"),
        ("loss.logits.16", (1, 16, 11, 13), "entropy_loss_16classes"),
        ("loss.logits.7", (1, 7, 11, 13), "entropy_loss_7classes"),
    ],
)
def test_the_entropy_loss_equals_the_authors(name, shape, key):
    logits = normal(name, *shape, scale=3).requires_grad_()
    loss = mean_entropy(logits)
    close(loss, GOLDEN.json("losses.json"), key)
    if key == "entropy_loss":
        loss.backward()
        close(logits.grad, GOLDEN.npz("losses.npz"), "entropy_loss_grad_logits")


def test_the_self_information_of_each_head_is_of_its_own_logits():
    heads = {name: Head(normal(f"head.{name}", 1, 5, 3, 4)) for name in ("main", "aux")}
    maps = information(Output(heads))
    prob = heads["aux"].logits.double().softmax(1).numpy()
    np.testing.assert_allclose(maps["aux"].numpy(), -prob * np.log2(prob) / np.log2(5), atol=1e-6)
    assert list(maps) == ["main", "aux"]


# Cross entropy


def test_cross_entropy_over_valid_pixels_equals_the_authors():
    values = GOLDEN.npz("losses.npz")
    logits = normal("loss.logits", 2, 19, 17, 23, scale=3).requires_grad_()
    label = torch.from_numpy(values["labels"])
    loss = cross_entropy(logits, label, over="valid", share=ALONE)
    loss.backward()
    close(loss, GOLDEN.json("losses.json"), "cross_entropy")
    close(logits.grad, values, "cross_entropy_grad_logits")
    assert int((label != 255).sum()) == GOLDEN.json("losses.json")["n_valid_labels"]


def test_a_label_of_minus_one_counts_as_ignored():
    label = GOLDEN.npz("losses.npz")["labels"].copy()
    label[0, 0, :5] = -1
    # A label file's bytes: -1 is 255 there.
    ours = cross_entropy(
        normal("loss.logits", 2, 19, 17, 23, scale=3),
        torch.from_numpy(label.astype(np.uint8)).long(),
        over="valid",
        share=ALONE,
    )
    assert ours.item() == pytest.approx(GOLDEN.json("losses.json")["cross_entropy_with_minus1_f32"], rel=1e-6)


def test_without_a_valid_pixel_the_gradient_is_the_authors_zero_and_the_value_not_their_nan():
    recorded = GOLDEN.json("losses.json")["cross_entropy_all_ignored"]
    logits = normal("loss.logits", 2, 19, 17, 23, scale=3).requires_grad_()
    loss = cross_entropy(logits, torch.full((2, 17, 23), 255), over="valid", share=ALONE)
    loss.backward()
    assert recorded["value"] == "nan" and loss.item() == 0
    assert float(recorded["grad_abssum"]) == logits.grad.abs().sum().item() == 0


# Discriminators


@pytest.mark.parametrize("name", ["d_aux", "d_main"])
def test_a_discriminator_equals_the_authors(name):
    with torch.device("meta"):
        ours = Discriminator(19, width=64)
    weights = {key.removeprefix(f"{name}."): value for key, value in generated(name).items()}
    ours.load_state_dict(weights, assign=True)
    assert sum(parameter.numel() for parameter in ours.parameters()) == 2_781_121
    with torch.no_grad():
        close(ours(normal("disc.input", 2, 19, 97, 161)), GOLDEN.npz("discriminator_forward.npz"), f"{name}.out")


@pytest.mark.parametrize(("domain", "key"), [(SOURCE, "bce_target0"), (TARGET, "bce_target1")])
def test_the_adversarial_loss_and_its_gradient_equal_the_authors(domain, key):
    score = normal("loss.dout", 2, 1, 5, 7, scale=2).requires_grad_()
    loss = adversarial_loss(score, domain)
    loss.backward()
    close(loss, GOLDEN.json("losses.json"), key)
    close(score.grad, GOLDEN.npz("losses.npz"), f"{key}_grad")


def test_a_frozen_discriminator_lets_gradients_through_and_keeps_none():
    discriminators = Discriminators(["main", "aux"], 3, width=2)
    for parameter in discriminators["aux"].parameters():
        parameter.requires_grad_(False)  # frozen for good
    maps = {name: torch.rand(1, 3, 32, 64, requires_grad=True) for name in ("main", "aux")}
    with frozen(discriminators):
        scores = discriminators(maps)
        assert {name: tuple(score.shape) for name, score in scores.items()} == dict.fromkeys(maps, (1, 1, 1, 2))
        sum(adversarial_loss(score, SOURCE) for score in scores.values()).backward()
    assert all(each.grad.abs().sum() > 0 for each in maps.values())
    assert all(parameter.grad is None for parameter in discriminators.parameters())
    assert all(parameter.requires_grad for parameter in discriminators["main"].parameters())
    assert not any(parameter.requires_grad for parameter in discriminators["aux"].parameters())


# Schedule


def test_learning_rates_equal_the_authors():
    for row in GOLDEN.json("lr_schedule.json")["rows"]:
        network = SGD(
            name="sgd", lr=2.5e-4, head_lr_factor=10, momentum=0.9, weight_decay=5e-4, power=0.9,
            decay_steps=row["max_iters"], backbone_updates="authors",
        )  # fmt: skip
        judge = Adam(name="adam", lr=1e-4, betas=(0.9, 0.99), power=0.9, decay_steps=row["max_iters"])
        # They stop at 120,000 of 250,000 steps.
        ours = [
            lr_at(row["iter"], 120_000, settings, base)
            for settings, base in ((network, network.lr), (network, network.lr * 10), (judge, judge.lr))
        ]
        theirs = [row[key] for key in ("segnet_group0", "segnet_group1", "discriminator")]
        assert ours == pytest.approx(theirs, rel=1e-12)
