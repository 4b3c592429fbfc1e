"""Three training steps of BDL, without and with pseudo-labels, against those recorded from the authors' trainer.

Everything runs that a recipe runs: network, method, trainer's step, optimisers, schedule. Without labels every tensor
is updated once a step, with labels as often as the authors' list of parameters names it.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from classics_weights import GOLDEN, by_their_names, discriminator, labels, single, theirs
from conformance.advent_steps import compare_state
from segda.methods.bdl import BDL
from segda.recipes.optimisers import SGD, Adam
from segda.scene import Batch, Scene
from segda.training.optim import optimisers, set_lr
from segda.training.step import train_step

pytestmark = pytest.mark.long

SOURCE_SIZE, TARGET_SIZE = (72, 104), (64, 96)
LEAST = 3e-6
"""Relative: a few units in the last place of float32, summed over steps."""

FACTOR = 0.001


def limit(noise: float) -> float:
    """What ours may differ by: ten times what the authors' own code does between float32 and float64."""
    return max(10 * noise, LEAST)


def recorded(domain: str, t: int, size: tuple[int, int]) -> Tensor:
    """A recorded image, drawn as blue, green, red with the mean taken off, as our network wants it."""
    network = torch.from_numpy(GOLDEN.normal(f"bdl.train.{domain}.image.{t}", (1, 3, *size)))
    return network.flip(1)


def batch_of(name: str, t: int) -> Batch:
    source = Scene(
        recorded("source", t, SOURCE_SIZE), labels("bdl.train.source.label." + str(t), (1, *SOURCE_SIZE), 200)
    )
    pseudo = labels(f"bdl.train.target.label.{t}", (1, *TARGET_SIZE), 500) if name == "bdl_ssl" else None
    return Batch(source, Scene(recorded("target", t, TARGET_SIZE), pseudo))


def expected_terms(row: dict[str, float]) -> dict[str, float]:
    """What we log, from what the authors log: their adversarial term comes without its factor."""
    terms = {
        "source": row["loss_seg_src"],
        "fool/main": FACTOR * row["loss_adv_trg"],
        "discriminator/main/source": row["loss_D_src_real"],
        "discriminator/main/target": row["loss_D_trg_real"],
    }
    return terms | ({"pseudo": row["loss_seg_trg"]} if "loss_seg_trg" in row else {})


@pytest.mark.parametrize(("name", "updates"), [("bdl", "dedup"), ("bdl_ssl", "native")])
def test_three_training_steps_equal_the_authors(name, updates):
    told = GOLDEN.json(f"train_{name}.json")
    run, noise = told["runs"][f"{updates}_float32"], told["float32_vs_float64_noise"]
    student = single()
    # The recorded images are as the authors' network sees one: less the mean, and not in [0, 1].
    student.load_state_dict(student.state_dict() | {"mean": torch.zeros(3, 1, 1), "scale": torch.ones(())})
    method = BDL(student, adversarial_weight={"main": FACTOR}, width=64)
    method.discriminators["main"].load_state_dict(discriminator().state_dict())
    method.train()
    decay = {"power": 0.9, "decay_steps": 250_000}
    settings = {
        "student": SGD(
            name="sgd", lr=2.5e-4, head_lr_factor=10, momentum=0.9, weight_decay=5e-4, **decay,
            backbone_updates={"native": "authors", "dedup": "once"}[updates],
        ),
        "discriminators": Adam(name="adam", lr=1e-4, betas=(0.9, 0.99), **decay),
    }  # fmt: skip
    players = optimisers(method, settings)
    judges = zip(theirs("bdl_D"), method.discriminators.parameters(), strict=True)
    ours = by_their_names(method.student) | {f"D.{name}": weight for name, weight in judges}
    start = {key: value.detach().double().clone() for key, value in ours.items()}
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    for t in range(3):
        for player, optimiser in players.items():
            set_lr(optimiser, t, 120_000, settings[player])
            rates = sorted({row["lr"] for row in optimiser.param_groups})
            assert rates == pytest.approx(run["lr"][t][player.removesuffix("s")])
        terms = train_step(method, [batch_of(name, t)], t, players, scaler, torch.float32)
        for term, value in expected_terms(run["losses"][t]).items():
            assert terms[term].item() == pytest.approx(value, rel=limit(noise["losses_max_rel"][t])), (t, term)
        gradients = limit(noise["grad_l2_max_rel_per_iter"][str(t + 1)][0])
        for key, norm in run["grad_l2_before_step"][str(t + 1)].items():
            assert ours[key].grad.double().norm().item() == pytest.approx(norm, rel=gradients), (t, key)
        if str(t + 1) in run["after"]:
            after = run["after"][str(t + 1)]
            (forwards,) = after["num_batches_tracked"]
            compare_state(ours, start, after | {"num_batches_tracked": forwards})
