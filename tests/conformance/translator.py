"""CycleGAN's generator and discriminator against values recorded from BDL's code (golden/classics)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from classics_weights import GOLDEN, authors_translator, theirs
from segda.networks.translator import Generator, PatchDiscriminator

PAINTED, BACK, JUDGED = ({"rtol": 0, "atol": 10 * noise} for noise in (6e-6, 3e-5, 2e-6))
"""Ten times what the authors' own code differs by between float32 and float64, after one network and after two."""


def recorded(domain: str, t: int) -> Tensor:
    """A recorded pair of pictures in [-1, 1]."""
    drawn = GOLDEN.normal(f"cyc.{domain}.{t}", (2, 3, 64, 64))
    return torch.tanh(torch.from_numpy(np.float32(0.7) * drawn))


@torch.no_grad()
def test_generators_paint_what_the_authors_do():
    values = GOLDEN.npz("cyclegan.npz")
    there, back = (
        authors_translator(Generator(width=64, blocks=9, upsampling="transposed"), f"cyc_G_{which}") for which in "AB"
    )
    painted = there(recorded("A", 0))
    np.testing.assert_allclose(painted[:1].numpy(), values["fake_B_f32"], **PAINTED)
    np.testing.assert_allclose(back(painted)[:1].numpy(), values["rec_A_f32"], **BACK)


@torch.no_grad()
def test_a_generator_paints_the_same_in_evaluation():
    # The authors' would turn to the averages of its training, which is why they translate in training mode.
    generator = authors_translator(Generator(width=64, blocks=9, upsampling="transposed"), "cyc_G_A")
    image = recorded("A", 1)
    assert torch.equal(generator.train()(image), generator.eval()(image))


@torch.no_grad()
def test_discriminators_judge_as_the_authors():
    judged = authors_translator(PatchDiscriminator(width=64), "cyc_D_A")(recorded("B", 0))
    np.testing.assert_allclose(judged.numpy(), GOLDEN.npz("cyclegan.npz")["D_A_real_B_f32"], **JUDGED)


def test_networks_have_the_published_number_of_parameters():
    def count(network: nn.Module) -> int:
        return sum(weight.numel() for weight in network.parameters())

    listed = {net: GOLDEN.json("weights.json")[net]["parameters"] for net in ("cyc_G_A", "cyc_D_A", "light")}
    ours = (
        Generator(width=64, blocks=9, upsampling="transposed"),
        PatchDiscriminator(width=64),
        Generator(width=64, blocks=3, upsampling="transposed", norm="batch"),
    )
    assert dict(zip(listed, map(count, ours), strict=True)) == listed
    assert set(ours[2].state_dict()) == set(theirs("light"))
