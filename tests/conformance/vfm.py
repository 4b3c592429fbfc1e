"""VFM-UDA's encoders against values recorded from the authors' code (golden/modern)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from conformance.masking import GOLDEN
from conformance.networks import generated
from segda.networks.encoders import dino
from segda.networks.encoders.dino import DINOv2, ViTSize
from segda.networks.encoders.table import ENCODERS, EncoderRow
from segda.networks.weights.names import FAMILIES, to_ours

RECORDED = GOLDEN.json("vfm.json")
SMALL = RECORDED["dinov2"]
LIGHT, FROZEN = GOLDEN.json("vfm_light.json"), GOLDEN.json("vfm_frozen.json")


@pytest.fixture(autouse=True)
def rows(monkeypatch):
    """The recorded encoders as rows of the tables, without and with registers."""
    for name, registers in (("recorded", 0), ("recorded_reg", 4)):
        size = ViTSize(SMALL["dim"], SMALL["depth"], SMALL["heads"], registers, SMALL["position_grid"])
        monkeypatch.setitem(dino.DINOV2S, name, size)
        row = EncoderRow(DINOv2, (SMALL["dim"],), (14,), 14, "dinov2", multiple=14)
        monkeypatch.setitem(ENCODERS, name, row)


def theirs_of(rows: dict, prefix: str = "") -> dict[str, Tensor]:
    """The generated weights by the authors' names."""
    return {name: generated(prefix + name, *row, GOLDEN) for name, row in rows.items()}


def encoder(name: str, tensors: dict[str, Tensor]) -> DINOv2:
    ours = DINOv2(name)
    inside = {key.removeprefix("encoder."): value for key, value in tensors.items() if key.startswith("encoder.")}
    found, unknown = to_ours(inside, FAMILIES["dinov2"].styles["torch hub"].ours, GOLDEN.folder)
    assert unknown == []
    ours.load_state_dict(found)
    return ours.eval()


def light_encoder() -> DINOv2:
    tensors = theirs_of(LIGHT)
    # One tensor under two names, of which the second was loaded last.
    tensors["encoder.mask_token"] = tensors["token_masking.mask_token"]
    return encoder("recorded", tensors)


def enlarged(image: Tensor, side: int) -> Tensor:
    return F.interpolate(image, (side, side), mode="bilinear", align_corners=False)


def picture(name: str = "vfm/img", side: int = 128, batch: int = 2) -> Tensor:
    """Recorded on normalised images."""
    return torch.from_numpy(GOLDEN.normal(name, (batch, 3, side, side)))


@torch.no_grad()
def test_features_at_another_grid_equal_the_authors():
    (ours,) = light_encoder()(enlarged(picture(), 140))
    theirs = GOLDEN.npz("vfm.npz")
    np.testing.assert_allclose(ours, theirs["light/features"], rtol=0, atol=5e-5)
    # The library's own positions are others, and not by rounding.
    assert abs(ours.numpy() - theirs["transformers/features"]).max() > 0.1


@torch.no_grad()
def test_features_of_masked_tokens_equal_the_authors():
    recorded = RECORDED["light"]["masked"]
    hidden = torch.tensor(recorded["masked_tokens"], dtype=torch.bool).unflatten(1, (10, 10))
    (ours,) = light_encoder()(enlarged(picture(), 140), hidden)
    np.testing.assert_allclose(ours, GOLDEN.npz("vfm.npz")["light/masked_features"], rtol=0, atol=5e-5)


@torch.no_grad()
def test_a_frozen_encoder_with_registers_equals_the_authors():
    (ours,) = encoder("recorded_reg", theirs_of(FROZEN, "frozen."))(enlarged(picture(), 70))
    np.testing.assert_allclose(ours, GOLDEN.npz("vfm.npz")["distill/frozen"], rtol=0, atol=5e-5)
