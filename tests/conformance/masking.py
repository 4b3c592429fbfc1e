"""MIC's masks and the recolouring of what it masks, against values recorded from the authors' code (golden/modern)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from golden import Golden
from segda.distributed.shares import Share
from segda.errors import RecipeError
from segda.networks.encoders.table import IMAGENET
from segda.parts.masking import block_masks, colour
from segda.parts.photometric import Photometric, photometric

GOLDEN = Golden("modern")


def picture(name: str, shape: tuple[int, int, int, int]) -> torch.Tensor:
    """A normalised image of the set: coarse squares of 16 pixels and noise. It begins a larger one where a side is no
    multiple of them."""
    batch, channels, height, width = shape
    full = (batch, channels, -(-height // 16) * 16, -(-width // 16) * 16)
    coarse = GOLDEN.normal(f"{name}/coarse", (batch, channels, full[2] // 16, full[3] // 16))
    fine = GOLDEN.normal(f"{name}/fine", full)
    image = np.kron(coarse, np.ones((16, 16), np.float32)) + np.float32(0.5) * fine
    return torch.from_numpy(image)[..., :height, :width]


@dataclass(frozen=True)
class Drawn(Share):
    """Hands out recorded numbers: of each scene's grid, of the recolouring of a step."""

    blocks: tuple = ()
    jitter: tuple = ()

    def rng(self, purpose: str, scene: int | None = None):
        return Numbers(self, purpose, scene)


@dataclass(frozen=True)
class Numbers:
    share: Drawn
    purpose: str
    scene: int | None

    def random(self, grid: tuple[int, int] | None = None):
        if grid is None:  # a gate
            assert self.purpose in ("masked jitter", "masked blur") and self.scene is None
            return 0.0
        assert self.purpose == "mask"
        return np.asarray(self.share.blocks[self.scene], np.float64).reshape(grid)

    def permutation(self, count: int):
        assert (self.purpose, self.scene, count) == ("masked order", None, 4)
        return self.share.jitter["order"]

    def uniform(self, low: float, high: float, size: int | None = None):
        if self.purpose == "masked sigma":
            assert self.scene is None
            return self.share.jitter["sigma"]
        assert self.purpose == "masked jitter"
        factors = ("brightness_factor", "contrast_factor", "saturation_factor")
        if size is not None:
            return [self.share.jitter[name][self.scene] for name in factors]
        return self.share.jitter["hue_factor"][self.scene]


MASKS = GOLDEN.json("mic_masks.json")


@pytest.mark.parametrize("number", range(len(MASKS)))
def test_masks_equal_the_authors(number):
    case = MASKS[number]
    # What was drawn is torch's, which any share of the same numbers stands for.
    torch.manual_seed(case["torch_seed"])
    drawn = torch.rand(case["batch"], 1, *case["grid"])
    np.testing.assert_allclose(drawn.flatten()[:8], case["draws_first8"][: drawn.numel()])
    image = torch.zeros(case["batch"], 3, case["height"], case["width"])
    share = Drawn(blocks=tuple(one.numpy() for one in drawn))
    ours = block_masks(image, case["block"], case["ratio"], share)
    stored = GOLDEN.npz("mic_masks.npz")
    shape = tuple(stored[f"mask{number}_shape"])
    theirs = np.unpackbits(stored[f"mask{number}"], axis=-1, count=shape[-1]).reshape(shape)
    np.testing.assert_array_equal(ours.numpy(), theirs.astype(bool))
    assert ours.float().mean().item() == pytest.approx(theirs.mean())


def test_an_image_of_half_a_block_is_refused_as_the_authors_code_fails_there():
    share = Drawn(blocks=(np.ones((1, 1)),) * 2)
    assert block_masks(torch.zeros(2, 3, 33, 40), 64, 0.7, share).all()
    with pytest.raises(RecipeError, match=r"block: 64 is too large for crops of 32 x 40 pixels .* at most 63"):
        block_masks(torch.zeros(2, 3, 32, 40), 64, 0.7, share)
    assert block_masks(torch.zeros(1, 3, 32, 40), 63, 0.7, share).all()


def test_a_batch_is_recoloured_in_one_order_and_blurred_by_one_sigma_before_it_is_masked():
    recorded, theirs = GOLDEN.json("mic_augment.json"), GOLDEN.npz("mic_augment.npz")
    mean, deviation = (torch.tensor(getattr(IMAGENET, name)).view(3, 1, 1) for name in ("mean", "deviation"))
    image = picture("mic/aug", (2, 3, 64, 96)) * deviation + mean
    jitter = recorded["jitter"][0] | {"sigma": recorded["sigma"][0]}
    share = Drawn(jitter=jitter, blocks=tuple(map(tuple, np.reshape(recorded["kept"], (2, -1)))))
    settings = Photometric(jitter_prob=1, jitter_strength=0.2, blur_prob=1, blur_sigma=(0.15, 1.15))
    ours = photometric(image, settings, share=share, which="masked")
    np.testing.assert_allclose(((ours - mean) / deviation)[..., ::2, ::2], theirs["augmented"], atol=5e-5)
    kept = block_masks(ours, recorded["block"], recorded["ratio"], share)
    masked = torch.where(kept, ours, colour(IMAGENET.mean, ours))
    np.testing.assert_allclose(((masked - mean) / deviation)[..., ::2, ::2], theirs["masked"], atol=5e-5)
