"""Two training steps of BDL's translator against those recorded from the authors' trainer (golden/classics)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from classics_weights import GOLDEN, authors_translator, single
from segda.methods.cyclegan import CycleGAN
from segda.parts.given import Given
from segda.recipes.optimisers import Adam
from segda.scene import Batch, Scene
from segda.training.optim import lr_at, optimisers, set_lr
from segda.training.step import train_step

RECORDED = GOLDEN.json("cyclegan.json")
RUN = RECORDED["runs"]["float32"]
NOISE = RECORDED["float32_vs_float64_noise"]

LEAST = 2e-6
"""Relative: a few units in the last place of float32."""

TERMS = {
    "style/target": "G_A", "cycle/source": "cycle_A", "identity/target": "idt_A", "perceptual/target": "sem_A",
    "reconstruction/source": "rec_sem_A", "judge/target": "D_A",
    "style/source": "G_B", "cycle/target": "cycle_B", "identity/source": "idt_B", "perceptual/source": "sem_B",
    "reconstruction/target": "rec_sem_B", "judge/source": "D_B",
}  # fmt: skip
"""Ours -> theirs: A is the source; G_A paints targets, and D_A judges them."""

SETTINGS = Adam(name="adam", lr=2e-4, betas=(0.5, 0.999), power=1, hold=9, stairs=1)
"""As of epochs of one step."""


def limit(noise: float) -> float:
    """What ours may differ by: ten times what the authors' own code does between float32 and float64."""
    return max(10 * noise, LEAST)


def pictures(domain: str, t: int) -> Tensor:
    """A recorded pair in [0, 1]: what a translator sees is twice that, less one."""
    drawn = GOLDEN.normal(f"cyc.{domain}.{t}", (2, 3, 64, 64))
    return (torch.tanh(torch.from_numpy(np.float32(0.7) * drawn)) + 1) / 2


def authors_method() -> CycleGAN:
    """With the authors' weights; its perceptual network sums two of its four dilations, as theirs does."""
    perceptual = single("cyc_semantic")
    for branch in perceptual.classifiers["main"].convolutions()[2:]:
        nn.init.zeros_(branch.weight)
        nn.init.zeros_(branch.bias)
    method = CycleGAN(
        width=64, blocks=9, upsampling="transposed", judge_width=64, pool=50, cycle_weight=10, identity_weight=5,
        perceptual_weight=0.1, reconstruction_weight=10, perceptual=Given("perceptual", perceptual),
    )  # fmt: skip
    for which, domain in (("A", "target"), ("B", "source")):
        authors_translator(method.generators[domain], f"cyc_G_{which}")
        authors_translator(method.discriminators[domain], f"cyc_D_{which}")
    return method.train()


def by_their_names(method: CycleGAN) -> dict[str, Tensor]:
    found = {}
    for which, domain in (("A", "target"), ("B", "source")):
        for letter, player in (("G", method.generators), ("D", method.discriminators)):
            found |= {f"{letter}_{which}.{name}": weight for name, weight in player[domain].named_parameters()}
    return found


@pytest.fixture(scope="module")
def method() -> CycleGAN:
    return authors_method()


@torch.no_grad()
def test_what_the_perceptual_network_says_equals_the_authors(method):
    values, image = GOLDEN.npz("cyclegan.npz"), 2 * pictures("A", 0) - 1
    seen = method.perceptual.low_res_logits((image + 1) / 2)
    theirs = values["semantic_real_A_f32"]
    np.testing.assert_allclose(seen.numpy(), theirs, rtol=0, atol=1e-5 * abs(theirs).max())
    np.testing.assert_allclose(method.perceived(image).numpy(), values["semantic_real_A_normed_f32"], rtol=0, atol=6e-5)


def test_the_perceptual_terms_gradient_reaches_the_picture_as_the_authors(method):
    values, image = GOLDEN.npz("cyclegan.npz"), 2 * pictures("A", 0) - 1
    painted = method.generators["target"](image).detach().requires_grad_()
    with torch.no_grad():
        seen = method.perceived(image)
    (0.1 * nn.functional.mse_loss(method.perceived(painted), seen)).backward()
    theirs = values["sem_A_grad_fake_B_f32"]
    ours = painted.grad[:1].numpy()
    assert np.linalg.norm(ours - theirs) < 1e-2 * np.linalg.norm(theirs)


@pytest.mark.long
def test_two_training_steps_equal_the_authors():
    method = authors_method()
    settings = {"generators": SETTINGS, "discriminators": SETTINGS}
    players = optimisers(method, settings)
    ours = by_their_names(method)
    start = {key: value.detach().double().clone() for key, value in ours.items()}
    norms: dict[str, float] = {}

    def take_norms(optimiser: torch.optim.Optimizer, *_) -> None:
        moved = {id(weight) for row in optimiser.param_groups for weight in row["params"]}
        norms.update({name: weight.grad.double().norm().item() for name, weight in ours.items() if id(weight) in moved})

    for optimiser in players.values():
        optimiser.register_step_pre_hook(take_norms)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    for t in range(2):
        for player, optimiser in players.items():
            set_lr(optimiser, t, 20, settings[player])
        batch = Batch(Scene(pictures("A", t)), Scene(pictures("B", t)))
        terms = train_step(method, [batch], t, players, scaler, torch.float32)
        for term, name in TERMS.items():
            expected = pytest.approx(RUN["losses"][t][name], rel=limit(NOISE["losses_max_rel"][t]))
            assert terms[term].item() == expected, (t, term)
        assert set(terms) == set(TERMS)
        for letter in "GD":
            noise = NOISE["grad_l2_max_rel"][f"{letter}{t + 1}"][0]
            for key, norm in RUN["grad_l2"][f"{letter}{t + 1}"].items():
                # A bias before an instance norm has none but rounding.
                assert norms[key] == pytest.approx(norm, rel=limit(noise), abs=1e-4), (t, key)
        after, noise = RUN["after"][str(t + 1)], NOISE["delta_l2_max_rel"][str(t + 1)][0]
        for key, row in after["delta"].items():
            moved = (ours[key].detach().double() - start[key]).norm().item()
            assert moved == pytest.approx(row["l2"], rel=limit(noise)), (t, key)
        for key, row in after["params"].items():
            assert ours[key].detach().double().norm().item() == pytest.approx(row["l2"], rel=1e-4), (t, key)
    assert all(len(pool.images) == 4 for pool in method.pools.values())


def test_the_rate_falls_as_the_authors():
    ours = [lr_at(epoch, 20, SETTINGS, SETTINGS.lr) for epoch in range(20)]
    assert ours == pytest.approx(RUN["lr_by_epoch"], abs=1e-12)
    in_steps = SETTINGS.model_copy(update={"hold": 9 * 7, "stairs": 7})
    assert [lr_at(t, 140, in_steps, 2e-4) for t in range(140)] == pytest.approx(
        [rate for rate in RUN["lr_by_epoch"] for _ in range(7)], abs=1e-12
    )
