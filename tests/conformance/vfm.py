"""VFM-UDA's encoders and networks against values recorded from the authors' code (golden/modern)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from conformance.masking import GOLDEN
from conformance.networks import generated
from conformance.steps import CLASSES
from segda.networks import VFM
from segda.networks.encoders import dino
from segda.networks.encoders.dino import DINOv2, ViTSize
from segda.networks.encoders.table import ENCODERS, EncoderRow
from segda.networks.weights.layouts import LAYOUTS
from segda.networks.weights.names import FAMILIES, to_ours

RECORDED = GOLDEN.json("vfm.json")
SMALL = RECORDED["dinov2"]
LIGHT, ADAPTER, FROZEN = (GOLDEN.json(f"vfm_{part}.json") for part in ("light", "adapter", "frozen"))


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


def network(decoder: str) -> VFM:
    """The authors' network with the generated weights, on normalised images."""
    rows = {"light": LIGHT, "adapter": ADAPTER}[decoder]
    ours = VFM(CLASSES, encoder="recorded", decoder=decoder, weights="scratch", enlarge=1.1)
    layout = LAYOUTS["vfm-uda" if decoder == "light" else "vfm-uda-plusplus"]
    theirs = {f"network.{name}": value for name, value in theirs_of(rows).items()}
    found, unknown = to_ours(theirs, layout.ours, GOLDEN.folder)
    assert [name for name in unknown if not layout.skipped(name, "student")] == []
    ours.load_state_dict(found | {"mean": torch.zeros(3, 1, 1), "deviation": torch.ones(3, 1, 1)})
    return ours.eval()


@torch.no_grad()
def test_logits_of_the_light_decoder_equal_the_authors():
    ours = network("light")
    output = ours(picture())
    assert list(output.heads["main"].cells.shape) == RECORDED["light"]["logits_before_upsampling"]
    np.testing.assert_allclose(output.logits[..., ::4, ::4], GOLDEN.npz("vfm.npz")["light/logits"], rtol=0, atol=5e-5)
    assert output.logits.abs().sum().item() == pytest.approx(RECORDED["light"]["abs_sum"], rel=1e-5)
    assert (
        list(ours.inside(torch.empty(1, 3, 1024, 1024, device="meta")).shape[2:]) == [RECORDED["light"]["at_1024"]] * 2
    )


@pytest.mark.parametrize("mode", ["eval", "train"])
@torch.no_grad()
def test_maps_and_logits_of_the_adapter_equal_the_authors(mode):
    ours, theirs = network("adapter").train(mode == "train"), GOLDEN.npz("vfm.npz")
    image = picture("vfm/adapter", 224, 1)  # inside already
    output = ours(image, size=(56, 56))
    tolerance = {"eval": 5e-5, "train": 2e-4}[mode]
    for name, level, step in zip(("f1", "f2", "f3", "f4"), output.features, (4, 2, 1, 1), strict=True):
        np.testing.assert_allclose(level[..., ::step, ::step], theirs[f"adapter/{mode}/{name}"], rtol=0, atol=tolerance)
    np.testing.assert_allclose(output.logits[..., ::2, ::2], theirs[f"adapter/{mode}/logits"], rtol=0, atol=tolerance)
    sums = [level.abs().sum().item() for level in (*output.features, output.logits)]
    assert sums == pytest.approx(RECORDED[f"adapter_{mode}"]["abs_sums"], rel=1e-5)
