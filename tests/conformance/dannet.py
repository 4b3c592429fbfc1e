"""DANNet's networks, light losses, pseudo-labels, static loss and class weights against values recorded from the
authors' code (golden/classics). Three whole steps: dannet_steps.py.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from classics_weights import GOLDEN, authors_dannet, theirs
from golden import assert_near
from segda.data.labels.spaces import space_named
from segda.distributed.shares import ALONE
from segda.networks.pspnet import PSPNet
from segda.networks.relit import log_rarity
from segda.networks.translator import Generator
from segda.parts.adversary import FINE, Discriminator
from segda.parts.class_weights import weighted
from segda.parts.light import dissimilarity, exposure, variation
from segda.parts.losses import cross_entropy
from segda.parts.static import static_label, static_loss
from segda.recipes.recipe import load_recipe
from segda.scene import IGNORE, Scene

CLASSES = space_named("cityscapes-19").classes
STILL = torch.arange(11)
PSP = {"name": "pspnet", "encoder": "resnet101_deep", "weights": "scratch", "dropout": 0.0}
DEEPLAB = {
    "name": "deeplab_v2", "encoder": "101", "weights": "scratch", "multi_level": True, "aux_weight": 0.1,
    "variant": "dannet",
}  # fmt: skip
SINGLE, MAPS = 1e-6, 1e-5
"""Of single-pass values, relative, and of maps, absolute; README of the recorded set, times a few."""


def normal(name: str, *shape: int) -> Tensor:
    return torch.from_numpy(GOLDEN.normal(name, shape))


def values(name: str) -> float:
    return GOLDEN.json("dannet.json")[f"{name}_f32"]


def weights(spread: float) -> Tensor:
    frequencies = load_recipe("dannet_cityscapes_dark-zurich").network["frequencies"]
    return 1 + spread * log_rarity(frequencies, CLASSES)


# Networks


def as_recorded(ours: Tensor, name: str) -> None:
    noise = "batch statistics of a pyramid" if name == "psp_train_main" else "one pass"
    assert_near(ours, GOLDEN.npz("dannet_networks.npz")[f"{name}_f64"], noise, name)


@torch.no_grad()
def test_pspnets_logits_equal_the_authors_in_evaluation_and_in_training():
    network = authors_dannet("dannet", PSP, "psp")
    assert isinstance(network, PSPNet)
    as_recorded(network.eval().low_res_logits(normal("dannet.net.input", 1, 3, 65, 97)), "psp_main")
    output = network.train()(normal("dannet.net.input2", 2, 3, 62, 94))
    as_recorded(output.heads["main"].cells, "psp_train_main")


@torch.no_grad()
def test_the_logits_of_the_authors_deeplab_are_those_of_two_dilations():
    network = authors_dannet("advent", DEEPLAB, "dannet_deeplab").eval()
    output = network(normal("dannet.net.input", 1, 3, 65, 97))
    as_recorded(output.heads["main"].cells, "deeplab_main")
    as_recorded(output.heads["aux"].cells, "deeplab_aux")


@torch.no_grad()
def test_a_fine_discriminator_equals_the_authors():
    ours = Discriminator(19, 64, FINE)
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs("dannet_D1").values(), strict=True)))
    as_recorded(ours(normal("dannet.disc.input", 2, 19, 41, 57)), "D1")


def test_what_relights_equals_the_authors_with_its_gradient_and_statistics():
    recorded, told = GOLDEN.npz("dannet_light.npz"), GOLDEN.json("dannet.json")
    ours = Generator(width=64, blocks=3, upsampling="transposed", norm="batch")
    ours.load_state_dict(theirs("light"))
    image = normal("dannet.light.input", 2, 3, 48, 64).requires_grad_()
    with torch.no_grad():
        np.testing.assert_allclose(ours.eval()(image).numpy(), recorded["eval_f32"], rtol=0, atol=MAPS)
    light = ours.train()(image)
    np.testing.assert_allclose(light.detach().numpy(), recorded["train_f32"], rtol=0, atol=MAPS)
    light.backward(normal("dannet.light.grad", 2, 3, 48, 64))
    largest = np.abs(recorded["train_grad_input_f32"]).max()
    np.testing.assert_allclose(image.grad.numpy(), recorded["train_grad_input_f32"], rtol=0, atol=1e-4 * largest)
    for name, parameter in ours.named_parameters():
        assert parameter.grad.double().norm().item() == pytest.approx(told["light_grad_l2_f32"][name], rel=1e-4), name
    for name, row in told["light_after_f32"].items():
        assert ours.state_dict()[name].double().norm().item() == pytest.approx(row["l2"], rel=1e-5), name


@torch.no_grad()
def test_weighted_logits_win_where_the_authors_do():
    recorded = GOLDEN.npz("dannet_networks.npz")
    logits = 4 * normal("dannet.eval.logits", 1, 19, 17, 30)
    for name, spread in (("reweighted", 0.16), ("plain", 0.0)):
        enlarged = F.interpolate(logits * weights(spread).view(-1, 1, 1), (54, 96), mode="bilinear", align_corners=True)
        assert np.array_equal(enlarged.argmax(1).numpy(), recorded[f"{name}_argmax_f32"]), name


@pytest.mark.parametrize("spread", [0.05, 0.16])
def test_classes_weigh_what_the_authors_say(spread):
    told = GOLDEN.json("dannet.json")[f"class_weights_{spread}_f32"]
    assert weights(spread).tolist() == pytest.approx(told, rel=1e-6)
    assert weights(spread).mean().item() == pytest.approx(1, abs=1e-6)


# Light


def gradient_of(name: str, loss: Tensor, of: Tensor) -> None:
    """Value, the norm of the gradient, and a corner of it."""
    loss.backward()
    recorded = GOLDEN.npz("dannet_losses.npz")[f"{name}_grad_f32"]
    assert loss.item() == pytest.approx(values(name), rel=SINGLE)
    assert of.grad.double().norm().item() == pytest.approx(values(f"{name}_grad_l2"), rel=3e-5)
    corner = of.grad[:1, :, :40, :56].numpy()
    np.testing.assert_allclose(corner, recorded, rtol=0, atol=1e-3 * np.abs(recorded).max())


def images() -> tuple[Tensor, Tensor, Tensor]:
    image = normal("dannet.loss.image", 2, 3, 80, 112)
    light = (np.float32(0.3) * normal("dannet.loss.r", 2, 3, 80, 112)).requires_grad_()
    night = np.float32(0.6) * normal("dannet.loss.night", 2, 3, 80, 112) - 0.5
    assert night.mean().item() == pytest.approx(values("mean_light"), rel=SINGLE)
    return image, light, night.mean()


def test_the_variation_of_light_equals_the_authors():
    _, light, _ = images()
    gradient_of("tv", variation(light), light)


def test_the_dissimilarity_of_relit_images_equals_the_authors():
    image, light, _ = images()
    gradient_of("ssim", dissimilarity(image + light, image), light)
    assert dissimilarity(image, image).item() == pytest.approx(values("ssim_of_equal"), abs=1e-6)


def test_the_exposure_of_relit_images_equals_the_authors():
    image, light, level = images()
    gradient_of("exposure", exposure(image + light, level), light)


def test_the_light_losses_together_equal_the_authors():
    image, light, level = images()
    relit = image + light
    loss = 10 * variation(light) + dissimilarity(relit, image) + exposure(relit, level)
    loss.backward()
    assert loss.item() == pytest.approx(values("light_loss"), rel=SINGLE)
    assert light.grad.double().norm().item() == pytest.approx(values("light_loss_grad_l2"), rel=3e-5)


# Pseudo-labels and the static loss


def pseudo() -> Tensor:
    day, night = (np.float32(1.5) * normal(f"dannet.{name}", 2, 19, 24, 32) for name in ("day", "night"))
    return static_label(day, night, STILL, weights(0.05), level=0.4, day_share=0.8)


def test_pseudo_labels_of_day_and_night_equal_the_authors():
    assert np.array_equal(pseudo().numpy(), GOLDEN.npz("dannet_losses.npz")["pseudo_f32"])


@pytest.mark.parametrize(("neighbours", "name"), [("paper", "paper"), ("none", "own")])
@pytest.mark.parametrize("labels", ["pseudo", "blobs"])
def test_the_static_loss_equals_the_papers_and_the_one_without_neighbours(labels, neighbours, name):
    recorded = GOLDEN.npz("dannet_losses.npz")
    label = pseudo() if labels == "pseudo" else torch.from_numpy(recorded["blobs"].astype(np.int64))
    logits = (np.float32(3) * normal("dannet.static.logits", 2, 19, 24, 32))[:, :11].requires_grad_()
    loss = static_loss(logits, label, weights(0.05)[:11], neighbours=neighbours, share=ALONE)
    assert loss.item() == pytest.approx(values(f"static_{labels}_{name}"), rel=SINGLE)
    if neighbours == "paper":
        loss.backward()
        theirs = recorded[f"static_{labels}_paper_grad_f32"]
        np.testing.assert_allclose(logits.grad.numpy(), theirs, rtol=0, atol=1e-3 * np.abs(theirs).max())


def test_without_a_label_the_static_loss_has_the_authors_gradient_and_not_their_nan():
    assert values("static_all_ignored") == ["nan", 0.0]
    logits = torch.randn(1, 11, 4, 4, requires_grad=True)
    loss = static_loss(logits, torch.full((1, 4, 4), IGNORE), torch.ones(11), neighbours="none", share=ALONE)
    loss.backward()
    assert loss.item() == logits.grad.abs().sum().item() == 0


def test_the_weighted_cross_entropy_equals_the_authors():
    recorded = GOLDEN.npz("dannet_losses.npz")["seg_grad_f32"]
    label = GOLDEN.integers("dannet.seg.label", 0, 19, (2, 24, 32))
    ignored = GOLDEN.integers("dannet.seg.label.ignore", 0, 1000, (2, 24, 32)) < 200
    logits = (np.float32(3) * normal("dannet.static.logits", 2, 19, 24, 32)).requires_grad_()
    scene = weighted(
        Scene(torch.zeros(2, 3, 24, 32), torch.from_numpy(np.where(ignored, IGNORE, label))), weights(0.05)
    )
    loss = cross_entropy(logits, scene.label, scene.weight, over="weight", share=ALONE)
    loss.backward()
    assert loss.item() == pytest.approx(values("seg"), rel=SINGLE)
    ours = logits.grad[:, :, : recorded.shape[2]].numpy()
    np.testing.assert_allclose(ours, recorded, rtol=0, atol=1e-3 * np.abs(recorded).max())
